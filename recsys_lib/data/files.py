"""Where data sets are kept, and how their files are opened."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from recsys_lib.data.errors import CorruptFileError, DataError


def data_home(folder: str | os.PathLike[str] | None = None) -> Path:
    """Say in which folder data sets are kept: one folder each, named after the data set.

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
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "recsys_lib"


def find_file(folder: Path, name: str) -> Path | None:
    """Give the path of ``name`` or ``name + ".gz"`` in ``folder``, or None."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    return None


def path_of(folder: Path, name: str) -> Path:
    """Give the path of a file that must be there, plain or gzipped."""
    path = find_file(folder, name)
    if path is None:
        raise DataError(f"{folder / name} is missing: expected it (or {name}.gz) there")
    return path


@contextmanager
def open_text(path: Path, encoding: str = "utf-8") -> Iterator[TextIO]:
    """Open a plain or gzipped text file; every way of being unreadable is a :class:`DataError`.

    Raises:
        CorruptFileError: the file is empty, a broken gzip, or not in this encoding.
        DataError: the operating system refuses to read it.
    """
    try:
        if path.stat().st_size == 0:
            raise CorruptFileError(f"{path} is empty: expected a text table; delete it and reload")
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding=encoding, newline="") as file:
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CorruptFileError(f"{path} is no whole gzip file ({error}): replace it") from error
    except UnicodeDecodeError as error:
        raise CorruptFileError(f"{path} is not {encoding} text ({error}): replace it") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
