"""TopKIndex gives the answer of an ordered list of all scores, whatever the vectors."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from recsys_lib.files import write_file
from recsys_lib.serving.retrieval import TopKIndex


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


def test_items_closer_than_the_rounding_of_codes_are_told_apart(precision):
    rng = np.random.default_rng(0)
    items = np.ones((5000, 16), np.float32)
    items[:, 0] += rng.integers(0, 50, 5000) * 1e-6  # a hundredth of a step of 8 bits, and ties
    assert_exact(TopKIndex(items, precision), items, np.ones((2, 16), np.float32), 20)


def test_zero_vectors_and_zero_users(precision):
    items = vectors(0, 200, 8)
    items[50:150] = 0
    users = np.stack([np.zeros(8), -items[:50].sum(axis=0)])
    assert_exact(TopKIndex(items, precision), items, users, 30)


def test_equal_scores_come_by_lowest_id_across_blocks(precision):
    items = np.tile(vectors(0, 7, 4), (100, 1))  # every vector a hundred times
    index = TopKIndex(items, precision)
    assert (np.diff(index.search(vectors(1, 1, 4), 150).item_ids[0, :100]) == 7).all()
    assert_exact(index, items, vectors(2, 6, 4), 150)


def test_exclusion(precision):
    items, users = vectors(0, 300, 12), vectors(1, 3, 12)
    index = TopKIndex(items, precision)
    best = index.search(users, 20).item_ids
    exclude = [best[0].tolist(), [], [*best[2, ::2].tolist(), int(best[2, 0])]]
    assert_exact(index, items, users, 20, exclude)
    assert_exact(index, items, users, 2, [list(range(300))] * 3)
    assert_exact(index, items, users, 5, [list(range(298))] * 3)


@pytest.mark.parametrize(("num_items", "k"), [(40, 100), (3000, 512), (3000, 513), (3000, 5000)])
def test_long_lists(precision, num_items, k):
    items, users = vectors(0, num_items, 6), vectors(1, 2, 6)
    assert_exact(TopKIndex(items, precision), items, users, k)


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


def test_no_items_and_no_users(precision):
    nothing = np.empty((0, 4), np.float32)
    assert_exact(TopKIndex(nothing, precision), nothing, np.ones((2, 4)), 3, [[], []])
    found = TopKIndex(np.eye(3), precision).search(np.empty((0, 3)), 2)
    assert repr(found) == "SearchResult(0 users, k = 2, rescored 0 a user)"


def test_what_is_given_is_not_changed_and_not_kept(precision):
    items, users = vectors(0, 100, 8), vectors(1, 2, 8)
    kept, users.flags.writeable = items.copy(), False
    index = TopKIndex(items, precision)
    np.testing.assert_array_equal(items, kept)
    items[:] = 0
    assert_exact(index, kept, users, 5)


def test_other_number_types_and_orders_of_memory(precision):
    items = np.asfortranarray(vectors(0, 200, 8).astype(np.float64))
    assert_exact(TopKIndex(items, precision), items, vectors(1, 8, 4).T, 5)
    assert TopKIndex(np.arange(12).reshape(4, 3), precision).search([1, 0, 0], 1).scores == 9


def test_saved_loaded_damaged_and_foreign_files(tmp_path, precision):
    items, users, path = vectors(0, 333, 9), vectors(1, 4, 9), tmp_path / "index"
    TopKIndex(items, precision).save(path)
    loaded = TopKIndex.load(path, num_threads=2)
    assert (loaded.precision, loaded.num_threads) == (precision, 2)
    assert_exact(loaded, items, users, 10)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="damaged"):
        TopKIndex.load(path)
    write_file(path, "Popularity", {}, {"item_vectors": np.eye(5)})
    with pytest.raises(ValueError, match="holds a Popularity"):
        TopKIndex.load(path)
    assert [file.name for file in tmp_path.iterdir()] == ["index"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e16, -1e30])
def test_values_that_cannot_be_ranked_are_refused(bad):
    with pytest.raises(ValueError, match=r"item_vectors\[1\] holds"):
        TopKIndex([[1, 2], [3, bad]])
    with pytest.raises(ValueError, match=r"user_vectors\[1\] holds"):
        TopKIndex(np.eye(2)).search([[1, 2], [3, bad]])


def test_refuses():
    search = TopKIndex(np.eye(3)).search
    for call, error, message in (
        (lambda: TopKIndex(np.ones((3, 0))), ValueError, "item_vectors"),
        (lambda: TopKIndex([[1j]]), TypeError, "item_vectors"),
        (lambda: TopKIndex(np.eye(3), "int4"), ValueError, "precision"),
        (lambda: TopKIndex(np.eye(3), num_threads=0), ValueError, "num_threads"),
        (lambda: search(np.ones(4)), ValueError, "user_vectors has dimension 4"),
        (lambda: search(np.ones(3), 0), ValueError, "k is 0"),
        (lambda: search(np.ones(3), 1.0), TypeError, "k is 1.0"),
        (lambda: search(np.ones(3), exclude=[[0], [1]]), ValueError, "exclude has 2 lists"),
        (lambda: search(np.ones(3), exclude=[[3]]), ValueError, "exclude.* holds 3"),
        (lambda: search(np.ones(3), exclude=[[0.5]]), TypeError, "exclude"),
        (lambda: search(np.ones(3), exclude=7), TypeError, "exclude"),
    ):
        with pytest.raises(error, match=message):
            call()


def test_import_is_light():
    heavy = "[m for m in ('numba', 'tensorflow', 'keras', 'faiss') if m in sys.modules]"
    code = f"import sys, recsys_lib.serving; print({heavy})"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.slow
def test_exact_on_vectors_of_a_real_model(precision, real_data):
    from recsys_lib.models import IALS

    model = IALS(embedding_dim=32, epochs=3).fit(real_data("ncf-ml-1m").train)
    users = model.user_vectors[:500]
    assert_exact(TopKIndex(model.item_vectors, precision), model.item_vectors, users, 10)
