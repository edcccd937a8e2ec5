"""TopKIndex gives the answer of an ordered list of all scores, whatever the vectors."""

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_lib.serving import simd
from recsys_lib.serving.retrieval import SearchResult, TopKIndex, merge_top_k


@pytest.fixture(params=["float32", "int8"])
def precision(request):
    return request.param


def brute_force(items, users, k, exclude=None):
    """All scores in float64, rounded to float32; ordered by score, then by item id."""
    items, users = np.asarray(items, np.float32), np.asarray(users, np.float32)
    scores = np.einsum("bd,nd->bn", users, items, dtype=np.float64).astype(np.float32)
    for user, banned in enumerate(exclude or []):
        scores[user, list(banned)] = -np.inf
    scores = np.pad(scores, ((0, 0), (0, k)), constant_values=-np.inf)
    ids = np.lexsort((np.broadcast_to(np.arange(scores.shape[1]), scores.shape), -scores))[:, :k]
    best = np.take_along_axis(scores, ids, axis=1)
    return np.where(best == -np.inf, -1, ids), best


def assert_exact(index, items, users, k, exclude=None):
    ids, scores = brute_force(items, users, k, exclude)
    found = index.search(users, k, exclude=exclude)
    np.testing.assert_array_equal(found.scores, scores)
    np.testing.assert_array_equal(found.item_ids, ids)


KINDS = {
    "normal": lambda rng, x: x,
    "a few very long": lambda rng, x: x * rng.lognormal(0, 2, size=(len(x), 1)),
    "clusters": lambda rng, x: x[rng.integers(0, min(20, len(x)), len(x))] + 0.2 * x,
    "positive": lambda rng, x: np.abs(x),
    "sparse": lambda rng, x: x * (rng.random(x.shape) < 0.1),
    "one dimension dominates": lambda rng, x: x * ([1000] + [1] * (x.shape[1] - 1)),
    "tiny": lambda rng, x: x * 1e-22,
    "large": lambda rng, x: x * 1e14,
    "half are zero": lambda rng, x: x * (rng.random((len(x), 1)) < 0.5),
    "equal": lambda rng, x: x[np.arange(len(x)) % 7],  # every vector many times, in all blocks
    # A hundredth of a step of 8 bits apart, and ties.
    "close": lambda rng, x: 1 + 1e-6 * rng.integers(0, 50, x.shape) * (np.arange(x.shape[1]) == 0),
}


def vectors(seed, num_rows, dim, kind="normal"):
    rng = np.random.default_rng(seed)
    return KINDS[kind](rng, rng.normal(size=(num_rows, dim))).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1), (15, 3), (500, 10), (3001, 64), (2000, 130)])
def test_exact_on_all_kinds_of_vectors(precision, kind, shape):
    items, users = vectors(0, *shape, kind), vectors(1, 5, shape[1], kind)
    index = TopKIndex(items, precision)
    for k in (1, 10, 100):
        assert_exact(index, items, users, k)
        assert_exact(index, items, users[:1], k)


def test_exclusion_long_lists_and_nothing_at_all(precision):
    items, users = vectors(0, 300, 12), vectors(1, 3, 12)
    index = TopKIndex(items, precision)
    best = index.search(users, 20).item_ids
    exclude = [best[0].tolist(), [], [*best[2, ::2].tolist(), int(best[2, 0])]]
    assert_exact(index, items, users, 20, exclude)
    assert_exact(index, items, users, 2, [list(range(300))] * 3)
    assert_exact(index, items, users, 5, [list(range(298))] * 3)
    for num_items, k in ((40, 100), (3000, 512), (3000, 513), (3000, 5000)):
        items = vectors(0, num_items, 6)
        assert_exact(TopKIndex(items, precision), items, vectors(1, 2, 6), k)
    nothing = np.empty((0, 4), np.float32)
    assert_exact(TopKIndex(nothing, precision), nothing, np.ones((2, 4)), 3, [[], []])
    found = TopKIndex(np.eye(3), precision).search(np.empty((0, 3)), 2)
    assert repr(found) == "SearchResult(0 users, k = 2, rescored 0 a user)"


def test_batches_users_alone_and_threads_agree(precision):
    items, users = vectors(0, 20_000, 32, "clusters"), vectors(1, 33, 32)
    together = TopKIndex(items, precision).search(users, 10)
    shared = TopKIndex(items, precision, num_threads=np.int64(2)).search(users, 10)
    alone = [TopKIndex(items, precision).search(user, 10).item_ids[0] for user in users[:5]]
    np.testing.assert_array_equal(together.item_ids, shared.item_ids)
    np.testing.assert_array_equal(together.item_ids[:5], alone)
    assert_exact(TopKIndex(items, precision), items, users, 10)


def test_few_are_scored_again_and_short_items_end_the_scan(precision):
    items, users = vectors(0, 20_000, 64), vectors(1, 10, 64)
    rescored = TopKIndex(items, precision).search(users, 10).rescored
    assert rescored.min() >= 10 and rescored.mean() < {"float32": 30, "int8": 300}[precision]
    items[100:] *= 1e-3
    assert TopKIndex(items, precision).search(users[:1], 5).rescored[0] <= 112


