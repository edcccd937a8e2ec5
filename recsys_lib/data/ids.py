"""Ids of a data frame, of any type, as dense ids: position in a vocabulary."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys_lib.data.frames import kept_rows, refuse_first


def dense_ids(
    frame: pd.DataFrame, column: str, argument: str, known: NDArray[Any] | None
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return ids and what they stand for: the known values, then others in sorted order."""
    missing = int(frame[column].isna().sum())
    if missing:
        raise ValueError(
            f"{argument}={column!r}: {missing} of {len(frame)} rows have no id: "
            f"expected none (drop them first: frame.dropna(subset=[{column!r}]))"
        )
    try:
        codes, values = pd.factorize(frame[column].to_numpy(), sort=True)
    except TypeError as error:
        raise TypeError(
            f"{argument}={column!r} holds ids that cannot be sorted ({error}): expected one type"
        ) from error
    values = np.asarray(values)
    if values.dtype.kind == "f":
        if not (np.abs(values) < 2.0 ** (np.finfo(values.dtype).nmant + 1)).all():
            what = f"{argument}={column!r} is {values.dtype}"
            raise TypeError(f"{what}, which rounds such ids: expected integers or text")
        values = values.astype(np.float64)
    objects = frame[column] if values.dtype == object else ()
    if len({isinstance(value, bool | np.bool_) for value in objects}) > 1:
        raise TypeError(
            f"{argument}={column!r} holds True or False among others: expected one type"
        )
    _refuse_alike(values, argument, column)
    if known is None:
        return codes.astype(np.int64), values
    index = pd.Index(known, tupleize_cols=False)
    places = index.get_indexer(pd.Index(values, tupleize_cols=False))
    new = values[places < 0]
    kinds = [pd.api.types.infer_dtype(ids) for ids in (values, known)]
    if len(new) == len(values) and kinds[0] != kinds[1]:
        raise TypeError(f"{argument}={column!r} is {kinds[0]}: the vocabulary is {kinds[1]}")
    places[places < 0] = len(known) + np.arange(len(new))
    if new.dtype != known.dtype and len(new):
        known, new = known.astype(object), new.astype(object)
    if len(new):
        known = np.concatenate([known, new])
        _refuse_alike(known, argument, column)
    return places[codes].astype(np.int64), known


def _refuse_alike(ids: NDArray[Any], argument: str, column: str) -> None:
    """Raise if two ids are one: a number and its text, a text and its bytes, or accents apart."""
    seen: dict[str, Any] = {}
    for id_ in ids if ids.dtype == object else ():
        plain = id_.decode(errors="replace") if isinstance(id_, bytes) else id_
        plain = int(plain) if isinstance(plain, float) and plain.is_integer() else plain
        other = seen.setdefault(unicodedata.normalize("NFC", str(plain)), id_)
        if other is not id_:
            what = f"one id as {other!a} and as {id_!a}"
            raise TypeError(f"{argument}={column!r} holds {what}: expected one form")


def map_rows(
    frame: pd.DataFrame, columns: Mapping[str, str], known: Mapping[str, Any], unknown: str
) -> tuple[pd.DataFrame, dict[str, tuple[NDArray[np.int64], NDArray[Any]]]]:
    """Return the rows that are kept, and ids and vocabulary of "user" and of "item".

    Args:
        frame: the rows.
        columns: of "user" and "item".
        known: their vocabularies, or nothing.
        unknown: "error", "drop" or "new", for ids that are not in them.
    """
    found = {name: dense_ids(frame, columns[name], name, known.get(name)) for name in columns}
    if not known or unknown == "new":
        return frame, found
    reasons = {n: found[n][0] >= len(known[n]) for n in columns}
    for name, mask in reasons.items() if unknown == "error" else ():
        label = f"{name}={columns[name]!r}"
        refuse_first(frame[columns[name]], mask, label, "an id of vocabulary (see unknown)")
    kept = kept_rows({f"with an unknown {name}": mask for name, mask in reasons.items()}, 4)
    if not kept.any():
        raise ValueError("unknown is 'drop', and no row has a user and an item of vocabulary")
    return frame[kept], {name: (found[name][0][kept], known[name]) for name in columns}
