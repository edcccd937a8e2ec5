"""Readers of text tables, plain or gzipped: a bad line is an error that names it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from recsys_lib.data.files import CorruptFileError, read_bytes


def open_text(path: Path, encoding: str = "utf-8") -> TextIO:
    """Open a plain or gzipped text file; every way of being unreadable is a :class:`DataError`.

    Raises:
        CorruptFileError: the file is empty, a broken gzip, or not in this encoding.
        DataError: the operating system refuses to read it.
    """
    content = read_bytes(path)
    if not content:
        raise CorruptFileError(f"{path} is empty: expected a text table; delete it and reload")
    try:
        content.decode(encoding)
    except UnicodeDecodeError as error:
        raise CorruptFileError(f"{path} is not {encoding} text ({error}): replace it") from error
    return io.TextIOWrapper(io.BytesIO(content), encoding, newline="")


def read_numbers(
    path: Path, *, delimiter: str = "\t", header: bool = False, dtype: Any = np.int64
) -> NDArray[Any]:
    """Return a table of numbers, (rows, columns); a header is skipped.

    Raises:
        CorruptFileError: names the file, the row and what came.
    """
    try:
        with open_text(path) as file:
            return np.loadtxt(
                file, dtype, comments=None, delimiter=delimiter, skiprows=int(header), ndmin=2
            )
    except ValueError as error:
        raise CorruptFileError(f"{path}: {error}") from error


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
        reader = csv.reader(
            file,
            delimiter=delimiter,
            quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
            strict=True,
        )
        try:
            if header:
                found = [value.strip().lstrip("\ufeff") for value in next(reader, [])]
                if found != list(columns):
                    raise CorruptFileError(
                        f"{path}, line 1: the header is {_short(found)}: expected {columns}"
                    )
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
    except (ValueError, OverflowError) as error:
        for row, value in enumerate(values):
            try:
                np.array([value]).astype(dtype)
            except (ValueError, OverflowError):
                raise CorruptFileError(
                    f"{path}, line {row + 1 + header}: {column} is {value!r}: "
                    f"expected {np.dtype(dtype).name}"
                ) from error
        raise


def _short(row: Sequence[str]) -> str:
    text = " | ".join(row)
    return repr(text if len(text) <= 60 else text[:57] + "...")
