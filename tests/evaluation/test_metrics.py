"""Metrics by hand and as properties; equal scores: the last bit of a score decides nothing."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recsys_lib.data import Interactions, Split, make_synthetic, sample_negatives
from recsys_lib.data.synthetic import SyntheticConfig
from recsys_lib.evaluation import (
    evaluate_cold_items,
    evaluate_full_ranking,
    evaluate_leave_one_out,
    metrics,
)
from recsys_lib.evaluation.metrics import (
    best_columns,
    hit_rate_at_k,
    mae,
    ndcg_at_k,
    recall_at_k,
    rmse,
)
from recsys_lib.models import EASE, IALS, Factors, Popularity, top_k

lists = hnp.arrays(
    np.int64, st.tuples(st.integers(1, 6), st.integers(3, 12)), elements=st.integers(0, 1)
)


def test_by_hand():
    assert rmse([4, 2, 5], [3, 2, 3]) == pytest.approx(math.sqrt(5 / 3))
    assert mae([4, 2, 5], [3, 2, 3]) == pytest.approx(1.0)
    relevance, count = [[1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]], [3, 1, 2]
    assert hit_rate_at_k(relevance, 3).tolist() == [1, 0, 0]
    assert recall_at_k(relevance, 3, count) == pytest.approx([2 / 3, 0, 0])
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    assert ndcg_at_k(relevance, 3, count) == pytest.approx([1.5 / ideal, 0, 0])
    assert ndcg_at_k(relevance, 4, count)[1] == pytest.approx(1 / math.log2(5))


@given(lists, st.integers(0, 5))
def test_properties(relevance, extra):
    hits = relevance.sum(axis=1)
    count, last = np.maximum(hits + extra, 1), (0.0, 0.0)
    for k in range(1, relevance.shape[1] + 1):
        hit, recall = hit_rate_at_k(relevance, k), recall_at_k(relevance, k, count)
        ndcg = ndcg_at_k(relevance, k, count)
        assert all(((values >= 0) & (values <= 1)).all() for values in (hit, recall, ndcg))
        assert ((ndcg > 0) == (hit > 0)).all()  # a gain needs a hit, a hit gives a gain
        assert (hit >= last[0]).all() and (recall >= last[1]).all()
        last = hit, recall
    best = ndcg_at_k(-np.sort(-relevance, axis=1), k, count)
    assert (best >= ndcg - 1e-12).all()  # moving a hit up never lowers it
    assert best[(hits == count)] == pytest.approx(1)


RATINGS = [([1, 2], [1]), ([1, 2], [[1], [2]]), ([], []), ([1, np.nan], [1, 2]), ([1], [np.inf])]


@pytest.mark.parametrize(
    ("metric", "arguments", "name"),
    [
        *((metric, ratings, "y_") for metric in (rmse, mae) for ratings in RATINGS),
        *((recall_at_k, ([[0, 1]], k, [1]), "k") for k in (0, -1, 2.0, True, 3)),
        (recall_at_k, ([[0, 2]], 1, [2]), "relevance"),
        *((recall_at_k, ([[1, 1]], 2, count), "num_relevant") for count in ([0], [1, 1], [1])),
    ],
)
def test_refuses(metric, arguments, name):
    with pytest.raises((TypeError, ValueError), match=name):
        metric(*arguments)


def split_of(data, number):
    train, test = data.split_leave_one_out()
    return Split(train, test, sample_negatives(train, test, number))


SPLIT = split_of(
    Interactions(*np.random.default_rng(0).integers(0, 20, (2, 150)), num_users=20, num_items=20), 9
)


def results(model, split, k):
    given = evaluate_leave_one_out(model, split, k)
    return [given, evaluate_full_ranking(model, split.train, split.test, k)]


def of_table(table):
    model = SimpleNamespace(score=lambda user_ids, item_ids: table[user_ids, item_ids])
    return [*results(model, SPLIT, 3), evaluate_cold_items(table, SPLIT.test, 3)]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, -3.0, 100.0]))
def test_the_last_bit_changes_nothing(seed, offset):
    random = np.random.default_rng(seed)
    items = random.normal(size=(5, 8))[random.integers(0, 5, 20)]  # many equal ones
    scores = (random.normal(size=(20, 8)) @ items.T + offset).astype(np.float32)
    towards = random.choice([-np.inf, 0.0, np.inf], scores.shape)  # by a unit in the last place
    moved = np.where(towards == 0, scores, np.nextafter(scores, towards.astype(np.float32)))
    assert (moved != scores).any()
    for before, after in zip(of_table(scores), of_table(moved), strict=True):
        np.testing.assert_array_equal(before.ndcg_per_user, after.ndcg_per_user)
    for k in (1, 4, 20):
        np.testing.assert_array_equal(top_k(scores, k), top_k(moved, k))
    assert not any(result.hit_rate for result in of_table(scores * 0))  # constant scores: no hits


@pytest.mark.parametrize(
    "model",
    [Popularity(), EASE(l2=50.0), IALS(embedding_dim=8, epochs=3)],
    ids=lambda model: type(model).__name__,
)
def test_the_last_bit_changes_no_quality_of_real_models(request, model):
    split = split_of(make_synthetic(SyntheticConfig("video", 120, 160, 40), seed=1), 40)
    model.fit(split.train)
    if isinstance(model, IALS):
        model.item_vectors[1::2] = model.item_vectors[::2]
    calm, lists = results(model, split, 10), model.recommend(np.arange(20), k=10)
    request.getfixturevalue("shaken_scores")
    np.testing.assert_array_equal(model.recommend(np.arange(20), k=10), lists)
    for before, after in zip(calm, results(model, split, 10), strict=True):
        np.testing.assert_array_equal(before.hit_rate_per_user, after.hit_rate_per_user)
        np.testing.assert_array_equal(before.ndcg_per_user, after.ndcg_per_user)
    scores = np.append(np.full(50, 0.3, np.float32), np.float32(-np.inf))[None]
    moved = metrics.as_scores("scores", scores)  # the shaking shakes
    assert len(np.unique(moved)) == 4  # below, there, above, and never
    np.testing.assert_allclose(moved, scores, rtol=1e-6)


@pytest.mark.slow
def test_four_digits_of_ease_without_the_last_bit(real_data, shaken_scores):
    split = real_data("ncf-ml-1m")
    result = evaluate_leave_one_out(EASE(l2=1320).fit(split.train), split, k=10)
    assert (round(result.hit_rate, 4), round(result.ndcg, 4)) == (0.7192, 0.4494)


def test_equal_items_stand_together_in_order():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(40, 16)).astype(np.float32)
    twins = np.concatenate([vectors, vectors])[random.permutation(80)]
    model = Factors(twins, random.normal(size=(200, 16)).astype(np.float32))
    ids = model.recommend(np.arange(200), k=80)
    np.testing.assert_array_equal(twins[ids[:, ::2]], twins[ids[:, 1::2]])
    assert (ids[:, ::2] < ids[:, 1::2]).all()


ONE, BELOW = np.float32(1), np.nextafter(np.float32(1), np.float32(0))


@pytest.mark.parametrize(
    ("scores", "k", "expected"),
    [
        ([BELOW, ONE, 0.5], 1, [0]),
        ([0.5, *[BELOW, ONE] * 50], 3, [1, 2, 3]),  # a run of ties far beyond k
        ([0.5, 0.5 - 1e-5, 0.5 + 1e-5], 3, [2, 0, 1]),
        ([-1e9, 0.1, 0.2, -1e9], 4, [2, 1, 0, 3]),  # a huge "never" is no yardstick
        ([1e9, 1e9 + 640, 0.0, 1e-3], 4, [0, 1, 2, 3]),
        ([np.inf, np.inf, 2.0, 1.0], 4, [0, 1, 2, 3]),
        ([-4.0, -3.0, -1e-9], 3, [2, 1, 0]),
    ],
)
def test_lists_by_hand(scores, k, expected):
    assert top_k(np.float32([scores]), k).tolist() == [expected]
    assert top_k([[1_000_000_000, 1_000_000_001]], 1).tolist() == [[1]]  # in float32 equal


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float16, np.float64, bool])
def test_scores_of_any_number_type(kind):
    scores = np.array([[1, 0, 1, 0]]).astype(kind)
    assert top_k(scores, 3).tolist() == [[0, 2, 1]]
    test = Interactions([0], [3], num_items=4)
    assert evaluate_cold_items(scores, test, 3).hit_rate == 0
    assert evaluate_cold_items(scores, test, 4).hit_rate == 1
    with pytest.raises(TypeError, match="expected numbers"):
        evaluate_cold_items(scores.astype(str), test, 3)


@pytest.mark.parametrize("shape", [(3, 5), (4, 3000), (2, 3777)])
@pytest.mark.parametrize("k", [1, 5])
def test_the_best_columns_are_those_of_a_sort(shape, k):
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 50, shape).astype(np.float32)  # with ties
    scores[rng.random(shape) < 0.1] = -np.inf
    columns = best_columns(scores, k)
    assert columns.shape == (shape[0], k) and all(len(set(row)) == k for row in columns.tolist())
    found = np.sort(np.take_along_axis(scores, columns, axis=1), axis=1)
    assert np.array_equal(found, np.sort(scores, axis=1)[:, -k:])