def test_what_is_given_is_of_any_type_and_order_and_not_changed_and_not_kept(precision):
    items, users = np.asfortranarray(vectors(0, 100, 8).astype(np.float64)), vectors(1, 8, 2).T
    kept, users.flags.writeable = items.copy(), False
    index = TopKIndex(items, precision)
    np.testing.assert_array_equal(items, kept)
    items[:] = 0
    assert_exact(index, kept, users, 5)
    assert TopKIndex(np.arange(12).reshape(4, 3), precision).search([1, 0, 0], 1).scores == 9


def test_saved_and_loaded(tmp_path, precision):
    items, users, path = vectors(0, 333, 9), vectors(1, 4, 9), tmp_path / "index"
    TopKIndex(items, precision).save(path)
    loaded = TopKIndex.load(path, num_threads=2)
    assert (loaded.precision, loaded.num_threads) == (precision, 2)
    assert_exact(loaded, items, users, 10)


def test_refuses():
    search, bad = TopKIndex(np.eye(3)).search, (np.nan, np.inf, -np.inf, 1e16, -1e30)
    rows, row = [np.array([[1, 2, 4], [3, 0, value]]) for value in bad], np.ones(3)
    for call, error, word in (
        *((lambda x=x: TopKIndex(x), ValueError, r"item_vectors\[1\] holds") for x in rows),
        *((lambda x=x: search(x), ValueError, r"user_vectors\[1\] holds") for x in rows),
        (lambda: TopKIndex(np.ones((3, 0))), ValueError, "item_vectors"),
        (lambda: TopKIndex([[1j]]), TypeError, "item_vectors"),
        (lambda: TopKIndex(np.eye(3), "int4"), ValueError, "precision"),
        (lambda: TopKIndex(np.eye(3), num_threads=0), ValueError, "num_threads"),
        (lambda: search(np.ones(4)), ValueError, "user_vectors has dimension 4"),
        (lambda: search(row, 0), ValueError, "k is 0"),
        (lambda: search(row, exclude=[[0], [1]]), ValueError, "exclude has 2 lists"),
        (lambda: search(row, exclude=[[3]]), ValueError, "exclude.* holds 3"),
        (lambda: search(row, exclude=[[0.5]]), TypeError, "exclude"),
        (lambda: search(row, exclude=7), TypeError, "exclude"),
    ):
        with pytest.raises(error, match=word):
            call()


@pytest.mark.parametrize("emit", ["dot4_portable", "dot4_vnni"])
def test_byte_dot_product_both_ways(emit):
    if emit == "dot4_vnni" and not simd.has_byte_dot_product():
        pytest.skip("this processor has no AVX-512 VNNI")
    zeros, load, splat, at_least = simd.zeros, simd.load_bytes, simd.splat4, simd.at_least
    store, dot4 = simd.store, simd.make_dot4(getattr(simd, emit))

    @numba.njit
    def reach(codes, query, bound, result):
        sums = dot4(zeros(), load(codes, 0), splat(query, 0))
        store(sums, result, 2)
        return at_least(sums, np.int32(bound))

    codes = np.random.default_rng(0).integers(0, 256, 64).astype(np.uint8)
    codes[:8] = 255
    for query in ([-128] * 4, [127] * 4, [-1, 5, 0, 99]):
        signed, stored = np.array(query, np.int8), np.zeros(20, np.int32)
        sums = codes.reshape(16, 4).astype(int) @ signed.astype(int)
        for bound in (*sums[:3], sums.min(), sums.max() + 1):
            bits = reach(codes, signed, bound, stored)
            assert [(bits >> lane) & 1 for lane in range(16)] == (sums >= bound).tolist()
            np.testing.assert_array_equal(stored, [0, 0, *sums, 0, 0])


@settings(deadline=None)
@given(st.data())
def test_merged_parts_are_the_whole_ties_included(data):
    """Vectors of few small whole numbers: nearly every list ends inside a run of equal scores."""
    num_items, users = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 4))
    num_parts, k = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 70))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    items, queries = (rng.integers(-1, 2, (n, 2)).astype(np.float32) for n in (num_items, users))
    owner = rng.integers(0, num_parts, num_items)  # some parts may hold nothing
    owned = [np.flatnonzero(owner == part) for part in range(num_parts)]
    precision = data.draw(st.sampled_from(["float32", "int8"]))
    found = [TopKIndex(items[own], precision).search(queries, k) for own in owned]
    merged, whole = merge_top_k(found, owned, k), TopKIndex(items).search(queries, k)
    np.testing.assert_array_equal(merged.item_ids, whole.item_ids)
    np.testing.assert_array_equal(merged.scores, whole.scores)


@pytest.mark.parametrize(
    ("shapes", "item_ids", "k", "name"),
    [
        ([], [], 1, "results"),
        ([(1, 2)], [[0, 1], [2, 3]], 2, "item_ids"),
        ([(1, 2), (2, 2)], [[0, 1], [2, 3]], 2, "same users"),
        ([(1, 2), (1, 1)], [[0, 1], [2, 3]], 2, "k = 2"),
        *(([(1, 2)], [ids], 2, "item_ids") for ids in ([1, 0], [1, 1], [1], [-1, 0], [0.5, 1])),
        ([(1, 2)], [[0, 1]], 0, "k"),
    ],
)
def test_what_cannot_be_merged_is_refused(shapes, item_ids, k, name):
    ids = [np.tile(np.arange(width), (users, 1)) for users, width in shapes]
    with pytest.raises(ValueError, match=name):
        merge_top_k([SearchResult(one, one * 1.0, one[:, 0]) for one in ids], item_ids, k)
