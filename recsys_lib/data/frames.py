"""Columns of a data frame, read for :class:`recsys_lib.data.Interactions`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd


def check_columns(frame: pd.DataFrame, columns: Mapping[str, str | None]) -> None:
    """Raise unless the frame has rows and the columns, which are named by argument."""
    for argument, column in columns.items():
        if column is not None and column not in frame.columns:
            raise KeyError(
                f"{argument}={column!r} is no column of the frame: expected one of "
                f"{list(frame.columns)}"
            )
    if len(frame) == 0:
        raise ValueError("frame is empty: expected at least one row")


def dense_ids(
    frame: pd.DataFrame, column: str, argument: str
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return ids in the sorted order of the values, and those values."""
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


def texts(values: pd.Series) -> tuple[str, ...]:
    """Return texts; missing ones become empty."""
    return tuple(
        "" if is_missing else str(value)
        for value, is_missing in zip(values, values.isna(), strict=True)
    )


def numbers(frame: pd.DataFrame, column: str) -> NDArray[np.float32]:
    """Return the column as finite numbers."""
    import pandas as pd

    numbers = pd.to_numeric(frame[column], errors="coerce")
    _refuse_first(frame[column], numbers.isna().to_numpy(), f"rating={column!r}", "a number")
    return numbers.to_numpy(np.float32)


def seconds(frame: pd.DataFrame, column: str) -> NDArray[np.int64]:
    """Return seconds: numbers as they are, anything else read as a date, in UTC unless it says."""
    import pandas as pd

    values = frame[column]
    if pd.api.types.is_numeric_dtype(values):
        numbers = values.to_numpy(np.float64, na_value=np.nan)
        _refuse_first(values, ~np.isfinite(numbers), f"time={column!r}", "seconds")
        return values.to_numpy().astype(np.int64)
    dates = pd.to_datetime(values, errors="coerce", utc=True)
    if dates.isna().any():  # dates with and without a time of day in one column
        dates = pd.to_datetime(values, errors="coerce", utc=True, format="ISO8601")
    _refuse_first(values, dates.isna().to_numpy(), f"time={column!r}", "a date")
    return dates.dt.as_unit("s").astype("int64").to_numpy()


def _refuse_first(values: pd.Series, bad: NDArray[np.bool_], label: str, expected: str) -> None:
    """Raise with the first bad row."""
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        value = values.iloc[row]
        shown = repr(value) if isinstance(value, str) else str(value)
        raise ValueError(f"{label}: row {row} holds {shown}: expected {expected}")
