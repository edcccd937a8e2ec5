"""Files: one format for every model, index, compressed recommender and checkpoint.

A file is a safetensors file: plain arrays, a JSON header, no code. Its metadata hold one JSON text
with ``kind``, ``format``, ``library`` and ``settings``. Its last 32 bytes, which other readers of
safetensors see as an array named ``~sha256``, are the SHA-256 of all bytes before them: they are
checked before anything is parsed, so a file that was cut or changed is never half read. Exported
models of other formats carry such a checksum behind their content (:func:`seal`).
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import threading
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FilePath = str | os.PathLike[str]
FORMAT = 1
_DIGEST = "~sha256"  # sorts behind all other names, so its bytes are the last
_MARK = b'{"__metadata__":{"recsys_lib":'
LITERT_MARK = b"TFL3"  # bytes 4 to 7 of every LiteRT file
_FACTS_NAME = "recsys_lib.json"  # of the entry in an ONNX file
_FACTS_VERSION, _HEX_LENGTH = 2, 64
# What wrong settings or arrays of a file make Python raise.
_ERRORS = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError)
_TEMPORARY = re.compile(r"\.(.+)\.(\d+)-\d+-?(\w*)\.tmp")  # name, process, machine


def write_file(
    path: FilePath, kind: str, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> int:
    """Write arrays and settings to one file: whole, or not at all.

    Args:
        path: where to. An existing file is replaced in one step and keeps its mode; of a link, what
            it points to is replaced.
        kind: what the file is, such as "IALS".
        settings: what JSON can hold.
        arrays: numbers of 1 to 8 bytes, by name.

    Returns:
        Bytes of the file.

    Raises:
        FileNotFoundError: the folder does not exist.
        TypeError: settings hold what JSON cannot, an array holds no numbers, or its name sorts
            behind ``~sha256``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     size = write_file(f"{folder}/a", "demo", {"k": 3}, {"x": np.arange(3)})
        ...     kind, settings, arrays = read_file(f"{folder}/a", ["demo"])
        >>> size < 400, kind, settings, arrays["x"].tolist()
        (True, 'demo', {'k': 3}, [0, 1, 2])
    """
    from safetensors.numpy import save

    from recsys_lib import __version__

    header = {"kind": kind, "format": FORMAT, "library": __version__, "settings": settings}
    text = json.dumps(header, separators=(",", ":"))
    stored: dict[str, NDArray[Any]] = {}
    for name, array in arrays.items():
        array = np.asarray(array)
        if array.dtype.kind not in "iuf" or array.dtype.itemsize > 8 or name >= _DIGEST:
            what = f"expected numbers, and a name before {_DIGEST!r}"
            raise TypeError(f"arrays[{name!r}] is of type {array.dtype}: {what}")
        stored[name] = np.ascontiguousarray(array).reshape(array.shape)
    content = save(stored | {_DIGEST: np.zeros(32, np.uint8)}, {"recsys_lib": text})
    content = content[:-32] + hashlib.sha256(content[:-32]).digest()
    replace_file(path, lambda temporary: temporary.write_bytes(content))
    return len(content)


def read_file(
    path: FilePath, kinds: Collection[str] | None = None
) -> tuple[str, dict[str, Any], dict[str, NDArray[Any]]]:
    """Read a file written by :func:`write_file`; no code is run from it.

    Args:
        path: of the file.
        kinds: those that are expected; None for any.

    Returns:
        ``(kind, settings, arrays)``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is foreign, cut or changed, of a newer format, or of another kind.
    """
    content = Path(path).read_bytes()
    if content[8 : 8 + len(_MARK)] != _MARK:
        raise ValueError(f"{path} is no file of recsys_lib, or is cut: expected one that it wrote")
    if hashlib.sha256(memoryview(content)[:-32]).digest() != content[-32:]:
        raise ValueError(f"{path} is damaged (its checksum is another): expected a whole file")
    from safetensors.numpy import load

    with reading(path):
        header_bytes = int.from_bytes(content[:8], "little")
        header = json.loads(json.loads(content[8 : 8 + header_bytes])["__metadata__"]["recsys_lib"])
        kind, version, settings = header["kind"], header["format"], dict(header["settings"])
        if version > FORMAT:
            what = f"format {version} of recsys_lib {header['library']}"
            raise ValueError(f"{path} has {what}: expected at most {FORMAT}, or a newer recsys_lib")
        if kinds is not None and kind not in kinds:
            raise ValueError(f"{path} holds a {kind}: expected {' or '.join(sorted(kinds))}")
        arrays = load(content)
        del arrays[_DIGEST]
    return kind, settings, arrays


@contextmanager
def reading(path: FilePath, what: str = "what it should hold") -> Iterator[None]:
    """Turn whatever the content of a file makes Python raise into a ValueError that names the file.

    A checksum tells damage, not a wrong writer: a header may still lack a setting, nest a thousand
    lists or claim more numbers than memory has.

    Example:
        >>> with reading("items.index"):
        ...     {}["precision"]
        Traceback (most recent call last):
        ValueError: items.index cannot be read as what it should hold: KeyError: 'precision'
    """
    from safetensors import SafetensorError

    try:
        yield
    except (*_ERRORS, ValueError, SafetensorError) as error:
        if isinstance(error, ValueError) and str(error).startswith(str(path)):
            raise
        why = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} cannot be read as {what}: {why}") from error


def seal(content: bytes, kind: str, **facts: Any) -> bytes:
    """Return an exported model with facts and a checksum behind it, where its runtime skips them.

    Args:
        content: of a LiteRT or ONNX file.
        kind: what it is, such as "recsys_lib scorer".
        **facts: what JSON can hold.

    Example:
        >>> sealed = seal(b"0000TFL3", "demo", num_users=3)
        >>> unseal("a.tflite", sealed, "demo")[0]
        b'0000TFL3'
        >>> unseal("a.tflite", sealed.replace(b"3", b"4"), "demo")
        Traceback (most recent call last):
        ValueError: a.tflite is damaged (its checksum is another): expected a whole file
    """
    first = {"format": kind, "format_version": _FACTS_VERSION, "model_bytes": len(content)}
    text = json.dumps(first | facts).encode()
    sealed = text + hashlib.sha256(content + text).hexdigest().encode()
    if content[4:8] == LITERT_MARK:
        return content + sealed + len(sealed).to_bytes(8, "little")
    import onnx

    # Two messages in a row are one message: the facts come behind what they are about.
    entry = onnx.StringStringEntryProto(key=_FACTS_NAME, value=sealed.decode())
    return content + onnx.ModelProto(metadata_props=[entry]).SerializeToString()


def unseal(path: FilePath, content: bytes, kind: str) -> tuple[bytes, dict[str, Any]]:
    """Return the model and the facts of a sealed file; nothing of the model is parsed.

    Raises:
        ValueError: the facts are missing or of another kind or a newer version, or the checksum is
            another.
    """
    start = content.rfind(f'{{"format": {json.dumps(kind)}'.encode())
    end = content.find(b"}", start) + 1
    text, digest = content[start:end], content[end : end + _HEX_LENGTH]
    rest = content[end + _HEX_LENGTH :]
    if start < 0 or rest not in (b"", (len(text) + _HEX_LENGTH).to_bytes(8, "little")):
        raise ValueError(f"{path} has no facts of a {kind}: expected a whole export")
    with reading(path, kind):
        facts = json.loads(text)
        version, model = facts["format_version"], content[: facts["model_bytes"]]
        if version > _FACTS_VERSION:
            raise ValueError(f"{path} has version {version}: expected up to {_FACTS_VERSION}")
    if hashlib.sha256(model + text).hexdigest().encode() != digest:
        raise ValueError(f"{path} is damaged (its checksum is another): expected a whole file")
    return model, facts


def known_settings(settings: dict[str, Any], known: Collection[str], what: str) -> dict[str, Any]:
    """Return settings that were read from a file, or say which one a newer version wrote.

    Example:
        >>> known_settings({"bits": 4, "shiny": 1}, ["bits"], "UniformQuantization")
        Traceback (most recent call last):
        ValueError: UniformQuantization has the setting 'shiny': expected some of bits; ...
    """
    if unknown := sorted(set(settings) - set(known)):
        expected = f"expected some of {', '.join(sorted(known))}; written by a newer recsys_lib"
        raise ValueError(f"{what} has the setting {unknown[0]!r}: {expected}")
    return dict(settings)


def replace_file(path: FilePath, write: Callable[[Path], Any]) -> None:
    """Let ``write`` make a file under a temporary name, then move it to ``path`` in one step.

    The mode of a file that is replaced is kept, of a link its target is replaced, and temporary
    files that killed processes left beside it are removed.

    Raises:
        FileNotFoundError: the folder does not exist.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     replace_file(f"{folder}/a.txt", lambda new: new.write_text("whole"))
        ...     Path(f"{folder}/a.txt").read_text()
        'whole'
    """
    path = Path(os.path.realpath(path))
    with temporary_beside(path) as temporary:
        write(temporary)
        if path.exists():
            temporary.chmod(path.stat().st_mode & 0o777)
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        temporary.replace(path)


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Yield a temporary name in the same folder; what is left under it, or by the killed, goes.

    The killed are processes that are no more: of any machine for this name, of this one for others.

    Raises:
        FileNotFoundError: the folder does not exist.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path is {path}: expected an existing folder {path.parent}")
    machine = f"{zlib.crc32(platform.node().encode()):08x}"
    for left in path.parent.glob(".*.tmp"):
        found = _TEMPORARY.fullmatch(left.name)
        if found and (found[1] == path.name or found[3] == machine) and not is_running(found[2]):
            _remove(left)
    process = f"{os.getpid()}-{threading.get_ident()}-{machine}"
    temporary = path.with_name(f".{path.name}.{process}.tmp")
    try:
        yield temporary
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def is_running(process: str) -> bool:
    """Tell whether a process may still be at work; on Windows, where asking would end it, yes."""
    if os.name == "nt" or not process.isdigit():
        return True
    with suppress(PermissionError):
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            return False
    return True
