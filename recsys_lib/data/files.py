"""Where data sets are kept, and what can go wrong between their address and their arrays."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path


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


def data_home(folder: str | os.PathLike[str] | None = None) -> Path:
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
