"""Vectors of items in 8 bits, with bounds of their errors, for :mod:`recsys_lib.serving.scan`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_lib.serving.simd import BYTES_PER_LOAD, NUM_LANES

_ROWS_AT_ONCE = 1 << 14
_LARGEST_TURN = 512  # above, to find the axes and to turn a user would cost more than it saves
MIDDLE = 127.5  # the code, between two whole ones, that stands for 0
MARGIN = 2e-6  # relative: covers every rounding of float32 and float64 on the way
TINY = 1e-30  # absolute, for products below the range of float32

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


class ItemCodes(NamedTuple):
    """Vectors of whole numbers, 16 items a block, and per block what bounds their error.

    An element is stored as ``code`` in [0, 255] and stands for ``scale * (code - 127.5)``. Bytes of
    a block lie in the order in which the scan reads them: for each group of 4 dimensions, 4 bytes
    of each of the 16 items.

    Args:
        heads: (num_blocks * bytes_per_head,) uint8, the first half of the dimensions.
        tails: (num_blocks * bytes_per_tail,) uint8, the others.
        bounds: (num_blocks, 5) float32: scale; largest length of an error ``item - decoded``;
            of a decoded vector; of its second half; of an item. Rounded up.
        axes: (d, d) float64, orthonormal columns: the turn. (d, 0) for none.
    """

    heads: NDArray[np.uint8]
    tails: NDArray[np.uint8]
    bounds: Floats
    axes: Doubles


def encode_items(rows: Floats) -> ItemCodes:
    """Round item vectors to 8 bits and measure, per block, by how much.

    The scale of a block goes by its largest absolute value; vectors of like length should be
    neighbours.

    Args:
        rows: (n, d) finite float32.

    Returns:
        Codes and bounds; nothing of ``rows`` is kept.

    Source:
        Row-wise quantization as in Guan et al., *Post-Training 4-bit Quantization on Embedding
        Tables*, 2019; here in 8 bits with one scale for 16 rows.

    Example:
        >>> codes = encode_items(np.eye(4, dtype=np.float32))
        >>> codes.heads.size + codes.tails.size, codes.bounds.shape
        (64, (1, 5))
        >>> bool(codes.bounds[0, 1] < 0.01)  # no vector is further from its code than this
        True
    """
    dim = -(-rows.shape[1] // 4) * 4
    num_blocks = -(-len(rows) // NUM_LANES)
    blocks = np.empty((num_blocks, dim // 4, BYTES_PER_LOAD), np.uint8)
    bounds = np.empty((num_blocks, 5), np.float32)
    axes = np.empty((rows.shape[1], 0))
    if rows.shape[1] <= _LARGEST_TURN:
        unit = rows / np.maximum(np.abs(rows).max(initial=0), np.float32(TINY))
        axes = np.ascontiguousarray(np.linalg.eigh((unit.T @ unit).astype(np.float64))[1][:, ::-1])
    for first in range(0, num_blocks, _ROWS_AT_ONCE // NUM_LANES):
        part = rows[first * NUM_LANES : first * NUM_LANES + _ROWS_AT_ONCE].astype(np.float64)
        part = part @ axes if axes.size else part
        last = first + -(-len(part) // NUM_LANES)
        full = np.pad(part, ((0, (last - first) * NUM_LANES - len(part)), (0, 0)))
        full = full.reshape(last - first, NUM_LANES, -1)
        codes, bounds[first:last] = _encode(full)
        codes = np.pad(codes, ((0, 0), (0, 0), (0, dim - rows.shape[1])))
        groups = codes.reshape(last - first, NUM_LANES, -1, 4).transpose(0, 2, 1, 3)
        blocks[first:last] = groups.reshape(last - first, -1, BYTES_PER_LOAD)
    heads, tails = np.split(blocks, [dim // 8], axis=1)
    return ItemCodes(heads.reshape(-1), tails.reshape(-1), bounds, axes)


def _encode(part: Doubles) -> tuple[NDArray[np.uint8], Floats]:
    """Return codes (blocks, 16, d) and bounds (blocks, 5) of vectors (blocks, 16, d)."""
    scale = np.maximum(np.abs(part).max(axis=(1, 2)), TINY) / MIDDLE
    scale = scale.astype(np.float32).astype(np.float64)  # as it is kept
    codes = np.clip(np.rint(part / scale[:, None, None] + MIDDLE), 0, 2 * MIDDLE)
    decoded = (codes - MIDDLE) * scale[:, None, None]
    tail = _lengths(decoded[:, :, _head(part.shape[2]) :])
    code_length, length = _lengths(decoded), _lengths(part)
    error = _lengths(part - decoded) + MARGIN * (length + code_length)
    rounded = np.stack([error, code_length, tail, length], axis=1) * (1 + MARGIN) + TINY
    return codes.astype(np.uint8), np.column_stack([scale, rounded]).astype(np.float32)


def _head(dim: int) -> int:
    """Return how many dimensions, a multiple of 4, are looked at first."""
    return -(-dim // 4) // 2 * 4


def _lengths(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the largest length within each block, (blocks, 16, d) to (blocks,)."""
    squares = np.einsum("brd,brd->br", vectors, vectors)
    return np.sqrt(squares.max(axis=1))
