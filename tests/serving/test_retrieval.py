"""TopKIndex gives the answer of an ordered list of all scores, whatever the vectors."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest

from recsys_lib.serving import retrieval
from recsys_lib.serving.retrieval import TopKIndex


@pytest.fixture(params=["float32", "int8"])
def precision(request):
    if request.param != "float32":
        pytest.importorskip("numba")
    return request.param


def brute_force(items, users, k, exclude=None):
    """All scores in float64, rounded to float32; ordered by score, then by item id."""
    items, users = np.asarray(items, np.float32), np.asarray(users, np.float32)
    scores = np.einsum("bd,nd->bn", users, items, dtype=np.float64).astype(np.float32)
    for user, banned in enumerate(exclude or []):
        scores[user, list(banned)] = -np.inf
    order = np.lexsort((np.broadcast_to(np.arange(len(items)), scores.shape), -scores), axis=1)
    ids = np.full((len(users), k), -1)
    best = np.full((len(users), k), -np.inf, np.float32)
    width = min(k, len(items))
    ids[:, :width] = order[:, :width]
    best[:, :width] = np.take_along_axis(scores, order, axis=1)[:, :width]
    ids[best == -np.inf] = -1
    return ids, best


def assert_exact(index, items, users, k, exclude=None):
    ids, scores = brute_force(items, users, k, exclude)
    found = index.search(users, k, exclude=exclude)
    np.testing.assert_array_equal(found.scores, scores)
    np.testing.assert_array_equal(found.item_ids, ids)


def vectors(seed, num_rows, dim, kind="normal"):
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(num_rows, dim))
    if kind == "lengths":  # a few very long, many short
        table *= rng.lognormal(0, 2, size=(num_rows, 1))
    elif kind == "clusters":
        table = table[rng.integers(0, min(20, num_rows), num_rows)] + 0.2 * table
    elif kind == "positive":
        table = np.abs(table)
    elif kind == "sparse":
        table *= rng.random(table.shape) < 0.1
    elif kind == "one dimension dominates":
        table[:, 0] *= 1000
    elif kind == "tiny":
        table *= 1e-22
    elif kind == "large":
        table *= 1e14
    return table.astype(np.float32)


@pytest.mark.parametrize("kind", ["normal", "lengths", "clusters", "positive", "sparse",
                                  "one dimension dominates", "tiny", "large"])  # fmt: skip
@pytest.mark.parametrize("shape", [(1, 1), (15, 3), (500, 10), (3001, 64), (2000, 130)])
def test_exact_on_all_kinds_of_vectors(precision, kind, shape):
    items = vectors(0, *shape, kind)
    users = vectors(1, 5, shape[1], kind)
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
    nothing = TopKIndex(np.zeros((40, 8)), precision)
    assert nothing.search(users, 3).item_ids.tolist() == [[0, 1, 2]] * 2


def test_equal_scores_come_by_lowest_id_across_blocks(precision):
    items = np.tile(vectors(0, 7, 4), (100, 1))  # every vector a hundred times
    index = TopKIndex(items, precision)
    best = index.search(vectors(1, 1, 4), 150).item_ids[0]
    assert (best[:100] % 7 == best[0] % 7).all()
    assert (np.diff(best[:100]) == 7).all()
    assert_exact(index, items, vectors(2, 6, 4), 150)


def test_exclusion(precision):
    items, users = vectors(0, 300, 12), vectors(1, 3, 12)
    index = TopKIndex(items, precision)
    best = index.search(users, 20).item_ids
    exclude = [best[0].tolist(), [], [*best[2, ::2].tolist(), int(best[2, 0])]]
    assert_exact(index, items, users, 20, exclude)
    everything = [list(range(300))] * 3
    found = index.search(users, 2, exclude=everything)
    assert (found.item_ids == -1).all() and (found.scores == -np.inf).all()
    assert_exact(index, items, users, 5, [list(range(298))] * 3)


def test_more_asked_than_there_are(precision):
    items, users = vectors(0, 40, 6), vectors(1, 2, 6)
    assert_exact(TopKIndex(items, precision), items, users, 100)


def test_very_long_lists_take_the_other_path_with_the_same_answer(precision):
    items, users = vectors(0, 3000, 6), vectors(1, 2, 6)
    index = TopKIndex(items, precision)
    assert_exact(index, items, users, 512)
    assert_exact(index, items, users, 513)
    assert_exact(index, items, users, 5000)


def test_batches_users_alone_and_threads_agree(precision):
    items, users = vectors(0, 20_000, 32, "clusters"), vectors(1, 33, 32)
    together = TopKIndex(items, precision).search(users, 10)
    shared = TopKIndex(items, precision, num_threads=np.int64(2)).search(users, 10)
    alone = [TopKIndex(items, precision).search(user, 10).item_ids[0] for user in users[:5]]
    np.testing.assert_array_equal(together.item_ids, shared.item_ids)
    np.testing.assert_array_equal(together.item_ids[:5], alone)
    assert_exact(TopKIndex(items, precision), items, users, 10)


def test_quantized_search_rescores_few(precision):
    items = vectors(0, 20_000, 64)
    rescored = TopKIndex(items, precision).search(vectors(1, 10, 64), 10).rescored
    assert (rescored >= 10).all()
    assert rescored.mean() < {"float32": 30, "int8": 300}[precision]


def test_short_items_end_the_scan_early():
    pytest.importorskip("numba")
    items = vectors(0, 5000, 16)
    items[100:] *= 1e-3
    assert TopKIndex(items, "int8").search(vectors(1, 1, 16), 5).rescored[0] <= 112


def test_no_items(precision):
    index = TopKIndex(np.empty((0, 4)), precision)
    found = index.search(np.ones((2, 4)), 3, exclude=[[], []])
    assert found.item_ids.tolist() == [[-1] * 3] * 2
    assert (found.scores == -np.inf).all()


def test_no_users(precision):
    found = TopKIndex(np.eye(3), precision).search(np.empty((0, 3)), 2)
    assert found.item_ids.shape == found.scores.shape == (0, 2)
    assert repr(found) == "SearchResult(0 users, k = 2, rescored 0 a user)"


def test_what_is_given_is_not_changed_and_not_kept(precision):
    items, users = vectors(0, 100, 8), vectors(1, 2, 8)
    before = items.copy(), users.copy()
    users.flags.writeable = False  # must not matter
    index = TopKIndex(items, precision)
    first = index.search(users, 5).item_ids
    np.testing.assert_array_equal(items, before[0])
    np.testing.assert_array_equal(users, before[1])
    items[:] = 0
    np.testing.assert_array_equal(index.search(users, 5).item_ids, first)


def test_other_number_types_and_orders_of_memory(precision):
    items = np.asfortranarray(vectors(0, 200, 8).astype(np.float64))
    users = vectors(1, 8, 4).T  # (4, 8), transposed in memory
    assert_exact(TopKIndex(items, precision), items, users, 5)
    whole = np.arange(12).reshape(4, 3)
    assert TopKIndex(whole, precision).search([1, 0, 0], 1).item_ids.tolist() == [[3]]


def test_saved_and_loaded(tmp_path, precision):
    items, users = vectors(0, 333, 9), vectors(1, 4, 9)
    index = TopKIndex(items, precision)
    index.save(tmp_path / "index")
    loaded = TopKIndex.load(tmp_path / "index", num_threads=2)
    assert (loaded.precision, loaded.num_threads) == (precision, 2)
    np.testing.assert_array_equal(loaded.search(users).item_ids, index.search(users).item_ids)
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_damaged_and_foreign_files(tmp_path):
    from recsys_lib.data import Interactions
    from recsys_lib.models import Popularity

    path = tmp_path / "index"
    TopKIndex(np.eye(5)).save(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="truncated or damaged"):
        TopKIndex.load(path)
    path.write_text("not an index")
    with pytest.raises(ValueError, match="no file of recsys_lib"):
        TopKIndex.load(path)
    Popularity().fit(Interactions([0], [0])).save(path)
    with pytest.raises(ValueError, match="holds a Popularity: expected TopKIndex"):
        TopKIndex.load(path)
    with pytest.raises(FileNotFoundError):
        TopKIndex.load(tmp_path / "absent")
    with pytest.raises(FileNotFoundError):
        TopKIndex(np.eye(5)).save(tmp_path / "absent" / "index")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e16, -1e30])
def test_values_that_cannot_be_ranked_are_refused(bad):
    items = np.ones((4, 3))
    items[2, 1] = bad
    with pytest.raises(ValueError, match=r"item_vectors\[2\] holds"):
        TopKIndex(items)
    with pytest.raises(ValueError, match=r"user_vectors\[2\] holds"):
        TopKIndex(np.eye(3)).search(items)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"item_vectors": np.ones(3)}, ValueError, r"item_vectors has shape \(3,\)"),
        ({"item_vectors": np.ones((3, 0))}, ValueError, "item_vectors has shape"),
        ({"item_vectors": [["a"]]}, TypeError, "item_vectors"),
        ({"item_vectors": [[1j]]}, TypeError, "item_vectors"),
        ({"precision": "int4"}, ValueError, "precision"),
        ({"num_threads": 0}, ValueError, "num_threads"),
        ({"user_vectors": np.ones(4)}, ValueError, "user_vectors has dimension 4: expected 3"),
        ({"user_vectors": np.ones((1, 1, 3))}, ValueError, "user_vectors has shape"),
        ({"k": 0}, ValueError, "k is 0"),
        ({"k": 1.0}, TypeError, "k is 1.0"),
        ({"exclude": [[0], [1]]}, ValueError, "exclude has 2 lists: expected 1"),
        ({"exclude": [[3]]}, ValueError, r"exclude\[0\] holds 3"),
        ({"exclude": [[0.5]]}, TypeError, r"exclude\[0\]"),
        ({"exclude": 7}, TypeError, "exclude"),
    ],
)
def test_wrong_arguments(arguments, error, message):
    names = ("item_vectors", "precision", "num_threads")
    index = {name: arguments[name] for name in names if name in arguments}
    search = {name: value for name, value in arguments.items() if name not in names}
    with pytest.raises(error, match=message):
        TopKIndex(**({"item_vectors": np.eye(3)} | index)).search(
            **({"user_vectors": np.ones(3)} | search)
        )


def test_without_numba_the_answer_is_the_same_after_a_warning(monkeypatch):
    items, users = vectors(0, 300, 8), vectors(1, 3, 8)
    monkeypatch.setattr(retrieval.importlib.util, "find_spec", lambda name: None)
    with pytest.warns(UserWarning, match="Numba is not installed"):
        index = TopKIndex(items, "int8")
    assert_exact(index, items, users, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TopKIndex(items, "float32")


def test_import_is_light():
    code = (
        "import sys, recsys_lib.serving; "
        "print([m for m in ('numba', 'tensorflow', 'keras', 'faiss') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_exact_on_vectors_of_a_real_model(precision, real_data):
    from recsys_lib.models import IALS

    model = IALS(embedding_dim=32, epochs=3).fit(real_data("ncf-ml-1m").train)
    users = model.user_vectors[:500]
    assert_exact(TopKIndex(model.item_vectors, precision), model.item_vectors, users, 10)
