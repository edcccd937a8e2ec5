"""Whole numbers of 1 to 8 bits, stored without gaps."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_bits

# Eight codes of b bits are exactly b bytes, and fit in one 64-bit word.
_CODES_PER_WORD = 8
_WORD = np.dtype("<u8")
_WORDS_AT_ONCE = 1 << 16  # bounds the memory in between to some megabytes


def pack_bits(codes: ArrayLike, bits: int) -> NDArray[np.uint8]:
    """Store whole numbers in ``bits`` bits each, the first in the lowest bits of the first byte.

    Args:
        codes: integers in [0, 2**bits), any shape, taken in C order.
        bits: 1 to 8.

    Returns:
        (ceil(n * bits / 8),) bytes; the bits that are left over in the last one are 0.

    Raises:
        TypeError: not integers.
        ValueError: a code out of range, or bits out of 1 to 8.

    Example:
        >>> pack_bits([1, 2, 3, 0], bits=2).tolist()  # 1 + 2 * 4 + 3 * 16 + 0 * 64
        [57]
        >>> len(pack_bits(range(8), bits=3))
        3
    """
    check_bits(bits, low=1)
    flat = np.asarray(codes).reshape(-1)
    if flat.size and flat.dtype.kind not in "iu":
        raise TypeError(f"codes is of type {flat.dtype}: expected integers")
    if flat.size and (flat.min() < 0 or flat.max() >= 1 << bits):
        raise ValueError(
            f"codes reach from {flat.min()} to {flat.max()}: expected [0, {1 << bits}) for "
            f"{bits} bits"
        )
    small = flat.astype(np.uint8)
    if bits == 8:
        return small
    rows = np.pad(small, (0, -small.size % _CODES_PER_WORD)).reshape(-1, _CODES_PER_WORD)
    packed = np.empty((len(rows), bits), np.uint8)
    for start in range(0, len(rows), _WORDS_AT_ONCE):
        part = rows[start : start + _WORDS_AT_ONCE]
        words = np.zeros(len(part), _WORD)
        for place in range(_CODES_PER_WORD):
            words |= part[:, place].astype(_WORD) << np.uint64(place * bits)
        packed[start : start + _WORDS_AT_ONCE] = words.view(np.uint8).reshape(-1, 8)[:, :bits]
    return packed.reshape(-1)[: -(-flat.size * bits // 8)]


def unpack_bits(packed: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.uint8]:
    """Give back what :func:`pack_bits` stored.

    Args:
        packed: its bytes.
        bits: as there.
        count: how many codes.

    Returns:
        (count,) codes.

    Raises:
        ValueError: another number of bytes than these codes take.

    Example:
        >>> unpack_bits(pack_bits([5, 0, 7], bits=3), bits=3, count=3).tolist()
        [5, 0, 7]
    """
    check_bits(bits, low=1)
    expected = -(-count * bits // 8)
    if packed.dtype != np.uint8 or packed.shape != (expected,):
        raise ValueError(
            f"packed is {packed.dtype} of shape {packed.shape}: expected {expected} bytes for "
            f"{count} codes of {bits} bits"
        )
    if bits == 8:
        return packed.copy()
    groups = np.pad(packed, (0, -packed.size % bits)).reshape(-1, bits)
    codes = np.empty((len(groups), _CODES_PER_WORD), np.uint8)
    mask = np.uint8((1 << bits) - 1)
    for start in range(0, len(groups), _WORDS_AT_ONCE):
        part = groups[start : start + _WORDS_AT_ONCE]
        room = np.zeros((len(part), 8), np.uint8)
        room[:, :bits] = part
        words = room.view(_WORD)[:, 0]
        for place in range(_CODES_PER_WORD):
            shifted = (words >> np.uint64(place * bits)).astype(np.uint8)
            codes[start : start + _WORDS_AT_ONCE, place] = shifted & mask
    return codes.reshape(-1)[:count]
