"""Dense layers on 8-bit whole numbers, compiled: the fast half of a candidate scorer.

Sixteen candidates at a time go through all layers, so that what lies between the layers stays in
the first-level cache. Before each layer the rows of activations, which ReLU has left at zero or
above, are rounded to whole numbers 0 to 255 with a scale of their own (the largest value of the row
is 255: dynamic quantization, so nothing has to be calibrated). Weights were rounded to -127 to 127
with a scale for each output. Sums of products are exact in 32-bit integers, then scaled back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recsys_lib.serving.ranker_products import close_tiles, has_amx, open_tiles, tile_shapes
from recsys_lib.serving.ranker_simd import add_relu, dense_relu, to_bytes

Floats = NDArray[np.float32]
_COLUMNS = 64  # outputs at a time; inputs are padded to a multiple of it, too
_CACHE_LINE = 64
_TINY = 1e-30


@dataclass(frozen=True, eq=False)
class PackedLayers:
    """Dense layers as the compiled code reads them; see :func:`pack_layers`.

    Args:
        shapes: (num_layers, 2) int64, inputs and outputs of each layer after padding.
        weights: int8; for 64 outputs after 64 outputs, for 4 inputs after 4 inputs, for each
            output the 4 weights.
        scales: float32, one for each output of each layer.
        biases: float32, likewise.
    """

    shapes: NDArray[np.int64]
    weights: NDArray[np.int8]
    scales: Floats
    biases: Floats


def pack_layers(layers: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> PackedLayers:
    """Round the kernels of ReLU layers to 8 bits and lay them out for the compiled code.

    Zeros pad inputs and outputs to multiples of 64, which changes no score.

    Args:
        layers: (kernel (inputs, outputs), bias (outputs,)) of each.

    Example:
        >>> packed = pack_layers([(np.eye(64, 3), np.zeros(3))])
        >>> packed.shapes.tolist(), packed.weights.dtype, packed.weights.shape
        ([[64, 64]], dtype('int8'), (4096,))
    """
    shapes, weights, scales, biases = [], [], [], []
    for kernel, bias in layers:
        inputs, outputs = (_padded(size) for size in kernel.shape)
        padded = np.zeros((inputs, outputs), np.float32)
        padded[: kernel.shape[0], : kernel.shape[1]] = kernel
        scale = np.maximum(np.abs(padded).max(0), np.float32(_TINY)) / np.float32(127)  # (outputs,)
        codes = np.rint(padded / scale).astype(np.int8)
        blocks = codes.reshape(inputs // 4, 4, outputs // _COLUMNS, _COLUMNS)
        weights.append(blocks.transpose(2, 0, 3, 1).ravel())
        shapes.append((inputs, outputs))
        scales.append(scale)
        biases.append(np.pad(np.asarray(bias, np.float32), (0, outputs - len(bias))))
    return PackedLayers(
        np.array(shapes, np.int64).reshape(-1, 2),
        _aligned(np.concatenate([*weights, np.zeros(0, np.int8)])),
        np.concatenate([*scales, np.zeros(0, np.float32)]),
        np.concatenate([*biases, np.zeros(0, np.float32)]),
    )


def _padded(size: int) -> int:
    return -(-size // _COLUMNS) * _COLUMNS


def _aligned(array: NDArray[Any]) -> NDArray[Any]:
    """Copy to where a cache line starts: a vector across two lines takes twice as long to read."""
    room = np.empty(array.nbytes + _CACHE_LINE, np.uint8)
    start = -room.ctypes.data % _CACHE_LINE
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _compile(function: Callable[..., Any]) -> Any:
    """Compile, and keep the machine code on disk where there is a place to write."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    options["fastmath"] = {"reassoc", "contract", "nnan", "nsz"}  # weights are finite
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # no folder that can be written
        return njit(**options)(function)


