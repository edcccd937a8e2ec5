"""Dense layers on 8-bit whole numbers, compiled: the fast half of a candidate scorer.

Sixteen candidates at a time go through all layers, so that what lies between the layers stays in
the first-level cache. Before each layer the rows of activations, which ReLU has left at zero or
above, are rounded to whole numbers 0 to 255 with a scale of their own (the largest value of the row
is 255: dynamic quantization, so nothing has to be calibrated). Weights were rounded to -127 to 127
with a scale for each output. Sums of products are exact in 32-bit integers, then scaled back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.serving import simd

Floats = NDArray[np.float32]
_ROWS = 16
_COLUMNS = 2 * simd.NUM_LANES  # outputs at a time; widths are padded to a multiple of it
_LOAD = simd.BYTES_PER_LOAD
_TINY = np.float32(1e-30)
_zeros, _load, _splat, _dot4, _store = (
    simd.zeros, simd.load_bytes, simd.splat4, simd.dot4, simd.store,
)  # fmt: skip


def pack_layers(
    layers: Sequence[tuple[Floats, Floats]],
) -> tuple[NDArray[np.int64], NDArray[np.int8], Floats, Floats]:
    """Return the kernels of ReLU layers in 8 bits, laid out for :func:`add_scores`.

    Zeros pad inputs and outputs to multiples of 32, which changes no score.

    Args:
        layers: (kernel (inputs, outputs), bias (outputs,)) of each.

    Returns:
        ``(shapes, weights, scales, biases)``: (num_layers, 2) inputs and outputs of each layer;
        int8, for 32 outputs after 32 outputs, for 4 inputs after 4 inputs, for each output the 4
        weights; one float32 scale, and one bias, for each output of each layer.

    Example:
        >>> shapes, weights, _, _ = pack_layers([(np.eye(60, 3), np.zeros(3))])
        >>> shapes.tolist(), weights.dtype, weights.shape
        ([[64, 32]], dtype('int8'), (2048,))
    """
    shapes = np.array([[_padded(size) for size in k.shape] for k, _ in layers], np.int64)
    weights, nothing = [np.zeros(0, np.int8)], np.zeros(0, np.float32)
    scales, biases = [nothing], [nothing]
    for (kernel, bias), (inputs, outputs) in zip(layers, shapes, strict=True):
        padded = np.zeros((inputs, outputs), np.float32)
        padded[: kernel.shape[0], : kernel.shape[1]] = kernel
        scales.append(np.maximum(np.abs(padded).max(0), _TINY) / np.float32(127))
        codes = np.rint(padded / scales[-1]).astype(np.int8)
        blocks = codes.reshape(inputs // 4, 4, outputs // _COLUMNS, _COLUMNS)
        weights.append(blocks.transpose(2, 0, 3, 1).ravel())
        biases.append(np.pad(bias, (0, outputs - len(bias))).astype(np.float32))
    numbers = np.concatenate(scales), np.concatenate(biases)
    return shapes.reshape(-1, 2), _aligned(np.concatenate(weights)), *numbers


def _padded(size: int) -> int:
    return -(-size // _COLUMNS) * _COLUMNS


def _aligned(array: NDArray[Any]) -> NDArray[Any]:
    """Copy to where a cache line starts: a vector across two lines takes twice as long to read."""
    room = np.empty(array.nbytes + simd.CACHE_LINE, np.uint8)
    start = -room.ctypes.data % simd.CACHE_LINE
    copy = room[start : start + array.nbytes].view(array.dtype)
    copy[...] = array
    return copy


_fast = simd.compiled(error_model="numpy", fastmath={"reassoc", "contract", "nnan", "nsz"})


@_fast
def _to_bytes(values: Floats, codes: NDArray[np.uint8], steps: Floats, num_inputs: int) -> None:
    """Round rows of numbers, 0 and more, to codes, 255 the largest; note what a step is worth."""
    bits = values.view(np.int32)  # in the order of the numbers, as none is below 0
    for row in range(_ROWS):
        most = np.int32(1)
        for j in range(num_inputs):
            most = max(most, bits[row, j])
        largest = max(np.int32(most).view(np.float32), _TINY)
        steps[row] = largest / np.float32(255)
        factor = np.float32(255) / largest
        for j in range(num_inputs):
            codes[row, j] = np.int32(values[row, j] * factor + np.float32(0.5))


@_fast
def _multiply(
    codes: NDArray[np.uint8], num_inputs: int, weights: NDArray[np.int8], at: int,
    sums: NDArray[np.int32],
) -> int:  # fmt: skip
    """Set (16, 32) sums of products with the weights that start at ``at``; give where they end."""
    for row in range(0, _ROWS, 4):
        place = at
        a0, a1, a2, a3 = _zeros(), _zeros(), _zeros(), _zeros()
        b0, b1, b2, b3 = _zeros(), _zeros(), _zeros(), _zeros()
        first, width = row * codes.shape[1], codes.shape[1]
        for j in range(first, first + num_inputs, 4):
            left, right = _load(weights, place), _load(weights, place + _LOAD)
            place += 2 * _LOAD
            x = _splat(codes, j)
            a0, b0 = _dot4(a0, x, left), _dot4(b0, x, right)
            x = _splat(codes, j + width)
            a1, b1 = _dot4(a1, x, left), _dot4(b1, x, right)
            x = _splat(codes, j + 2 * width)
            a2, b2 = _dot4(a2, x, left), _dot4(b2, x, right)
            x = _splat(codes, j + 3 * width)
            a3, b3 = _dot4(a3, x, left), _dot4(b3, x, right)
        to = row * _COLUMNS
        _store(a0, sums, to), _store(b0, sums, to + 16)
        _store(a1, sums, to + 32), _store(b1, sums, to + 48)
        _store(a2, sums, to + 64), _store(b2, sums, to + 80)
        _store(a3, sums, to + 96), _store(b3, sums, to + 112)
    return place


@_fast
def _scale_back(
    sums: NDArray[np.int32], steps: Floats, scales: Floats, biases: Floats, first: int,
    values: Floats, column: int,
) -> None:  # fmt: skip
    """Set 32 columns of ``values = relu(sums * steps * scales[first:] + biases[first:])``."""
    for row in range(_ROWS):
        for j in range(_COLUMNS):
            k = np.uintp(first + j)  # no sign: else each index is looked at
            value = np.float32(sums[row, j]) * (steps[row] * scales[k]) + biases[k]
            values[row, np.uintp(column + j)] = max(value, np.float32(0))


@_fast
def add_scores(
    scores: Floats, item_half: Floats, item_ids: NDArray[np.int64], user_halves: Floats,
    rows: NDArray[np.int64], shapes: NDArray[np.int64], weights: NDArray[np.int8], scales: Floats,
    biases: Floats, last: Floats,
) -> None:  # fmt: skip
    """Add ``last . h(relu(item_half[i] + user_halves[row]))`` to the score of each (row, i).

    Args:
        scores: (n,), changed.
        item_half: (num_items, h) the items' part of the first layer.
        item_ids: (n,), not checked.
        user_halves: (m, h) the users' part.
        rows: (n,) which row of it each pair has.
        shapes: of :func:`pack_layers`, as the next three.
        weights: 8-bit.
        scales: of the outputs.
        biases: of the outputs.
        last: (width,) kernel of the score.
    """
    num_pairs, width = len(item_ids), item_half.shape[1]
    widest = max(width, shapes.max() if len(shapes) else 0)
    values = np.zeros((_ROWS, widest), np.float32)
    codes, sums = np.zeros((_ROWS, widest), np.uint8), np.zeros((_ROWS, _COLUMNS), np.int32)
    steps = np.zeros(_ROWS, np.float32)
    for start in range(0, num_pairs, _ROWS):
        size = min(_ROWS, num_pairs - start)
        for row in range(size):
            item, user = item_ids[start + row], rows[start + row]
            for j in range(width):
                values[row, j] = max(item_half[item, j] + user_halves[user, j], np.float32(0))
            for j in range(width, values.shape[1]):
                values[row, j] = 0
        at, output = 0, 0
        for layer in range(len(shapes)):
            _to_bytes(values, codes, steps, shapes[layer, 0])
            for column in range(0, shapes[layer, 1], _COLUMNS):
                at = _multiply(codes, shapes[layer, 0], weights, at, sums)
                _scale_back(sums, steps, scales, biases, output, values, column)
                output += _COLUMNS
        for row in range(size):
            total = np.float32(0)
            for j in range(len(last)):
                total += values[row, j] * last[j]
            scores[start + row] += total
