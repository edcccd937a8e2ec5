"""The files of data sets: where they are kept, whether they are whole, and the tables in them."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import os
import shutil
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys_lib.files import FilePath, is_running

# Files that were right in this process, each with its time, size and checksums.
_checked: set[tuple[object, ...]] = set()


class DataError(RuntimeError):
    """A data set cannot be had or cannot be read; the message says what to do."""


class DownloadError(DataError):
    """A file could not be fetched or stored; nothing half-written is left behind.

    Args:
        message: what happened and what to do.
        status: the HTTP status when it was the server that refused, else None.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class CorruptFileError(DataError):
    """A file is there, but something in it is not what its format says."""


def data_home(folder: FilePath | None = None) -> Path:
    """Return the folder in which data sets are kept: one folder each, named after the data set.

    Args:
        folder: used as it is when given; else the environment variable ``RECSYS_DATA_HOME``; else
            ``recsys_lib`` in the user's cache folder (``XDG_CACHE_HOME`` or ``~/.cache``).

    Example:
        >>> data_home("somewhere").name
        'somewhere'
    """
    chosen = folder or os.environ.get("RECSYS_DATA_HOME")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recsys_lib"


def path_of(folder: Path, name: str) -> Path:
    """Return the path of ``name`` or, where only that is there, of ``name + ".gz"``."""
    plain, packed = folder / name, folder / f"{name}.gz"
    return packed if packed.is_file() and not plain.is_file() else plain


def read_bytes(path: Path) -> bytes:
    """Return the content of a file, unpacked if its name ends in ``.gz``."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CorruptFileError(f"{path} is no whole gzip file ({error}): replace it") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def verify(
    content: bytes, checksum: Any, label: str, kind: type[DataError] = DownloadError
) -> None:
    """Raise an error of this kind unless one of the checksums agrees (or none is given)."""
    if not content:
        raise kind(f"{label}: the file is empty")
    wanted = [checksum] if isinstance(checksum, str) else list(checksum)
    found = [", ".join(_fact(content, part) for part in form.split(", ")) for form in wanted]
    if wanted and not set(found) & set(wanted):
        raise kind(
            f"{label}: wrong checksum, {found[0]} came: expected {' or '.join(wanted)}. The file "
            "was changed or damaged on its way: delete it to have it fetched anew"
        )


def check_file(path: Path, checksum: Sequence[str]) -> None:
    """Raise :class:`CorruptFileError` unless the unpacked content agrees; once for each state."""
    state = path.stat()
    key = (str(path), state.st_mtime_ns, state.st_size, *checksum)
    if key not in _checked:
        verify(read_bytes(path), checksum, str(path), CorruptFileError)
        _checked.add(key)


def remove_leftovers(folder: Path) -> None:
    """Remove what downloads left in the folder that were killed."""
    for left in folder.glob(".download.*.*"):
        if not is_running(left.name.split(".")[2]):
            shutil.rmtree(left, ignore_errors=True)


def _fact(content: bytes, wanted: str) -> str:
    """Return the number of lines or bytes or the digest of the content, written as ``wanted``."""
    if wanted.endswith((" lines", " bytes")):
        lines = content.count(b"\n") + (content[-1:] != b"\n")
        return f"{len(content)} bytes" if wanted.endswith(" bytes") else f"{lines} lines"
    algorithm = wanted.partition(":")[0]
    if algorithm == "git":
        return "git:" + hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    if algorithm in ("text", "ascii"):  # whatever its lines end in, and whatever its encoding is
        left_out = b"\r" if algorithm == "text" else bytes([13, *range(128, 256)])
        return f"{algorithm}:{hashlib.sha256(content.translate(None, left_out)).hexdigest()}"
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


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
        with open_text(path) as file, warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # or old NumPy cuts 6.5 to 6
            options: Any = {"delimiter": delimiter, "skiprows": int(header), "ndmin": 2}
            return np.loadtxt(file, dtype, None, **options)
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
