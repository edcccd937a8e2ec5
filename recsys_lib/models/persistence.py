"""Models in files: one .npz of plain arrays and a JSON header, and no code.

The file is written under a temporary name and moved into place when it is whole, so a reader
never sees half a file. It is read with ``allow_pickle=False``: opening a file runs nothing from it.
"""

from __future__ import annotations

import json
import os
import uuid
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FORMAT = "recsys_lib model"
FORMAT_VERSION = 1
_HEADER = "header.json"
# What zipfile and NumPy raise on damaged archives (RuntimeError: encrypted or unknown methods).
_UNREADABLE = (ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)


def write_model_file(
    path: str | os.PathLike[str], header: dict[str, Any], arrays: dict[str, NDArray[Any]]
) -> None:
    """Write header and arrays to ``path``: all of it, or nothing.

    Args:
        path: where to; an existing file is replaced in one step.
        header: what JSON can hold; the format and its version are added.
        arrays: named arrays of numbers.

    Raises:
        FileNotFoundError: the folder does not exist.
        TypeError: the header holds what JSON cannot, or an array holds Python objects.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_model_file(f"{folder}/a.npz", {"class": "A"}, {"x": np.arange(3)})
        ...     header, arrays = read_model_file(f"{folder}/a.npz")
        >>> header["class"], arrays["x"].tolist()
        ('A', [0, 1, 2])
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path is {path}: expected an existing folder {path.parent}")
    text = json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION} | header)
    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise TypeError(f"arrays[{name!r}] holds Python objects: expected numbers")
    members = {f"array.{name}": np.asarray(array) for name, array in arrays.items()}
    members[_HEADER] = np.frombuffer(text.encode(), np.uint8)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            np.savez(file, **members)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_model_file(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read what :func:`write_model_file` wrote.

    Args:
        path: of the file.

    Returns:
        ``(header, arrays)``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated or damaged, is not one of ours, or is of a newer format.
    """
    path = Path(path)
    path.open("rb").close()  # a missing or forbidden file keeps its own error
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is not a zip archive")
        with np.load(path, allow_pickle=False) as archive:
            members = {name: archive[name] for name in archive.files}
    except _UNREADABLE as error:
        raise ValueError(
            f"{path} is not a whole {FORMAT} file ({error}): expected a file written by save(), "
            "not truncated or changed"
        ) from error
    header = _parse_header(path, members.pop(_HEADER, None))
    arrays = {
        name.removeprefix("array."): array
        for name, array in members.items()
        if name.startswith("array.")
    }
    return header, arrays


def _parse_header(path: Path, raw: NDArray[Any] | None) -> dict[str, Any]:
    try:
        header = json.loads(b"" if raw is None else raw.tobytes())
    except ValueError:
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"{path} has no header of a {FORMAT}: expected a file written by save()")
    version = header.get("format_version")
    if not isinstance(version, int) or version < 1:
        raise ValueError(f"{path} has format version {version!r}: expected 1 to {FORMAT_VERSION}")
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {version}, this recsys_lib reads up to {FORMAT_VERSION}: "
            "expected an older file or a newer recsys_lib"
        )
    return header
