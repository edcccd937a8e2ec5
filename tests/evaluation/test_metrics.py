"""Metrics by hand and as properties; equal scores: the last bit of a score decides nothing."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recsys_lib.data import Interactions, Split, sample_negatives
from recsys_lib.evaluation import evaluate_cold_items, evaluate_full_ranking, evaluate_leave_one_out
from recsys_lib.evaluation.metrics import hit_rate_at_k, mae, ndcg_at_k, recall_at_k, rmse
from recsys_lib.models import Factors, top_k

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


ROWS = np.random.default_rng(0).integers(0, 20, (2, 150))
TRAIN, TEST = Interactions(*ROWS, num_users=20, num_items=20).split_leave_one_out()
SPLIT = Split(TRAIN, TEST, negatives=sample_negatives(TRAIN, TEST, 9))


def shaken(scores, seed):
    """Move each score by a unit in the last place, up, down, or not at all."""
    towards = np.random.default_rng(seed).choice([-np.inf, 0.0, np.inf], scores.shape)
    return np.where(towards == 0, scores, np.nextafter(scores, towards.astype(np.float32)))


def results(table):
    model = SimpleNamespace(score=lambda user_ids, item_ids: table[user_ids, item_ids])
    lists = evaluate_leave_one_out(model, SPLIT, 3), evaluate_full_ranking(model, TRAIN, TEST, 3)
    return [*lists, evaluate_cold_items(table, TEST, 3)]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, -3.0, 100.0]))
def test_the_last_bit_changes_nothing(seed, offset):
    random = np.random.default_rng(seed)
    items = random.normal(size=(5, 8))[random.integers(0, 5, 20)]  # many equal ones
    scores = (random.normal(size=(20, 8)) @ items.T + offset).astype(np.float32)
    moved = shaken(scores, seed + 1)
    assert (moved != scores).any()
    for before, after in zip(results(scores), results(moved), strict=True):
        np.testing.assert_array_equal(before.ndcg_per_user, after.ndcg_per_user)
    for k in (1, 4, 20):
        np.testing.assert_array_equal(top_k(scores, k), top_k(moved, k))
    assert not any(result.hit_rate for result in results(scores * 0))  # constant scores: no hits


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
