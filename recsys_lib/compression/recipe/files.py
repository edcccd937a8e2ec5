"""A compressed recommender in one file: a version, a checksum, plain arrays, and no code.

Layout, all numbers little-endian::

    8 bytes   "RSLFACT" and a newline
    2 bytes   version of the format
    4 bytes   length of the header
    header    JSON, deflated: counts, fold-in, and for each tensor its kind, settings and arrays
    arrays    one after the other, as the header lists them
    32 bytes  SHA-256 of everything before
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import uuid
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Imported for the kinds of stored tensors that they define.
import recsys_lib.compression.embedding_tables
import recsys_lib.compression.pruning
import recsys_lib.compression.quantization  # noqa: F401
from recsys_lib.compression.checks import check_choice
from recsys_lib.compression.compressed import CompressedModel
from recsys_lib.compression.recipe.factors import Factors, FoldIn, as_factors
from recsys_lib.compression.tensors import DenseTensor, EncodedTensor, read_tensor

FORMAT_VERSION = 1
ACCOUNTS = ("self-contained", "items")
_MAGIC = b"RSLFACT\n"
_START = struct.Struct("<8sHI")
_DIGEST_BYTES = 32
_MOST_HEADER_BYTES = 1 << 24


def save_compressed(
    path: str | os.PathLike[str], model: Any, *, account: str = "self-contained"
) -> int:
    """Write a recommender to one file, in the form in which its tables are stored.

    Args:
        path: where to; an existing file is replaced in one step, when the new one is whole.
        model: a CompressedModel whose tensors are ``item_vectors`` and ``user_vectors``, as
            :func:`compress` and most functions of the library give it; or what
            :func:`as_factors` takes, stored in float32.
        account: "self-contained" stores all user vectors; "items" stores none: a user's history
            comes with the request, and the vector is folded in.

    Returns:
        Bytes of the file.

    Raises:
        FileNotFoundError: the folder does not exist.
        TypeError: a model that is not two tables, or one without fold-in for account "items".
        ValueError: another account.

    Example:
        >>> import tempfile
        >>> from recsys_lib.compression.quantization import UniformQuantization, quantize
        >>> from recsys_lib.data import Interactions
        >>> from recsys_lib.models import IALS
        >>> model = IALS(embedding_dim=4).fit(Interactions([0, 0, 1, 2], [0, 1, 1, 2]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     size = save_compressed(f"{folder}/m", quantize(model, UniformQuantization(4)))
        ...     load_compressed(f"{folder}/m")
        Factors(3 users, 3 items, d = 4)
    """
    check_choice("account", account, ACCOUNTS)
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path is {path}: expected an existing folder {path.parent}")
    tensors, factors = _tables(model)
    if account == "items":
        if factors.how_to_fold_in is None:
            raise TypeError(
                "account is 'items': expected a model that folds users in, such as IALS"
            )
        tensors = {name: tensor for name, tensor in tensors.items() if name != "user_vectors"}
    content = _pack(tensors, factors.how_to_fold_in)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return len(content)


def load_compressed(path: str | os.PathLike[str]) -> Factors:
    """Read a file written by :func:`save_compressed`; no code is run from it.

    Nothing but NumPy is needed to read it and to score; TensorFlow is not imported.

    Args:
        path: of the file.

    Returns:
        A recommender with :meth:`Factors.top_k` and :meth:`Factors.score_candidates`. For the
        fastest search give its ``item_vectors`` to :class:`recsys_lib.serving.TopKIndex`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is foreign, truncated, damaged or of another version.
    """
    content = Path(path).read_bytes()
    try:
        return _unpack(content)
    except _UnreadableError as error:
        raise ValueError(f"{path} {error}") from error.__cause__


class _UnreadableError(Exception):
    """What is wrong with a file, in words that follow its name."""


def _tables(model: Any) -> tuple[Mapping[str, EncodedTensor], Factors]:
    if not isinstance(model, CompressedModel):
        factors = as_factors(model)
        dense: dict[str, EncodedTensor] = {"item_vectors": DenseTensor(factors.item_vectors)}
        if factors.user_vectors is not None:
            dense["user_vectors"] = DenseTensor(factors.user_vectors)
        return dense, factors
    names = set(model.tensors)
    if not {"item_vectors"} <= names <= {"item_vectors", "user_vectors"}:
        raise TypeError(
            f"model stores {', '.join(sorted(names))}: expected item_vectors and user_vectors "
            "(a compressed factor model)"
        )
    return model.tensors, as_factors(model.model)


def _pack(tensors: Mapping[str, EncodedTensor], fold_in: FoldIn | None) -> bytes:
    listed, chunks = [], []
    for name, tensor in tensors.items():
        stored = {key: _little_endian(array) for key, array in tensor.arrays().items()}
        arrays = [[key, array.dtype.str, list(array.shape)] for key, array in stored.items()]
        listed.append([name, tensor.kind, tensor.header(), arrays])
        chunks += [array.tobytes() for array in stored.values()]
    header = {"tensors": listed, "fold_in": None if fold_in is None else asdict(fold_in)}
    text = zlib.compress(json.dumps(header, separators=(",", ":")).encode(), 9)
    body = b"".join([_START.pack(_MAGIC, FORMAT_VERSION, len(text)), text, *chunks])
    return body + hashlib.sha256(body).digest()


def _little_endian(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind not in "iuf":
        raise TypeError(f"a stored array is of type {array.dtype}: expected numbers")
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))


def _unpack(content: bytes) -> Factors:
    if not content.startswith(_MAGIC[: len(content)]) or not content:
        raise _UnreadableError("is no compressed recommender: expected a file of save_compressed")
    if len(content) < _START.size + _DIGEST_BYTES:
        raise _UnreadableError(f"is truncated: it has {len(content)} bytes")
    _, version, header_bytes = _START.unpack_from(content)
    if version != FORMAT_VERSION:
        raise _UnreadableError(
            f"has format version {version}: this recsys_lib reads version {FORMAT_VERSION}"
        )
    body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        raise _UnreadableError("is truncated or damaged: its checksum is another")
    try:
        return _parse(body, _START.size, header_bytes)
    except (KeyError, TypeError, ValueError, IndexError, zlib.error) as error:
        raise _UnreadableError(
            f"is damaged ({error}): expected a file of save_compressed"
        ) from error


def _parse(body: bytes, start: int, header_bytes: int) -> Factors:
    inflater = zlib.decompressobj()
    text = inflater.decompress(body[start : start + header_bytes], _MOST_HEADER_BYTES)
    header, position = json.loads(text), start + header_bytes
    tables = {}
    for name, kind, settings, listed in header["tensors"]:
        arrays = {}
        for key, code, shape in listed:
            dtype = np.dtype(str(code))
            if dtype.kind not in "iuf":
                raise ValueError(f"array {key!r} is of type {code}")
            count = int(np.prod(shape, dtype=np.int64))
            array = np.frombuffer(body, dtype, count, position).reshape(shape)
            arrays[key] = array.astype(dtype.newbyteorder("="))
            position += array.nbytes
        tables[name] = read_tensor(kind, settings, arrays).decode()
    if position != len(body):
        raise ValueError(f"{len(body) - position} bytes are left over")
    how = header["fold_in"]
    fold_in = None if how is None else FoldIn(**how)
    return Factors(tables["item_vectors"], tables.get("user_vectors"), fold_in)
