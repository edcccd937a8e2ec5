"""The reader's own file of interactions, CSV or Parquet: nothing is guessed, nothing lost."""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from recsys_lib.checks import check_choice
from recsys_lib.data.files import CorruptFileError, open_text
from recsys_lib.data.frames import first_reasons, plain_texts, read_frame
from recsys_lib.data.interactions import Interactions
from recsys_lib.files import FilePath

_MISSING = ("", "NULL", "null", "NaN", "nan", "None", r"\N")


def read_interactions(
    path: FilePath,
    *,
    user: str | None = None,
    item: str | None = None,
    rating: str | None = None,
    time: str | None = None,
    item_name: str | None = None,
    columns: Sequence[str] | None = None,
    separator: str = ",",
    encoding: str = "utf-8",
    time_format: str | None = None,
    missing: Collection[str] = _MISSING,
    repeats: Literal["keep", "drop"] = "keep",
    name: str | None = None,
) -> tuple[Interactions, pd.Series]:
    r"""Read a file with one interaction a row, and say how many rows went for which reason.

    A row goes, in this order, if it has no user, no item, no finite number as rating, no time that
    can be read, or, with ``repeats="drop"``, if an earlier row says the same in all columns that
    are read. Ids are text: "007" and "7" are two users, 7 and 7.0 of a spreadsheet one.

    Args:
        path: text with separators, plain or ``.gz``; or Parquet, if the name ends in ``.parquet``
            (needs pyarrow: the extra ``parquet``).
        user: column of user ids; may be left out, with ``item``, if the file has two columns: the
            first is the user.
        item: column of item ids.
        rating: column of numbers, or None.
        time: column of times, or None: numbers, or dates as ISO 8601 unless ``time_format`` is
            given. 03/04/2024 is two different days to two readers, and is not guessed.
        item_name: column with the item's name, or None.
        columns: names of the columns, for a text file without a line of names.
        separator: between the columns of a text file: one character.
        encoding: of a text file, such as "utf-8" (a byte order mark is skipped) or "latin-1".
        time_format: of dates, as in ``datetime.strptime``.
        missing: texts that stand for nothing.
        repeats: "keep" or "drop" rows that say the same.
        name: of the data set; None for the file's.

    Returns:
        ``(interactions, report)``; the report counts rows by reason, "kept" at the end, and adds up
        to all rows.

    Raises:
        KeyError: a named column is not in the file.
        ValueError: columns that are not named, a first line that is no line of names, no row left.
        ImportError: Parquet without pyarrow.
        DataError: the file cannot be read, is empty or cut, or is in another encoding.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "sales.csv"
        ...     _ = path.write_text("customer,sku\nann,90\nann,\nbob,90\n")
        ...     data, report = read_interactions(path)
        >>> data
        Interactions('sales.csv', 2 rows, 2 users, 1 items)
        >>> report.to_dict()
        {'no user': 0, 'no item': 1, 'kept': 2}
    """
    check_choice("repeats", repeats, ("keep", "drop"))
    path = Path(path)
    if path.suffix == ".parquet":
        frame = _read_parquet(path)
    else:
        frame = _read_text(path, columns, separator, encoding)
    if user is None and item is None and len(frame.columns) == 2:
        user, item = frame.columns
    if user is None or item is None:
        what = f"{path.name} has columns {list(frame.columns)}"
        raise ValueError(f"user, item: expected the names of two columns, {what} (see separator)")
    used = {"user": user, "item": item, "rating": rating, "time": time, "item_name": item_name}
    used = {argument: column for argument, column in used.items() if column is not None}
    rows = read_frame(frame, used)[list(used.values())].set_axis(list(used), axis=1)
    for argument in {"user", "item", "item_name"} & set(used):
        rows[argument] = plain_texts(rows[argument])
        rows[argument] = rows[argument].where(~rows[argument].isin(set(missing)), "")
    reasons = {"no user": rows["user"] == "", "no item": rows["item"] == ""}
    if rating is not None:
        rows["rating"] = _numbers(rows["rating"])
        reasons[f"no number as {rating}"] = ~np.isfinite(rows["rating"])
    if time is not None:
        rows["time"] = _times(rows["time"], time_format)
        reasons[f"no time as {time}"] = rows["time"].isna()
    if repeats == "drop":
        reasons["a repeated row"] = rows.duplicated()
    kept, report = first_reasons(reasons)
    given: dict[str, Any] = {argument: argument for argument in used}
    return Interactions.from_frame(rows[kept], **given, name=name or path.name), report


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        needed = "Parquet needs pyarrow: pip install 'recsys-lib[parquet]'"
        raise ImportError(f"{path} cannot be read: {needed}") from error
    try:
        return pd.read_parquet(path, engine="pyarrow")
    except (OSError, ValueError) as error:
        raise CorruptFileError(f"{path} is no whole Parquet file ({error})") from error


def _read_text(path: Path, columns: Any, separator: str, encoding: str) -> pd.DataFrame:
    """Read all columns as text; refuse a first line that is no line of names."""
    skips_mark = "utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding
    try:
        text = open_text(path, skips_mark)
    except CorruptFileError as error:
        if isinstance(error.__cause__, UnicodeDecodeError):
            advice = "expected another encoding, such as encoding='latin-1'"
            raise CorruptFileError(f"{path} is not {encoding} text: {advice}") from error
        raise
    options: dict[str, Any] = {"dtype": str, "keep_default_na": False, "sep": separator}
    if columns is not None:
        options |= {"header": None, "names": list(columns)}
    try:
        frame = pd.read_csv(text, quoting=csv.QUOTE_MINIMAL, **options)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise CorruptFileError(f"{path}: {error}") from error
    names = list(frame.columns)
    if frame.index.dtype != np.int64:
        raise CorruptFileError(f"{path} has rows of more values than the names {names}")
    as_data = [n for n in names if pd.notna(pd.to_numeric(n, errors="coerce"))]
    as_data += [n for n in names if (frame[n] == n).any()]
    if columns is None and as_data:
        told = f"{path.name} begins with {names}, and {as_data[0]!r} is no name"
        raise ValueError(f"columns is None, {told}: expected a line of names, or columns=[...]")
    return frame


def _numbers(values: pd.Series) -> pd.Series:
    return pd.to_numeric(values, errors="coerce").astype(float)


def _times(values: pd.Series, time_format: str | None) -> pd.Series:
    """Return numbers if any is one, else dates; missing where a value is neither."""
    if values.dtype.kind == "M" or time_format is not None:
        return pd.to_datetime(values, errors="coerce", format=time_format, utc=True)
    numbers = pd.to_numeric(values, errors="coerce").replace([np.inf, -np.inf], np.nan)
    if numbers.notna().any():
        return numbers
    return pd.to_datetime(values.astype(str), errors="coerce", format="ISO8601", utc=True)
