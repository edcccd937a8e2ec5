"""Data frames in and out of :class:`recsys_lib.data.Interactions`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.data.interactions import Interactions

if TYPE_CHECKING:
    import pandas as pd


def interactions_from_frame(
    frame: pd.DataFrame,
    *,
    user: str,
    item: str,
    rating: str | None = None,
    time: str | None = None,
    item_name: str | None = None,
    item_text: str | None = None,
    name: str = "interactions",
) -> Interactions:
    """Do the work of :meth:`recsys_lib.data.Interactions.from_frame`."""
    named = {"user": user, "item": item, "rating": rating, "time": time}
    named |= {"item_name": item_name, "item_text": item_text}
    for argument, column in named.items():
        if column is not None and column not in frame.columns:
            raise KeyError(
                f"{argument}={column!r} is no column of the frame: expected one of "
                f"{list(frame.columns)}"
            )
    if len(frame) == 0:
        raise ValueError("frame is empty: expected at least one row")
    user_ids, user_vocabulary = _dense_ids(frame, user, "user")
    item_ids, item_vocabulary = _dense_ids(frame, item, "item")
    firsts = np.unique(item_ids, return_index=True)[1]
    texts = {
        target: None if column is None else _texts(frame[column].iloc[firsts])
        for target, column in (("item_names", item_name), ("item_texts", item_text))
    }
    return Interactions(
        user_ids=user_ids,
        item_ids=item_ids,
        ratings=None if rating is None else _numbers(frame, rating),
        timestamps=None if time is None else _seconds(frame, time),
        num_users=len(user_vocabulary),
        num_items=len(item_vocabulary),
        user_vocabulary=user_vocabulary,
        item_vocabulary=item_vocabulary,
        item_names=texts["item_names"],
        item_texts=texts["item_texts"],
        name=name,
    )


def interactions_to_frame(data: Interactions) -> pd.DataFrame:
    """Do the work of :meth:`recsys_lib.data.Interactions.to_frame`."""
    import pandas as pd

    def original(ids: NDArray[np.int64], vocabulary: NDArray[Any] | None) -> NDArray[Any]:
        return ids if vocabulary is None else vocabulary[ids]

    columns: dict[str, Any] = {
        "user": original(data.user_ids, data.user_vocabulary),
        "item": original(data.item_ids, data.item_vocabulary),
    }
    if data.ratings is not None:
        columns["rating"] = data.ratings
    if data.timestamps is not None:
        columns["time"] = pd.to_datetime(data.timestamps, unit="s")
    return pd.DataFrame(columns)


def _dense_ids(
    frame: pd.DataFrame, column: str, argument: str
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    missing = int(frame[column].isna().sum())
    if missing:
        raise ValueError(
            f"{argument}={column!r}: {missing} of {len(frame)} rows have no id: "
            f"expected none (drop them first: frame.dropna(subset=[{column!r}]))"
        )
    import pandas as pd

    try:
        ids, vocabulary = pd.factorize(frame[column].to_numpy(), sort=True)
    except TypeError as error:
        raise TypeError(
            f"{argument}={column!r} holds ids that cannot be sorted ({error}): expected one type"
        ) from error
    return ids.astype(np.int64), np.asarray(vocabulary)


def _texts(values: pd.Series) -> tuple[str, ...]:
    """Missing ones become empty."""
    return tuple(
        "" if is_missing else str(value)
        for value, is_missing in zip(values, values.isna(), strict=True)
    )


def _numbers(frame: pd.DataFrame, column: str) -> NDArray[np.float32]:
    import pandas as pd

    numbers = pd.to_numeric(frame[column], errors="coerce")
    _check_column(frame[column], numbers.isna().to_numpy(), f"rating={column!r}", "a number")
    return numbers.to_numpy(np.float32)


def _seconds(frame: pd.DataFrame, column: str) -> NDArray[np.int64]:
    """Numbers are taken as seconds; anything else is read as a date, UTC unless it says."""
    import pandas as pd

    values = frame[column]
    if pd.api.types.is_numeric_dtype(values):
        numbers = values.to_numpy(np.float64, na_value=np.nan)
        _check_column(values, ~np.isfinite(numbers), f"time={column!r}", "seconds")
        return values.to_numpy().astype(np.int64)
    dates = pd.to_datetime(values, errors="coerce", utc=True)
    if dates.isna().any():  # dates with and without a time of day in one column
        dates = pd.to_datetime(values, errors="coerce", utc=True, format="ISO8601")
    _check_column(values, dates.isna().to_numpy(), f"time={column!r}", "a date")
    return dates.dt.as_unit("s").astype("int64").to_numpy()


def _check_column(values: pd.Series, bad: NDArray[np.bool_], label: str, expected: str) -> None:
    """Raise with the first bad row."""
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        value = values.iloc[row]
        shown = repr(value) if isinstance(value, str) else str(value)
        raise ValueError(f"{label}: row {row} holds {shown}: expected {expected}")
