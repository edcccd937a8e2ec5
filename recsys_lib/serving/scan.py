"""The scan: best items of users over vectors in 8 bits, exact because each error is bounded.

For an item x with code y and a user q with code p::

    <x, q> = <y, p> + <x - y, q> + <y, q - p>
    <x, q> <= <y, p> + |x - y| |q| + |y| |q - p|          (Cauchy-Schwarz, twice)

``<y, p>`` is whole numbers times two scales; the lengths were measured when the items were encoded.
An item whose upper bound lies below the k-th best *exact* score found so far cannot be among the
best k; the few others are scored on their float32 vectors. No item of the true answer can be lost,
whatever the data: there is no length of a shortlist to choose and to get wrong.

Items and users are first turned, alike, so that the first half of the dimensions holds most of the
length of the items (their principal axes; no inner product changes). With ``y = (y1, y2)`` and
``p = (p1, p2)`` there, ``<y, p> <= <y1, p1> + |y2| |p2|``: most items are out after half of their
bytes, as in Li et al., *FEXIPRO: Fast and Exact Inner Product Retrieval in Recommender Systems*,
SIGMOD 2017, section 4.

Few items pass, and each would wait for its vector to come from memory: so they queue up while the
scan goes on, and their vectors are on the way. Items stand in order of falling length, so that the
scan may stop where ``|x| |q|`` is too small. Scores are sums in float64, rounded to float32 once;
of equal scores the lowest item id comes first.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numpy.typing import NDArray

from recsys_lib.serving import simd
from recsys_lib.serving.item_codes import MARGIN, MIDDLE, TINY

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
Doubles = NDArray[np.float64]
_LANES, _LOAD = simd.NUM_LANES, simd.BYTES_PER_LOAD  # a block holds as many items as lanes
# Users of a batch take turns on as many bytes as fit well into the cache of one core.
_BYTES_PER_TURN = 1 << 18
_QUEUE = 16
_INT32_LIMIT = 2147483647.0
_LARGEST_VALUE = 1e16  # products of larger values could leave the range of float32

_zeros, _load_bytes, _splat4, _dot4 = simd.zeros, simd.load_bytes, simd.splat4, simd.dot4
_at_least, _prefetch = simd.at_least, simd.prefetch


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


@simd.compiled(fastmath={"reassoc", "contract"})
def _turn(query: Floats, axes: Doubles, turned: Doubles) -> None:
    for j in range(query.shape[0]):
        turned[j] = query[j] if axes.shape[1] == 0 else 0.0
    for i in range(query.shape[0] if axes.shape[1] else 0):
        for j in range(query.shape[0]):
            turned[j] += np.float64(query[i]) * axes[i, j]


@simd.compiled()
def _encode_query(query: Doubles, codes: NDArray[np.int8], head: int, fact: Doubles) -> None:
    """Round a user's vector to 8 bits; note scale, biases of sums, and lengths."""
    largest = 0.0
    for j in range(query.shape[0]):
        largest = max(largest, abs(query[j]))
    scale = max(largest, TINY) / 127.0
    fact[:], fact[0] = 0.0, scale
    for j in range(query.shape[0]):
        code = np.rint(query[j] / scale)
        codes[j] = np.int8(code)
        if j < head:
            fact[1] += MIDDLE * code
        else:
            fact[5] += (scale * code) ** 2
        fact[2] += MIDDLE * code
        fact[3] += query[j] ** 2
        fact[4] += (query[j] - scale * code) ** 2
    for i in range(3, len(fact)):  # as a slice it would take six seconds longer to compile
        fact[i] = np.sqrt(fact[i])


@simd.compiled()
def _need(least: float, scale: float, bias: float) -> int:
    """Return the sum of codes below which a score stays below ``least``."""
    need = np.floor(least / scale + bias) - 1.0
    return np.int32(min(max(need, -_INT32_LIMIT), _INT32_LIMIT))  # type: ignore[return-value]


