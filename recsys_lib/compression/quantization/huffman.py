"""Canonical Huffman codes, written and read with vectors."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from recsys_lib.compression.quantization.rans import num_lanes

LONGEST = 12  # bits: a table of 4,096 entries then reads one symbol


def code_lengths(counts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Find the lengths of a prefix code that make the whole text as short as possible.

    The two rarest symbols are joined again and again; each time, their codes grow by one bit. If a
    code became longer than 12 bits, all counts are halved and it is done again, which costs next to
    nothing, because such symbols are rarer than 1 in 1,000.

    Args:
        counts: (symbols,) how often each occurs, at most 4096 symbols.

    Returns:
        (symbols,) uint8, 0 where a symbol does not occur; 1 for a symbol that is alone.

    Source:
        Huffman, *A Method for the Construction of Minimum-Redundancy Codes*, 1952.

    Example:
        >>> code_lengths(np.array([8, 4, 2, 2, 0])).tolist()
        [1, 2, 3, 3, 0]
    """
    counts = np.array(counts, np.int64)
    while True:
        lengths = np.zeros(len(counts), np.uint8)
        heap = [(int(counts[s]), int(s), [int(s)]) for s in np.flatnonzero(counts)]
        if len(heap) == 1:
            lengths[heap[0][1]] = 1
        heapq.heapify(heap)
        while len(heap) > 1:
            (first, tie, rare), (second, _, other) = heapq.heappop(heap), heapq.heappop(heap)
            lengths[rare + other] += 1
            heapq.heappush(heap, (first + second, tie, rare + other))
        if lengths.max(initial=0) <= LONGEST:
            return lengths
        counts = (counts + 1) // 2


def canonical_codes(lengths: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Number the codes of each length in the order of symbols, so that lengths tell everything.

    Example:
        >>> [f"{code:03b}" for code in canonical_codes(np.array([1, 2, 3, 3], np.uint8))]
        ['000', '010', '110', '111']
    """
    codes = np.zeros(len(lengths), np.uint32)
    following, previous = 0, 0
    for symbol in np.lexsort((np.arange(len(lengths)), lengths)):
        length = int(lengths[symbol])
        if length:
            following <<= length - previous
            codes[symbol], following, previous = following, following + 1, length
    return codes


def huffman_encode(
    symbols: NDArray[np.integer],
    lengths: NDArray[np.uint8],
    contexts: NDArray[np.integer] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    """Write symbols as the bits of their codes.

    Args:
        symbols: (n,) integers from 0 to the number of symbols - 1.
        lengths: (contexts, symbols) from :func:`code_lengths`.
        contexts: (n,) which row of ``lengths`` applies, None for the first everywhere.

    Returns:
        ``(stream, starts)``: bytes, and the bit at which each lane of successive symbols starts,
        so that lanes can be read side by side.

    Raises:
        ValueError: a symbol without a code.

    Example:
        >>> stream, _ = huffman_encode(np.array([0, 0, 1, 2]), np.array([[1, 2, 2]], np.uint8))
        >>> f"{stream[0]:08b}"
        '00101100'
    """
    symbols = np.asarray(symbols)
    rows = np.zeros((), np.int64) if contexts is None else contexts
    sizes = lengths[rows, symbols].astype(np.int64)
    if not sizes.all():
        raise ValueError(f"symbol {symbols[sizes == 0][0]} has no code: expected a length")
    codes = np.stack([canonical_codes(row) for row in lengths])[rows, symbols]
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    from_end = np.repeat(ends, sizes) - np.arange(total) - 1  # which bit of the code
    bits = (np.repeat(codes, sizes) >> from_end.astype(np.uint32)) & 1
    first = np.arange(num_lanes(len(symbols))) * _lane_length(len(symbols))
    return np.packbits(bits.astype(np.uint8)), np.r_[0, ends][first].astype(np.uint32)


def huffman_decode(
    stream: NDArray[np.uint8],
    starts: NDArray[np.uint32],
    num_symbols: int,
    lengths: NDArray[np.uint8],
    contexts: NDArray[np.integer] | None = None,
) -> NDArray[np.uint16]:
    """Read the symbols back, in order: the exact inverse of :func:`huffman_encode`.

    Args:
        stream: bytes.
        starts: first bit of each lane.
        num_symbols: how many symbols were written.
        lengths: as given for writing.
        contexts: as given for writing.

    Returns:
        (num_symbols,) uint16.

    Raises:
        ValueError: the stream does not belong to these lengths or is damaged.

    Example:
        >>> lengths = np.array([[1, 2, 2]], np.uint8)
        >>> stream, starts = huffman_encode(np.array([0, 0, 1, 2]), lengths)
        >>> huffman_decode(stream, starts, 4, lengths).tolist()
        [0, 0, 1, 2]
    """
    lanes, per_lane = num_lanes(num_symbols), _lane_length(num_symbols)
    if len(starts) != lanes:
        raise ValueError(f"starts has {len(starts)} lanes: expected {lanes}")
    symbol_of, length_of = _tables(lengths)
    padded = np.r_[stream, np.zeros(4, np.uint8)].astype(np.uint32)
    windows = (padded[:-2] << 16) | (padded[1:-1] << 8) | padded[2:]  # 24 bits from each byte on
    last = len(windows) - 1
    symbols = np.zeros((per_lane, lanes), np.uint16)
    at = starts.astype(np.int64)
    number = np.arange(lanes) * per_lane
    for step in range(per_lane):
        seen = windows[np.minimum(at >> 3, last)] >> (12 - (at & 7)).astype(np.uint32)
        key = (seen & 0xFFF).astype(np.int64)
        if contexts is not None:
            key += contexts[np.minimum(number + step, num_symbols - 1)].astype(np.int64) << LONGEST
        symbols[step] = symbol_of[key]
        at += np.where(number + step < num_symbols, length_of[key], 0)
    ends = np.r_[starts[1:], at[-1]] if lanes else at
    if (at != ends).any() or (at[-1] + 7) // 8 != len(stream):
        raise ValueError("stream is damaged or does not belong to these lengths")
    return symbols.T.ravel()[:num_symbols]


def _lane_length(num_symbols: int) -> int:
    return num_symbols // num_lanes(num_symbols) + 1 if num_symbols else 0


def _tables(lengths: NDArray[np.uint8]) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """Give symbol and length for each 12 bits that may come next, one context after the other."""
    symbol_of = np.zeros((len(lengths), 1 << LONGEST), np.uint16)
    length_of = np.zeros((len(lengths), 1 << LONGEST), np.int64)
    for context, row in enumerate(lengths):
        order = [s for s in np.lexsort((np.arange(len(row)), row)) if row[s]]
        widths = 1 << (LONGEST - row[order].astype(np.int64))
        if widths.sum() > 1 << LONGEST:
            raise ValueError(f"lengths of context {context} are not those of a prefix code")
        symbol_of[context, : widths.sum()] = np.repeat(order, widths)
        length_of[context, : widths.sum()] = np.repeat(row[order].astype(np.int64), widths)
    return symbol_of.ravel(), length_of.ravel()
