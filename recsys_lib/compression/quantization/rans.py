"""A range coder whose steps are vectors: asymmetric numeral systems, interleaved, in NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PRECISION = 12  # frequencies of a context add up to 2^12
_TOTAL = 1 << PRECISION
_LOWEST = 1 << 16  # states stay in [2^16, 2^32) and give or take 16 bits at a time
_SYMBOLS_PER_LANE = 4096
_MOST_LANES = 1024


def quantize_frequencies(counts: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Turn counts into frequencies that add up to 4096, at least 1 for each symbol that occurs.

    Args:
        counts: (contexts, symbols) how often each symbol occurs, at most 4096 symbols.

    Returns:
        (contexts, symbols) uint16; a context without any symbol gets the whole mass on symbol 0.

    Example:
        >>> quantize_frequencies(np.array([[3, 1, 0], [0, 0, 0]])).tolist()
        [[3072, 1024, 0], [4096, 0, 0]]
    """
    counts = np.array(counts, np.int64)
    counts[counts.sum(axis=1) == 0, 0] = 1
    # Whole numbers throughout: a reader on another machine must come to the same frequencies.
    scaled = counts * _TOTAL
    totals = counts.sum(axis=1, keepdims=True)
    result = np.maximum(scaled // totals, counts > 0)
    for row, missing in enumerate(_TOTAL - result.sum(axis=1)):
        if missing > 0:  # to those that were rounded down most
            rest = scaled[row] - result[row] * totals[row]
            result[row, np.argsort(-rest, kind="stable")[:missing]] += 1
        for _ in range(-missing):  # from the largest, where it costs least
            result[row, result[row].argmax()] -= 1
    return result.astype(np.uint16)


def num_lanes(num_symbols: int) -> int:
    """Give how many coders run side by side: enough to be fast, few enough to cost nothing.

    Example:
        >>> num_lanes(100), num_lanes(700_000)
        (1, 170)
    """
    return int(min(max(num_symbols // _SYMBOLS_PER_LANE, 1), _MOST_LANES))


def rans_encode(
    symbols: NDArray[np.integer],
    frequencies: NDArray[np.uint16],
    contexts: NDArray[np.integer] | None = None,
) -> tuple[NDArray[np.uint16], NDArray[np.uint32]]:
    """Write symbols in about as many bits as their frequencies allow.

    Symbol number ``n`` belongs to lane ``n mod lanes``. All lanes make a step at once, and write
    into one stream of 16-bit words. A state x that takes in a symbol of frequency f and cumulative
    frequency c becomes ``(x // f) * 4096 + c + x mod f``: it grows by ``log2(4096 / f)`` bits, as
    much as the symbol is worth. What no longer fits into 32 bits goes to the stream.

    Args:
        symbols: (n,) integers from 0 to the number of symbols - 1.
        frequencies: (contexts, symbols) that add up to 4096 for each context.
        contexts: (n,) which row of ``frequencies`` applies, None for the first everywhere.

    Returns:
        ``(words, states)``: the stream and the last state of each lane; see :func:`rans_decode`.

    Raises:
        ValueError: a symbol with frequency 0.

    Source:
        Duda, *Asymmetric numeral systems*, 2013, 1311.2540; interleaved as in Giesen,
        *Interleaved entropy coders*, 2014, 1402.3392.

    Example:
        >>> frequencies = quantize_frequencies(np.array([[9, 1]]))
        >>> words, states = rans_encode(np.zeros(1000, int), frequencies)
        >>> 2 * len(words) + 4 * len(states)  # 1,000 bits, 0.15 each
        22
    """
    symbols = np.asarray(symbols)
    lanes, rows = num_lanes(len(symbols)), _rows(contexts, len(symbols))
    frequency = frequencies[rows, symbols].astype(np.uint64)
    if not frequency.all():
        raise ValueError(f"symbol {symbols[frequency == 0][0]} has frequency 0: expected 1 or more")
    starts = np.cumsum(frequencies, axis=1, dtype=np.uint64) - frequencies
    start = starts[rows, symbols].astype(np.uint64)
    states = np.full(lanes, _LOWEST, np.uint64)
    chunks = []
    for first in range((len(symbols) - 1) // lanes * lanes, -1, -lanes):  # the last one first
        f, c = frequency[first : first + lanes], start[first : first + lanes]
        x = states[: len(f)]
        full = x >= f << np.uint64(32 - PRECISION)
        chunks.append(x[full].astype(np.uint16))  # the lower 16 bits
        x = np.where(full, x >> np.uint64(16), x)
        states[: len(f)] = ((x // f) << np.uint64(PRECISION)) + c + x % f
    words = np.concatenate(chunks[::-1]) if chunks else np.zeros(0, np.uint16)
    return words, states.astype(np.uint32)


def rans_decode(
    words: NDArray[np.uint16],
    states: NDArray[np.uint32],
    num_symbols: int,
    frequencies: NDArray[np.uint16],
    contexts: NDArray[np.integer] | None = None,
) -> NDArray[np.uint16]:
    """Read the symbols back, in order: the exact inverse of :func:`rans_encode`.

    Args:
        words: the stream.
        states: one for each lane.
        num_symbols: how many symbols were written.
        frequencies: as given for writing.
        contexts: as given for writing.

    Returns:
        (num_symbols,) uint16.

    Raises:
        ValueError: the stream does not belong to these frequencies or is damaged.

    Example:
        >>> frequencies = quantize_frequencies(np.array([[2, 1, 1]]))
        >>> words, states = rans_encode(np.array([2, 0, 1, 0, 0]), frequencies)
        >>> rans_decode(words, states, 5, frequencies).tolist()
        [2, 0, 1, 0, 0]
    """
    lanes = num_lanes(num_symbols)
    if len(states) != lanes:
        raise ValueError(f"states has {len(states)} lanes: expected {lanes}")
    rows = _rows(contexts, num_symbols)
    flat = frequencies.astype(np.int64).ravel()
    if (frequencies.sum(axis=1, dtype=np.int64) != _TOTAL).any():
        raise ValueError(f"frequencies of a context do not add up to {_TOTAL}")
    width = frequencies.shape[1]
    # Slot s of context r belongs to one symbol: a table answers which, with its f and c.
    owner = np.repeat(np.arange(len(flat)), flat)  # (contexts * 4096,)
    f_of = flat[owner].astype(np.uint32)
    starts = (np.cumsum(frequencies, axis=1, dtype=np.int64) - frequencies).ravel()
    offset_of = (np.tile(np.arange(_TOTAL), len(frequencies)) - starts[owner]).astype(np.uint32)
    symbol_of = (owner % width).astype(np.uint16)
    base = rows.astype(np.int64) << PRECISION if rows.ndim else np.zeros(num_symbols, np.int64)
    slots = np.empty(num_symbols, np.int64)
    x = states.astype(np.uint32)
    position = 0
    padded = np.r_[words, np.zeros(lanes, np.uint16)].astype(np.uint32)
    for first in range(0, num_symbols, lanes):
        here = slice(first, min(first + lanes, num_symbols))
        count = here.stop - first
        now = x[:count]
        slot = (now & np.uint32(_TOTAL - 1)) + base[here]
        slots[here] = slot
        now = f_of[slot] * (now >> np.uint32(PRECISION)) + offset_of[slot]
        short = (now < _LOWEST).nonzero()[0]
        if len(short):
            taken = padded[position : position + len(short)]
            if len(taken) < len(short):
                break
            now[short] = (now[short] << np.uint32(16)) | taken
            position += len(short)
        x[:count] = now
    if position != len(words) or (x != _LOWEST).any():
        raise ValueError("words is damaged or does not belong to these frequencies")
    return symbol_of[slots]


def _rows(contexts: NDArray[np.integer] | None, num_symbols: int) -> NDArray[np.integer]:
    """Check contexts; a single zero stands for all."""
    if contexts is None:
        return np.zeros((), np.int64)
    if contexts.shape != (num_symbols,):
        raise ValueError(f"contexts has shape {contexts.shape}: expected ({num_symbols},)")
    return contexts