@_compile
def _score_rows(
    tiles: NDArray[Any],
    item_ids: NDArray[np.int64],
    user_rows: NDArray[np.int64],
    item_half: Floats,
    user_halves: Floats,
    shapes: NDArray[np.int64],
    weights: NDArray[np.int8],
    scales: Floats,
    biases: Floats,
    last: Floats,
    scores: Floats,
) -> None:
    """Add ``last . h(relu(item_half[i] + user_halves[u]))`` to the score of each pair (u, i)."""
    num_pairs, widest = item_ids.shape[0], user_halves.shape[1]
    for layer in range(shapes.shape[0]):
        widest = max(widest, shapes[layer, 1])
    values, codes = np.zeros((16, widest), np.float32), np.zeros((16, widest), np.uint8)
    sums, largest = np.zeros((16, 64), np.int32), np.zeros((16, 16), np.float32)
    row_scales = np.zeros(16, np.float32)
    open_tiles(tiles)
    for start in range(0, num_pairs, 16):
        for row in range(16):
            pair = min(start + row, num_pairs - 1)  # the last one again, where rows are left over
            add_relu(item_half, item_ids[pair], user_halves, user_rows[pair], values, row, largest)
        first_weight, first_output = 0, 0
        for layer in range(shapes.shape[0]):
            inputs, outputs = shapes[layer, 0], shapes[layer, 1]
            to_bytes(values, inputs, codes, row_scales, largest)
            for column in range(0, outputs, 64):
                dense_relu(
                    tiles, codes, weights, first_weight, inputs, sums, row_scales, scales,
                    biases, first_output + column, values, column, largest,
                )  # fmt: skip
                first_weight += inputs * 64
            first_output += outputs
        for row in range(min(16, num_pairs - start)):
            total = np.float32(0.0)
            for j in range(last.shape[0]):
                total += values[row, j] * last[j]
            scores[start + row] += total
    close_tiles(tiles)


class Int8Layers:
    """The layers of a ranker after the first, packed, and its item half, padded.

    Args:
        item_half: (num_items, h) float32, see :class:`recsys_lib.serving.ranker_parts.RankerParts`.
        layers: kernel and bias of each further layer.
        last: (width,) kernel of the score.
        amx: whether to use AMX; None for where it is to be had.

    Attributes:
        nbytes: of the packed layers.

    Raises:
        ValueError: AMX is asked for, and not there.

    Example:
        >>> layers = Int8Layers(np.ones((5, 3), np.float32), (), np.ones(3, np.float32))
        >>> scores = np.zeros(2, np.float32)
        >>> layers.add_scores(np.zeros((1, 3), np.float32), None, np.array([0, 4]), scores)
        >>> scores.tolist()
        [3.0, 3.0]
    """

    def __init__(
        self,
        item_half: Floats,
        layers: Sequence[tuple[Floats, Floats]],
        last: Floats,
        *,
        amx: bool | None = None,
    ) -> None:
        available = has_amx()  # asks for the right to use it as well
        if amx and not available:
            raise ValueError("amx is True, and this process has no AMX: expected None or False")
        self._packed = packed = pack_layers(layers)
        self._padding = _padded(item_half.shape[1]) - item_half.shape[1]
        self._item_half = _aligned(np.pad(item_half, ((0, 0), (0, self._padding))))
        width = packed.shapes[-1, 1] if layers else self._item_half.shape[1]
        self._last = np.pad(last, (0, width - len(last)))
        self._ids = np.arange(len(item_half))
        self._tiles = tile_shapes(available if amx is None else amx)
        arrays = (packed.weights, packed.scales, packed.biases)
        self.nbytes = sum(array.nbytes for array in arrays)

    def add_scores(
        self,
        user_halves: Floats,
        user_rows: NDArray[np.int64] | None,
        item_ids: NDArray[np.int64] | None,
        scores: Floats,
    ) -> None:
        """Add to ``scores`` (n,) what the layers say about n pairs; ids are not checked.

        Args:
            user_halves: (m, h) the users' part of the first layer.
            user_rows: (n,) which row of it each pair has; None for the first, always.
            item_ids: (n,) items; None for all in order.
            scores: (n,) float32, changed.
        """
        if self._padding:
            user_halves = np.pad(user_halves, ((0, 0), (0, self._padding)))
        if item_ids is None:
            item_ids = self._ids
        if user_rows is None:
            user_rows = np.zeros(len(item_ids), np.int64)
        packed = self._packed
        _score_rows(
            self._tiles, item_ids, user_rows, self._item_half, user_halves, packed.shapes,
            packed.weights, packed.scales, packed.biases, self._last, scores,
        )  # fmt: skip
