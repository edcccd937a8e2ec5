"""Strict readers of text tables, plain or gzipped: a bad line is an error that names it."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.data.errors import CorruptFileError
from recsys_lib.data.files import open_text


def read_numbers(
    path: Path,
    columns: Sequence[str],
    *,
    delimiter: str = "\t",
    header: bool = False,
    dtype: Any = np.int64,
    optional: int = 0,
) -> NDArray[Any]:
    """Read a table of numbers.

    Args:
        path: plain or ``.gz`` file.
        columns: names of the columns, for messages and for the check of the header.
        delimiter: between columns.
        header: the first line holds the column names.
        dtype: of all columns.
        optional: how many of the last columns may be missing (in all lines alike).

    Returns:
        (n, c) array, ``len(columns) - optional <= c <= len(columns)``.

    Raises:
        CorruptFileError: names the file, the line, what came and what was expected.
    """
    with open_text(path) as file:
        if header:
            _check_header(path, next(csv.reader(file, delimiter=delimiter), []), columns)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # no rows: an error below
                # Before NumPy 2.3, "6.5" as an integer is 6 and a warning.
                warnings.simplefilter("error", DeprecationWarning)
                table = np.loadtxt(file, dtype=dtype, delimiter=delimiter, comments=None, ndmin=2)
        except (ValueError, OverflowError, DeprecationWarning) as error:
            if isinstance(error, UnicodeDecodeError):
                raise
            table = None
    allowed = range(len(columns) - optional, len(columns) + 1)
    if table is not None and table.size == 0:
        raise CorruptFileError(f"{path} holds no rows: expected {', '.join(columns)}")
    if table is None or table.shape[1] not in allowed or not np.isfinite(table).all():
        raise _bad_number(path, columns, delimiter, header, dtype, allowed)
    return table


def read_columns(
    path: Path,
    columns: Sequence[str],
    *,
    delimiter: str = ",",
    header: bool = True,
    encoding: str = "utf-8",
    quoted: bool = True,
) -> list[list[str]]:
    """Read a table of text; each line must have all the columns.

    Args:
        path: plain or ``.gz`` file.
        columns: names of the columns, in order.
        delimiter: between columns.
        header: the first line holds the column names.
        encoding: of the file.
        quoted: ``"`` quotes a value (CSV); else it is a letter like any other.

    Returns:
        One list of strings per column.

    Raises:
        CorruptFileError: names the file, the line, what came and what was expected.
    """
    cells: list[str] = []  # one flat list: a list per row keeps the garbage collector busy
    same: dict[str, str] = {}  # one object per distinct value: big tables repeat themselves
    with open_text(path, encoding) as file:
        reader = (
            csv.reader(file, delimiter=delimiter, strict=True)
            if quoted
            else csv.reader(file, delimiter=delimiter, quoting=csv.QUOTE_NONE)
        )
        try:
            if header:
                _check_header(path, next(reader, []), columns)
            for row in reader:
                if len(row) != len(columns):
                    raise CorruptFileError(
                        f"{path}, line {reader.line_num}: {len(row)} values came ({_short(row)}): "
                        f"expected {len(columns)} ({', '.join(columns)})"
                    )
                cells += [same.setdefault(value, value) for value in row]
        except csv.Error as error:
            raise CorruptFileError(f"{path}, line {reader.line_num}: {error}") from error
    if not cells:
        raise CorruptFileError(f"{path} holds no rows: expected {', '.join(columns)}")
    return [cells[column :: len(columns)] for column in range(len(columns))]


def convert(
    path: Path, column: str, values: Sequence[str], dtype: Any, *, header: bool = True
) -> NDArray[Any]:
    """Turn a column of text into ``dtype`` (integers, floats or ``datetime64[s]``).

    Raises:
        CorruptFileError: names the file, the line, what came and what was expected.
    """
    try:
        return np.array(values).astype(dtype)
    except ValueError as error:
        for row, value in enumerate(values):
            try:
                np.array([value]).astype(dtype)
            except ValueError:
                raise CorruptFileError(
                    f"{path}, line {row + 1 + header}: {column} is {value!r}: "
                    f"expected {np.dtype(dtype).name}"
                ) from error
        raise


def positions(
    path: Path, column: str, values: NDArray[np.int64], vocabulary: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Give the place of each value in the sorted vocabulary.

    Raises:
        CorruptFileError: a value is not in it; names the file and the line (below a header).
    """
    places = np.searchsorted(vocabulary, values).clip(max=len(vocabulary) - 1)
    wrong = np.flatnonzero(vocabulary[places] != values)
    if len(wrong):
        raise CorruptFileError(
            f"{path}, line {wrong[0] + 2}: {column} is {values[wrong[0]]}: expected an id of the "
            "catalogue"
        )
    return places


def _check_header(path: Path, row: Sequence[str], columns: Sequence[str]) -> None:
    found = [value.strip().lstrip("\ufeff") for value in row]
    if found != list(columns):
        raise CorruptFileError(
            f"{path}, line 1: the header is {_short(row)}: expected {', '.join(columns)}"
        )


def _bad_number(
    path: Path,
    columns: Sequence[str],
    delimiter: str,
    header: bool,
    dtype: Any,
    allowed: range,
) -> CorruptFileError:
    """Read again, slowly, to find the line at fault."""
    width: int | None = None
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if (header and number == 1) or not line.strip():
                continue
            row = line.strip("\r\n").split(delimiter)
            where = f"{path}, line {number}: "
            wanted = f"expected {' or '.join(map(str, allowed))} ({', '.join(columns)})"
            if len(row) not in allowed:
                return CorruptFileError(f"{where}{len(row)} values came ({_short(row)}): {wanted}")
            if width is not None and len(row) != width:
                return CorruptFileError(
                    f"{where}{len(row)} values came ({_short(row)}): "
                    f"expected {width} as in the lines before"
                )
            width = len(row)
            for column, value in zip(columns, row, strict=False):
                try:
                    good = bool(np.isfinite(np.array([value]).astype(dtype)).all())
                except (ValueError, OverflowError):
                    good = False
                if not good:
                    return CorruptFileError(
                        f"{where}{column} is {value!r}: expected a number ({np.dtype(dtype).name})"
                    )
    return CorruptFileError(f"{path} is not a table of {', '.join(columns)}")


def _short(row: Sequence[str]) -> str:
    text = " | ".join(row)
    return repr(text if len(text) <= 60 else text[:57] + "...")
