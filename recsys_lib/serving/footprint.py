"""What a model weighs: bytes, parameters, arithmetic."""

from __future__ import annotations

import lzma
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

_ZLIB_LEVEL, _LZMA_PRESET = 6, 1
_CHUNK = 1 << 24
# Layers that move numbers, or forget them, without arithmetic on them.
_FREE = {
    "InputLayer", "Embedding", "Concatenate", "Reshape", "Flatten", "Dropout", "Identity",
    "GaussianNoise", "Lookup", "Squeeze", "ExpandDims", "Permute",
}  # fmt: skip
# Operations for each number of the output.
_PER_OUTPUT = {"Activation": 1, "ReLU": 1, "Rescaling": 2, "BatchNormalization": 2}
_BETWEEN_INPUTS = {"Add", "Multiply", "Subtract", "Average", "Maximum", "Minimum"}


@dataclass(frozen=True)
class ModelSize:
    """Bytes of a model, as it is and behind a general-purpose compressor.

    Args:
        dense_bytes: of all arrays or files.
        compressed_bytes: after the compressor.
        compressor: which, and at which level.

    Example:
        >>> ModelSize(1000, 250, "zlib, level 6")
        ModelSize(1,000 bytes, 250 compressed (zlib, level 6), ratio 4.00)
    """

    dense_bytes: int
    compressed_bytes: int
    compressor: str

    def __repr__(self) -> str:
        ratio = self.dense_bytes / max(self.compressed_bytes, 1)
        return (
            f"ModelSize({self.dense_bytes:,} bytes, {self.compressed_bytes:,} compressed "
            f"({self.compressor}), ratio {ratio:.2f})"
        )

    def to_frame(self) -> pd.DataFrame:
        """Give one row."""
        import pandas as pd

        return pd.DataFrame([vars(self)])


def model_size_bytes(model: Any, *, compressor: str = "zlib") -> ModelSize:
    """Count the bytes of a model, and what a general-purpose compressor makes of them.

    The compressor sees zeros that pruning left in a dense array, and repeated values that
    clustering left; the dense count does not. zlib runs at level 6, lzma (better, slower) at
    preset 1. Arrays are compressed one after another as one stream.

    Args:
        model: an array; a sparse matrix; a mapping or list of those; a model with ``get_weights``
            (Keras); or the path of a file or folder.
        compressor: "zlib" or "lzma".

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: something else than the above.
        ValueError: unknown compressor.

    Example:
        >>> weights = np.zeros((100, 100), np.float32)
        >>> size = model_size_bytes({"kernel": weights, "bias": weights[0]})
        >>> size.dense_bytes, size.compressed_bytes < 100
        (40400, True)
    """
    if compressor == "zlib":
        stream: Any = zlib.compressobj(_ZLIB_LEVEL)
        name = f"zlib, level {_ZLIB_LEVEL}"
    elif compressor == "lzma":
        stream = lzma.LZMACompressor(preset=_LZMA_PRESET)
        name = f"lzma, preset {_LZMA_PRESET}"
    else:
        raise ValueError(f"compressor is {compressor!r}: expected 'zlib' or 'lzma'")
    dense = compressed = 0
    for block in _byte_blocks(model):
        dense += len(block)
        compressed += len(stream.compress(block))
    return ModelSize(dense, compressed + len(stream.flush()), name)


def count_parameters(model: Any) -> int:
    """Count the numbers of a model; of sparse matrices, those that are stored.

    Args:
        model: as for :func:`model_size_bytes`, but no path.

    Raises:
        TypeError: something else.

    Example:
        >>> count_parameters([np.zeros((3, 4)), np.zeros(4)])
        16
    """
    return sum(int(array.size) for array in _arrays(model, values_only=True))


def count_flops(model: Any) -> int:
    """Count the arithmetic of scoring one user-item pair with a functional Keras model.

    A multiplication and an addition are two; looking up an embedding is none. A layer counts as
    often as it is used. Models inside models are counted with their layers.

    Args:
        model: a functional model of Keras 3 or tf_keras.

    Raises:
        TypeError: not a functional model.
        ValueError: a layer whose arithmetic is not known here; the message names it.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> config = RatingModelConfig("dot_product", num_users=9, num_items=9, embedding_dim=4)
        >>> count_flops(build_rating_model(config)) >= 2 * 4
        True
    """
    layers = getattr(model, "layers", None)
    if layers is None or not hasattr(model, "inputs"):
        raise TypeError(
            f"model is of type {type(model).__name__}: expected a functional Keras model"
        )
    return sum(_layer_flops(layer) * _times_used(layer) for layer in layers)


def _times_used(layer: Any) -> int:
    """Give how often a layer is called in the model's graph."""
    return max(1, len(getattr(layer, "_inbound_nodes", ())))


def _layer_flops(layer: Any) -> int:
    kind = type(layer).__name__
    if hasattr(layer, "layers"):
        return count_flops(layer)
    if kind in _FREE:
        return 0
    node = layer._inbound_nodes[0]
    outputs = _numbers(_tensors(getattr(node, "output_tensors", None) or node.outputs)[0])
    inputs = _tensors(getattr(node, "input_tensors", None) or node.inputs)
    activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
    if kind == "Dense":
        flops = 2 * outputs * int(inputs[0].shape[-1]) + (outputs if layer.use_bias else 0)
        return flops + (0 if activation == "linear" else outputs)
    if kind == "Dot":
        return 2 * _numbers(inputs[0])
    if kind in _BETWEEN_INPUTS:
        return outputs * (len(inputs) - 1)
    if kind in _PER_OUTPUT:
        return outputs * _PER_OUTPUT[kind]
    raise ValueError(
        f"layer {layer.name!r} is a {kind}, whose arithmetic is not known here: expected Dense, "
        f"Dot, {', '.join(sorted(_BETWEEN_INPUTS | _PER_OUTPUT.keys() | _FREE))}"
    )


def _tensors(nested: Any) -> list[Any]:
    return list(nested) if isinstance(nested, list | tuple) else [nested]


def _numbers(tensor: Any) -> int:
    """Give the numbers a tensor holds for one pair."""
    return int(np.prod(tensor.shape[1:], dtype=np.int64))


def _arrays(model: Any, *, values_only: bool = False) -> Iterator[NDArray[Any]]:
    if isinstance(model, np.ndarray | np.generic):
        yield np.asarray(model)
    elif hasattr(model, "indptr") and hasattr(model, "data"):  # compressed sparse matrix
        yield model.data
        if not values_only:
            yield from (model.indices, model.indptr)
    elif hasattr(model, "get_weights"):
        yield from model.get_weights()
    elif isinstance(model, Mapping):
        for part in model.values():
            yield from _arrays(part, values_only=values_only)
    elif isinstance(model, list | tuple):
        for part in model:
            yield from _arrays(part, values_only=values_only)
    else:
        raise TypeError(
            f"model is of type {type(model).__name__}: expected arrays, a mapping or list of "
            "arrays, or a model with get_weights"
        )


def _byte_blocks(model: Any) -> Iterator[bytes | memoryview]:
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            with file.open("rb") as stream:
                while block := stream.read(_CHUNK):
                    yield block
        return
    for array in _arrays(model):
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        for start in range(0, len(raw), _CHUNK):
            yield raw[start : start + _CHUNK].data
