"""Columns of a data frame, read for :class:`recsys_lib.data.Interactions`: nothing is rounded."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys_lib.checks import check_choice, check_type, exact_numbers

UNITS = ("s", "ms", "us", "ns")
# Numbers tell their unit if, read in it, they all lie between May 1995 and October 2096.
_WHOLE = re.compile(r"^(\d+)\.0$")
_CLEAR = [limit * 1000**power for power in range(4) for limit in (8e8, 4e9)]


def read_frame(frame: Any, columns: Mapping[str, str | None]) -> pd.DataFrame:
    """Return a pandas frame that has rows and, once each, the columns, named by argument."""
    if hasattr(frame, "iter_columns"):  # polars; its own to_pandas needs pyarrow
        frame = {column.name: column.to_numpy() for column in frame.iter_columns()}
    elif hasattr(frame, "to_pandas"):
        frame = frame.to_pandas()
    if isinstance(frame, Mapping):
        frame = pd.DataFrame(dict(frame))
    check_type("frame", frame, (pd.DataFrame,), ", a polars or Arrow table, or columns by name")
    for argument, column in columns.items():
        if column is not None and column not in frame.columns:
            known = list(frame.columns)
            raise KeyError(f"{argument}={column!r} is no column of the frame: it has {known}")
        if column is not None and frame[column].ndim > 1:
            raise ValueError(f"{argument}={column!r} names several columns: expected one")
    if columns.get("user", 0) == columns.get("item", 1):
        raise ValueError(f"user, item are both {columns['user']!r}: expected two columns")
    if len(frame) == 0:
        raise ValueError("frame is empty: expected at least one row")
    return frame


def kept_rows(reasons: Mapping[str, Any], stacklevel: int) -> NDArray[np.bool_]:
    """Tell which rows have no reason to be dropped; warn, with a count for each reason.

    Args:
        reasons: in words, each with a mask of the rows that it holds for; several may hold for one.
        stacklevel: of the warning; 0 for none.
    """
    dropped = np.logical_or.reduce([np.asarray(mask, bool) for mask in reasons.values()])
    counts = [f"{np.sum(mask):,} {reason}" for reason, mask in reasons.items() if np.any(mask)]
    if stacklevel and counts:
        text = f"{dropped.sum():,} of {len(dropped):,} rows are dropped: {', '.join(counts)}"
        warnings.warn(text, UserWarning, stacklevel)
    return ~dropped


def plain_texts(values: pd.Series) -> pd.Series:
    """Return numbers and texts as texts, missing ones as empty: 85048.0, 85048 and " 85048"."""
    codes, found = pd.factorize(values, use_na_sentinel=False)
    plain = ["" if pd.isna(v) else _WHOLE.sub(r"\1", str(v).strip()) for v in found]
    return pd.Series(np.array(plain, object)[codes], values.index)


def first_reasons(reasons: Mapping[str, Any]) -> tuple[NDArray[np.bool_], pd.Series]:
    """Return which rows have no reason to be dropped, and a report that adds up to all rows.

    Args:
        reasons: in words, each with a mask of the rows that it holds for. A row for which several
            hold is counted under the first.

    Returns:
        The mask of rows that stay, and the number of rows by reason, with "kept" at the end.

    Raises:
        ValueError: no row is left.

    Example:
        >>> first_reasons({"no user": [True, False], "no item": [True, False]})[1].to_dict()
        {'no user': 1, 'no item': 0, 'kept': 1}
    """
    masks = np.array([np.asarray(mask, bool) for mask in reasons.values()])
    first = np.where(masks.any(axis=0), masks.argmax(axis=0), len(masks))
    counts = np.bincount(first, minlength=len(masks) + 1)
    report = pd.Series(counts, [*reasons, "kept"], name="rows")
    if not report["kept"]:
        raise ValueError(f"no row is left: {report[report > 0].to_dict()}")
    return first == len(masks), report


def texts(
    frame: pd.DataFrame, column: str | None, ids: NDArray[np.int64], count: int, known: Any
) -> tuple[str, ...] | None:
    """Return a text for each id: the known one, else the first of the column, else none."""
    if column is None and known is None:
        return None
    found: dict[int, str] = {}
    if column is not None:
        firsts = np.unique(ids, return_index=True)[1]
        firsts = firsts[frame[column].iloc[firsts].notna().to_numpy()]
        found = dict(zip(ids[firsts].tolist(), map(str, frame[column].iloc[firsts]), strict=True))
    found |= enumerate(known or ())
    return tuple(found.get(id_, "") for id_ in range(count))


def ratings(frame: pd.DataFrame, column: str) -> NDArray[Any]:
    """Return the column as finite numbers."""
    found = _numbers(frame[column], f"rating={column!r}", "a number")
    if found is None:
        value = frame[column].iloc[0]
        raise ValueError(f"rating={column!r}: row 0 holds {value!r}: expected a number")
    return found


def times(
    frame: pd.DataFrame, column: str, unit: str | None, form: str | None, coarsest: str | None
) -> tuple[NDArray[Any], str | None]:
    """Return times as integers, or as the numbers that they are, and their unit.

    Dates become integers of ``unit``; without one, of the coarsest unit that keeps them all
    exactly. Those without a zone are UTC.
    """
    check_choice("time_unit", unit or "unknown", (*UNITS, "unknown"))
    label, values = f"time={column!r}", frame[column]
    found = _numbers(values, label, "a time") if form is None else None
    if found is not None:
        return exact_numbers(label, found), unit
    dates = _dates(values, label, form)
    units = UNITS[UNITS.index(coarsest) :] if coarsest in UNITS else UNITS
    for choice in [unit] if unit in UNITS else units:
        kept = dates.dt.as_unit(choice)
        if (kept == dates).all():
            return kept.astype("int64").to_numpy(), choice
    raise ValueError(f"time_unit is {unit!r}: {label} has finer times; expected a finer unit")


def _dates(values: pd.Series, label: str, form: str | None) -> pd.Series:
    """Return dates in UTC: of ISO 8601 or of one other form, which must be clear if not given."""
    if form is None and values.dtype.kind == "M":
        return pd.to_datetime(values, utc=True)
    written = values.astype(object).map(str)  # a date that is none of text is ISO 8601 by that
    guess = pd.tseries.api.guess_datetime_format
    expected = f"a date of the form {form!r}" if form else "a date of one form (see time_format)"
    refuse_first(values, ~written.str.contains(r"\d").to_numpy(bool), label, expected)  # "now"
    with warnings.catch_warnings(action="ignore"):  # where the day is past 12
        guesses = [guess(written.iloc[0], dayfirst) or "" for dayfirst in (False, True)]
    # A year stands before months; old pandas would read a zone that it does not know as UTC.
    clear = [x for x in guesses if x and not re.match(r"%Y.%d|.* (?!UTC|GMT)[A-Z]+$", x)]
    forms = [form] if form else ["ISO8601", *clear]
    read: list[pd.Series] = []
    for each in forms:
        dates = pd.to_datetime(written, errors="coerce", utc=True, format=each)
        if not dates.isna().any():
            if form or each == "ISO8601":
                return dates
            read.append(dates)
    if not read:
        refuse_first(values, dates.isna().to_numpy(), label, expected)
    unclear = (read[0] != read[-1]).to_numpy()
    refuse_first(values, unclear, label, "it to be clear what is day and month: say time_format")
    return read[0]


def unit_of(label: str, values: NDArray[Any]) -> str:
    """Return the unit of times since 1970 by their size; "unknown" where that is not clear.

    Raises:
        ValueError: some are clearly of one unit and the rest of others.

    Example:
        >>> unit_of("timestamps", np.array([1.6e12, 1.7e12])), unit_of("timestamps", np.arange(3))
        ('ms', 'unknown')
    """
    places = np.unique(np.searchsorted(_CLEAR, values, side="right"))  # odd: within a unit
    found = [UNITS[place // 2] for place in places if place % 2]
    if len(found) < len(places):
        return "unknown"
    if len(found) > 1:
        raise ValueError(f"{label} are in {' and '.join(found)}: expected one unit, or time_unit")
    return found[0]


def _numbers(values: pd.Series, label: str, expected: str) -> NDArray[Any] | None:
    """Return a column of numbers, in whatever form, exactly; None if nothing in it is one."""
    refuse_first(values, values.isna().to_numpy(), label, expected)
    array = values.to_numpy() if values.dtype.kind not in "bcmM" else np.empty(0, bool)
    if array.dtype.kind in "iuf":
        return array
    found = [_decimal(value) for value in array] if array.dtype.kind in "OU" else []
    parsed = [value for value in found if value is not None]
    if not parsed:
        return None
    is_number = np.array([value is not None for value in found])
    refuse_first(values, ~is_number, label, "a number, as in other rows")
    large = [not (value.is_finite() and -(2**63) <= value < 2**63) for value in parsed]
    refuse_first(values, np.array(large), label, "a finite number below 2 ** 63")
    if all(value == value.to_integral_value() for value in parsed):
        return np.array([int(value) for value in parsed], np.int64)
    floats = np.array(parsed, np.float64)
    if len(set(parsed)) != len(np.unique(floats)):
        raise ValueError(f"{label} has more digits than a float64 holds: expected whole numbers")
    return floats


def _decimal(value: Any) -> Decimal | None:
    """Return the exact value of a number or of its text, None for anything else."""
    if isinstance(value, np.floating | np.integer) and not isinstance(value, np.timedelta64):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        return None
    try:
        return Decimal(value)
    except InvalidOperation:
        return None


def refuse_first(values: pd.Series, bad: NDArray[np.bool_], label: str, expected: str) -> None:
    """Raise with the first bad row."""
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        value = values.iloc[row]
        shown = repr(value) if isinstance(value, str) else str(value)
        raise ValueError(f"{label}: row {row} holds {shown}: expected {expected}")
