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
    """Read a table of text; what a line lacks at its end is empty.

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
        CorruptFileError: names the file, what came and what was expected.
    """
    import pandas as pd

    names = {"header": 0} if header else {"header": None, "names": columns}
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    options = {"dtype": str, "keep_default_na": False, "quoting": quoting, **names}
    try:
        table = pd.read_csv(open_text(path, encoding), sep=delimiter, **options)
    except pd.errors.ParserError as error:
        raise CorruptFileError(f"{path}: {error}") from error
    if list(table) != list(columns) or table.index.dtype != np.int64:
        raise CorruptFileError(f"{path} has columns {list(table)}: expected {list(columns)}")
    return [table[column].tolist() for column in columns]