@simd.compiled()
def _contains(ids: Ids, wanted: int) -> bool:
    """Search rising ids; NumPy's searchsorted takes half a second longer to compile."""
    first, end = 0, len(ids)
    while first < end:
        middle = (first + end) // 2
        if ids[middle] < wanted:
            first = middle + 1
        else:
            end = middle
    return first < len(ids) and ids[first] == wanted


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
    heads: NDArray[np.uint8], tails: NDArray[np.uint8], bounds: Floats, rows: Floats,
    row_ids: Ids, first: int, last: int,
    code: NDArray[np.int8], fact: NDArray[np.float64], query: Floats, excluded: Ids,
    scores: Floats, ids: Ids, filled: int, queue: Ids,
) -> tuple[int, int]:  # fmt: skip
    """Take the blocks first to last for one user; give how many are found, and were scored."""
    in_head = heads.shape[0] // bounds.shape[0] // _LOAD
    in_tail = tails.shape[0] // bounds.shape[0] // _LOAD
    length, error, tail = fact[3], fact[4], fact[5]
    threshold = np.float64(scores[-1])
    queued, rescored, num_excluded = 0, 0, excluded.shape[0]
    for block in range(first, last):
        limit = np.float64(bounds[block, 4]) * length
        margin = MARGIN * limit + TINY
        if limit + margin < threshold:
            break  # this block and all later ones are too short
        slack = bounds[block, 1] * length + bounds[block, 2] * error + margin
        least, scale = threshold - slack, bounds[block, 0] * fact[0]
        sums = _zeros()
        for load in range(in_head):
            values = _load_bytes(heads, _LOAD * (block * in_head + load))
            sums = _dot4(sums, values, _splat4(code, 4 * load))
        if _at_least(sums, _need(least - bounds[block, 3] * tail, scale, fact[1])) == 0:
            continue
        for load in range(in_tail):
            values = _load_bytes(tails, _LOAD * (block * in_tail + load))
            sums = _dot4(sums, values, _splat4(code, 4 * (in_head + load)))
        hits = _at_least(sums, _need(least, scale, fact[2]))
        if hits == 0:
            continue
        for lane in range(_LANES):
            place = block * _LANES + lane
            if (hits >> lane) & 1 == 0 or place >= rows.shape[0]:
                continue
            if num_excluded and _contains(excluded, row_ids[place]):
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


_bytes, _matrix, _list = _read(types.uint8, 1), _read(types.float32, 2), _read(types.int64, 1)


@simd.compiled(
    types.boolean(
        _bytes, _bytes, _matrix, _read(types.float64, 2), _matrix, _list, _list, _list, _matrix,
        types.float32[:, ::1], types.int64[:, ::1], types.int64[::1],
    )
)  # fmt: skip
def scan(
    heads: NDArray[np.uint8], tails: NDArray[np.uint8], bounds: Floats, axes: Doubles,
    rows: Floats, row_ids: Ids, excluded: Ids, starts: Ids, queries: Floats, scores: Floats,
    ids: Ids, rescored: Ids,
) -> bool:  # fmt: skip
    """Fill (b, k) ``scores`` and ``ids``, -inf and -1 where none is left; count ``rescored``.

    Tell whether it was done: not where a query holds NaN or a value of 1e16 or more.
    """
    num_users, num_blocks = scores.shape[0], bounds.shape[0]
    scores[:], ids[:], rescored[:] = -np.inf, -1, 0
    num_bytes = heads.shape[0] + tails.shape[0]
    dim = num_bytes // max(1, num_blocks) // _LANES  # in whole groups of 4
    codes = np.zeros((num_users, max(dim, queries.shape[1])), np.int8)
    facts, turned = np.empty((num_users, 6), np.float64), np.empty(queries.shape[1])
    filled = np.zeros(num_users, np.int64)
    for u in range(num_users):
        for value in queries[u]:
            if not abs(value) < _LARGEST_VALUE:
                return False
        _turn(queries[u], axes, turned)
        _encode_query(turned, codes[u], dim // 8 * 4, facts[u])
    if num_blocks == 0:
        return True
    queue = np.empty(_QUEUE, np.int64)
    turn = num_blocks
    if num_users > 1:
        turn = max(1, _BYTES_PER_TURN * num_blocks // num_bytes)
    for first in range(0, num_blocks, turn):
        last = min(first + turn, num_blocks)
        for u in range(num_users):
            own = excluded[starts[u] : starts[u + 1]]
            filled[u], count = _scan_blocks(
                heads, tails, bounds, rows, row_ids, first, last, codes[u], facts[u], queries[u],
                own, scores[u], ids[u], filled[u], queue,
            )  # fmt: skip
            rescored[u] += count
    return True
