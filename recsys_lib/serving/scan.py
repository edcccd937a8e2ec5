"""The scan: best items of users over vectors in 8 bits, exact because each error is bounded.

For an item x with code y and a user q with code p::

    <x, q> = <y, p> + <x - y, q> + <y, q - p>
    <x, q> <= <y, p> + |x - y| |q| + |y| |q - p|          (Cauchy-Schwarz, twice)

``<y, p>`` is whole numbers times two scales; the lengths were measured when the items were encoded.
An item whose upper bound lies below the k-th best *exact* score found so far cannot be among the
best k; the few others are scored on their float32 vectors. No item of the true answer can be lost,
whatever the data: there is no length of a shortlist to choose and to get wrong.

Few items pass, and each would wait for its vector to come from memory: so they queue up while the
scan goes on, and their vectors are on the way. Items stand in order of falling length, so that the
scan may stop where ``|x| |q|`` is too small. Scores are sums in float64, rounded to float32 once;
of equal scores the lowest item id comes first.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import types
from numpy.typing import NDArray

from recsys_lib.serving import simd

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
_LANES, _LOAD = simd.NUM_LANES, simd.BYTES_PER_LOAD  # a block holds as many items as lanes
_ROWS_AT_ONCE = 1 << 14
# Users of a batch take turns on as many bytes as fit well into the cache of one core.
_BYTES_PER_TURN = 1 << 18
_QUEUE = 16
_MIDDLE = 127.5  # the code, between two whole ones, that stands for 0
_MARGIN = 2e-6  # relative: covers every rounding of float32 and float64 on the way
_TINY = 1e-30  # absolute, for products below the range of float32
_INT32_LIMIT = 2147483647.0

_zeros, _load_bytes, _splat4, _dot4 = simd.zeros, simd.load_bytes, simd.splat4, simd.dot4
_at_least, _prefetch = simd.at_least, simd.prefetch


class ItemCodes(NamedTuple):
    """Vectors of whole numbers, 16 items a block, and per block what bounds their error.

    An element is stored as ``code`` in [0, 255] and stands for ``scale * (code - 127.5)``. Bytes of
    a block lie in the order in which the scan reads them: for each group of 4 dimensions, 4 bytes
    of each of the 16 items.

    Args:
        blocks: (num_blocks * bytes_per_block,) uint8.
        bounds: (num_blocks, 4) float32: scale; largest length of an error ``item - decoded``;
            largest length of a decoded vector; largest length of an item. Rounded up.
    """

    blocks: NDArray[np.uint8]
    bounds: Floats


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
        >>> codes.blocks.shape, codes.bounds.shape
        ((64,), (1, 4))
        >>> bool(codes.bounds[0, 1] < 0.01)  # no vector is further from its code than this
        True
    """
    dim = -(-rows.shape[1] // 4) * 4
    num_blocks = -(-len(rows) // _LANES)
    blocks = np.empty((num_blocks, _LANES * dim), np.uint8)
    bounds = np.empty((num_blocks, 4), np.float32)
    for first in range(0, num_blocks, _ROWS_AT_ONCE // _LANES):
        part = rows[first * _LANES : first * _LANES + _ROWS_AT_ONCE]
        last = first + -(-len(part) // _LANES)
        full = np.pad(part, ((0, (last - first) * _LANES - len(part)), (0, 0)))
        full = full.reshape(last - first, _LANES, -1)
        codes, bounds[first:last] = _encode(full)
        codes = np.pad(codes, ((0, 0), (0, 0), (0, dim - rows.shape[1])))
        groups = codes.reshape(last - first, _LANES, -1, 4).transpose(0, 2, 1, 3)
        blocks[first:last] = groups.reshape(last - first, -1)
    return ItemCodes(blocks.reshape(-1), bounds)


def _encode(part: Floats) -> tuple[NDArray[np.uint8], Floats]:
    """Give codes (blocks, 16, d) and bounds (blocks, 4) of vectors (blocks, 16, d)."""
    middle = np.float32(_MIDDLE)
    scale = np.maximum(np.abs(part).max(axis=(1, 2)), np.float32(_TINY)) / middle
    codes = np.clip(np.rint(part / scale[:, None, None] + middle), 0, 2 * middle)
    decoded = (codes - middle) * scale[:, None, None]  # its rounding is within the margin
    code_length, length = _lengths(decoded), _lengths(part)
    error = _lengths(part - decoded) + _MARGIN * (length + code_length)
    rounded = np.stack([error, code_length, length], axis=1) * (1 + _MARGIN) + _TINY
    return codes.astype(np.uint8), np.column_stack([scale, rounded]).astype(np.float32)


def _lengths(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """Give the largest length within each block, (blocks, 16, d) to (blocks,)."""
    squares = np.einsum("brd,brd->br", vectors, vectors, dtype=np.float64)
    return np.sqrt(squares.max(axis=1))


# The order of a sum is free here, as in any vectorized sum, and the same for every row.
@simd.compiled(fastmath={"reassoc", "contract"})
def _exact_score(rows: Floats, place: int, query: Floats) -> float:
    total = 0.0
    for j in range(query.shape[0]):
        total += np.float64(rows[place, j]) * np.float64(query[j])
    return np.float32(total)  # type: ignore[return-value]


@simd.compiled()
def _insert(scores: Floats, ids: Ids, filled: int, score: float, item: int) -> int:
    """Put an item in its place among the best, if it has one; give how many there are now."""
    k = scores.shape[0]
    place = filled
    if filled == k:
        place = k - 1
        if scores[place] > score or (scores[place] == score and ids[place] < item):
            return filled
    while place > 0 and (
        scores[place - 1] < score or (scores[place - 1] == score and ids[place - 1] > item)
    ):
        scores[place] = scores[place - 1]
        ids[place] = ids[place - 1]
        place -= 1
    scores[place] = score
    ids[place] = item
    return min(filled + 1, k)


@simd.compiled()
def _encode_query(query: Floats, codes: NDArray[np.int8], fact: NDArray[np.float64]) -> None:
    """Round a user's vector to 8 bits; note scale, bias of sums, length, length of the error."""
    largest = 0.0
    for j in range(query.shape[0]):
        largest = max(largest, abs(np.float64(query[j])))
    scale = max(largest, _TINY) / 127.0
    code_sum, square, error_square = 0.0, 0.0, 0.0
    for j in range(query.shape[0]):
        value = np.float64(query[j])
        code = np.rint(value / scale)
        codes[j] = np.int8(code)
        code_sum += code
        square += value * value
        error_square += (value - scale * code) ** 2
    fact[0], fact[1], fact[2] = scale, _MIDDLE * code_sum, math.sqrt(square)
    fact[3] = math.sqrt(error_square)


@simd.compiled()
def _score_queue(
    queue: Ids, rows: Floats, row_ids: Ids, query: Floats, scores: Floats, ids: Ids, filled: int
) -> int:
    """Score the queued rows exactly and keep the best; give how many there are now."""
    for place in queue:
        score = _exact_score(rows, place, query)
        if score >= scores[-1]:
            filled = _insert(scores, ids, filled, score, row_ids[place])
    return filled


@simd.compiled()
def _scan_blocks(
    blocks: NDArray[np.uint8], bounds: Floats, rows: Floats, row_ids: Ids, first: int, last: int,
    code: NDArray[np.int8], fact: NDArray[np.float64], query: Floats, excluded: Ids,
    scores: Floats, ids: Ids, filled: int, queue: Ids,
) -> tuple[int, int]:  # fmt: skip
    """Take the blocks first to last for one user; give how many are found, and were scored."""
    size = blocks.shape[0] // bounds.shape[0]
    scale, bias, length, error = fact[0], fact[1], fact[2], fact[3]
    threshold = np.float64(scores[-1])
    queued, rescored, num_excluded = 0, 0, excluded.shape[0]
    for block in range(first, last):
        limit = np.float64(bounds[block, 3]) * length
        margin = _MARGIN * limit + _TINY
        if limit + margin < threshold:
            break  # this block and all later ones are too short
        slack = bounds[block, 1] * length + bounds[block, 2] * error + margin
        need = np.floor((threshold - slack) / (bounds[block, 0] * scale) + bias) - 1.0
        need = min(max(need, -_INT32_LIMIT), _INT32_LIMIT)
        start, sums = block * size, _zeros()
        for load in range(size // _LOAD):
            values = _load_bytes(blocks, start + _LOAD * load)
            sums = _dot4(sums, values, _splat4(code, 4 * load))
        hits = _at_least(sums, np.int32(need))
        if hits == 0:
            continue
        for lane in range(_LANES):
            place = block * _LANES + lane
            if (hits >> lane) & 1 == 0 or place >= rows.shape[0]:
                continue
            if num_excluded:
                found = np.searchsorted(excluded, row_ids[place])
                if found < num_excluded and excluded[found] == row_ids[place]:
                    continue
            _prefetch(rows, place)
            queue[queued] = place
            queued += 1
            if queued == _QUEUE:
                filled = _score_queue(queue, rows, row_ids, query, scores, ids, filled)
                threshold = np.float64(scores[-1])
                rescored += queued
                queued = 0
    filled = _score_queue(queue[:queued], rows, row_ids, query, scores, ids, filled)
    return filled, rescored + queued


def _read(kind: types.Type, ndim: int) -> types.Array:
    return types.Array(kind, ndim, "C", readonly=True)


_matrix, _list = _read(types.float32, 2), _read(types.int64, 1)


@simd.compiled(
    types.void(
        _read(types.uint8, 1), _matrix, _matrix, _list, _matrix, _list, _list,
        types.float32[:, ::1], types.int64[:, ::1], types.int64[::1],
    )
)  # fmt: skip
def scan(
    blocks: NDArray[np.uint8], bounds: Floats, rows: Floats, row_ids: Ids, queries: Floats,
    excluded: Ids, starts: Ids, scores: Floats, ids: Ids, rescored: Ids,
) -> None:  # fmt: skip
    """Fill (b, k) ``scores`` and ``ids``, -inf and -1 where none is left; count ``rescored``."""
    num_users, num_blocks = scores.shape[0], bounds.shape[0]
    scores[:], ids[:], rescored[:] = -np.inf, -1, 0
    if num_blocks == 0:
        return
    codes = np.zeros((num_users, blocks.shape[0] // num_blocks // _LANES), np.int8)
    facts = np.empty((num_users, 4), np.float64)
    filled = np.zeros(num_users, np.int64)
    for u in range(num_users):
        _encode_query(queries[u], codes[u], facts[u])
    queue = np.empty(_QUEUE, np.int64)
    turn = num_blocks
    if num_users > 1:
        turn = max(1, _BYTES_PER_TURN * num_blocks // blocks.shape[0])
    for first in range(0, num_blocks, turn):
        last = min(first + turn, num_blocks)
        for u in range(num_users):
            own = excluded[starts[u] : starts[u + 1]]
            filled[u], count = _scan_blocks(
                blocks, bounds, rows, row_ids, first, last, codes[u], facts[u], queries[u],
                own, scores[u], ids[u], filled[u], queue,
            )  # fmt: skip
            rescored[u] += count
