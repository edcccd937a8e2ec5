"""Item vectors as whole numbers, with a proven bound on what the rounding can do to a score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ITEMS_PER_BLOCK = 16
_BYTES_PER_GROUP = 4
_ROWS_AT_ONCE = 1 << 14
_CLIPS = {8: (1.0,), 4: (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)}  # shares of a block's largest value
# Covers every rounding of float32 and float64 on the way, see the scan.
_MARGIN = 2e-6


@dataclass(frozen=True, eq=False)
class ItemCodes:
    """Vectors of whole numbers, 16 items a block, and per block what bounds their error.

    An element is stored as ``code`` in [0, 2**bits - 1] and stands for
    ``scale * (code - zero_point)`` with ``zero_point = (2**bits - 1) / 2``, halfway, so that all
    levels are used. Bytes of a block lie in the order in which the scan reads them: for each group
    of 4 dimensions (4 bits: a pair of groups, one in the lower and one in the upper half of each
    byte), 4 bytes of each of the 16 items.

    Args:
        bits: 8 or 4.
        num_items: n; a last block that is not full repeats nothing: its places score nothing.
        embedding_dim: d.
        blocks: (num_blocks * bytes_per_block,) uint8.
        bounds: (num_blocks, 4) float32: scale; largest length of an error ``item - decoded``;
            largest length of a decoded vector; largest length of an item. Rounded up.
    """

    bits: int
    num_items: int
    embedding_dim: int
    blocks: NDArray[np.uint8]
    bounds: NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        """Bytes that one scan reads."""
        return self.blocks.nbytes + self.bounds.nbytes


def padded_dim(embedding_dim: int, bits: int) -> int:
    """Give d, rounded up to whole groups.

    Example:
        >>> padded_dim(10, bits=8), padded_dim(10, bits=4)
        (12, 16)
    """
    step = _BYTES_PER_GROUP * 8 // bits
    return -(-embedding_dim // step) * step


def encode_items(rows: NDArray[np.float32], bits: int) -> ItemCodes:
    """Round item vectors to 8 or 4 bits and measure, per block, by how much.

    The scale of a block is its largest absolute value, clipped (4 bits) to the share of it that
    makes errors smallest on a sample; vectors of like length should be neighbours.

    Args:
        rows: (n, d) finite float32.
        bits: 8 or 4.

    Returns:
        Codes and bounds; nothing of ``rows`` is kept.

    Source:
        Row-wise quantization as in Guan et al., *Post-Training 4-bit Quantization on Embedding
        Tables*, 2019; here with one scale for 16 rows.

    Example:
        >>> codes = encode_items(np.eye(4, dtype=np.float32), bits=8)
        >>> codes.blocks.shape, codes.bounds.shape
        ((64,), (1, 4))
        >>> bool(codes.bounds[0, 1] < 0.01)  # no vector is further from its code than this
        True
    """
    num_items, dim = rows.shape
    num_blocks = -(-num_items // ITEMS_PER_BLOCK)
    block_bytes = ITEMS_PER_BLOCK * padded_dim(dim, bits) * bits // 8
    blocks = np.empty((num_blocks, block_bytes), np.uint8)
    bounds = np.empty((num_blocks, 4), np.float32)
    step = _ROWS_AT_ONCE // ITEMS_PER_BLOCK
    clip = _best_clip(rows, bits)
    for first in range(0, num_blocks, step):
        part = _full_blocks(rows[first * ITEMS_PER_BLOCK : (first + step) * ITEMS_PER_BLOCK])
        codes, scale = _round(part, bits, clip)
        stop = first + len(part)
        blocks[first:stop] = _lay_out(codes, bits)
        bounds[first:stop] = _bounds(part, codes, scale, bits)
    return ItemCodes(bits, num_items, dim, blocks.reshape(-1), bounds)


def zero_point(bits: int) -> float:
    """Give the code, between two whole ones, that stands for 0.

    Example:
        >>> zero_point(8), zero_point(4)
        (127.5, 7.5)
    """
    return (2**bits - 1) / 2


def _full_blocks(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    missing = -len(rows) % ITEMS_PER_BLOCK
    if missing:
        rows = np.concatenate([rows, np.zeros((missing, rows.shape[1]), np.float32)])
    return rows.reshape(-1, ITEMS_PER_BLOCK, rows.shape[1])


def _round(
    part: NDArray[np.float32], bits: int, clip: float
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Give codes (blocks, 16, d) and scales (blocks,)."""
    middle = np.float32(zero_point(bits))
    largest = np.maximum(np.abs(part).max(axis=(1, 2)), np.float32(1e-30))
    scale = (largest * np.float32(clip) / middle).astype(np.float32)
    codes = part / scale[:, None, None]
    codes += middle
    np.rint(codes, out=codes)
    np.clip(codes, 0, 2 * middle, out=codes)
    return codes.astype(np.uint8), scale


def _lengths(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """Give the largest length within each block, (blocks, 16, d) to (blocks,)."""
    squares = np.einsum("brd,brd->br", vectors, vectors, dtype=np.float64)
    return np.sqrt(squares.max(axis=1))


def _bounds(
    part: NDArray[np.float32], codes: NDArray[np.uint8], scale: NDArray[np.float32], bits: int
) -> NDArray[np.float32]:
    decoded = codes.astype(np.float32)
    decoded -= np.float32(zero_point(bits))
    decoded *= scale[:, None, None]  # rounded to float32: 6e-8 of a value, within the margin
    code_length, length = _lengths(decoded), _lengths(part)
    error = _lengths(part - decoded) + _MARGIN * (length + code_length)
    rounded = np.stack([error, code_length, length], axis=1) * (1 + _MARGIN) + 1e-30
    return np.column_stack([scale, rounded]).astype(np.float32)


def _best_clip(rows: NDArray[np.float32], bits: int) -> float:
    """Choose the share of the largest value that gives the smallest errors on a sample."""
    if len(_CLIPS[bits]) == 1 or len(rows) == 0:
        return _CLIPS[bits][0]
    num_blocks = max(1, len(rows) // ITEMS_PER_BLOCK)
    chosen = np.unique(np.linspace(0, num_blocks - 1, 256).astype(np.int64))
    places = chosen[:, None] * ITEMS_PER_BLOCK + np.arange(ITEMS_PER_BLOCK)
    sample = _full_blocks(rows[places[places < len(rows)]])
    errors = [
        _bounds(sample, *_round(sample, bits, clip), bits)[:, 1].sum() for clip in _CLIPS[bits]
    ]
    return _CLIPS[bits][int(np.argmin(errors))]


def _lay_out(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Order codes (blocks, 16, d) as the scan reads them: (blocks, bytes)."""
    missing = padded_dim(codes.shape[2], bits) - codes.shape[2]
    codes = np.pad(codes, ((0, 0), (0, 0), (0, missing)))
    groups = codes.reshape(len(codes), ITEMS_PER_BLOCK, -1, _BYTES_PER_GROUP).transpose(0, 2, 1, 3)
    if bits == 8:
        return groups.reshape(len(codes), -1)
    return np.bitwise_or(groups[:, 0::2], groups[:, 1::2] << 4).reshape(len(codes), -1)
