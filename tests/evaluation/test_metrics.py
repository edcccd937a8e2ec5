"""Metrics: by hand, as properties, and bad input."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recsys_lib.evaluation import hit_rate_at_k, mae, ndcg_at_k, recall_at_k, rmse

lists = hnp.arrays(
    np.int64, st.tuples(st.integers(1, 6), st.integers(3, 12)), elements=st.integers(0, 1)
)


def test_ratings_by_hand():
    assert rmse([4, 2, 5], [3, 2, 3]) == pytest.approx(math.sqrt(5 / 3))
    assert mae([4, 2, 5], [3, 2, 3]) == pytest.approx(1.0)


def test_lists_by_hand():
    relevance = [[1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    count = [3, 1, 2]
    assert hit_rate_at_k(relevance, 3).tolist() == [1, 0, 0]
    assert recall_at_k(relevance, 3, count) == pytest.approx([2 / 3, 0, 0])
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    assert ndcg_at_k(relevance, 3, count) == pytest.approx([1.5 / ideal, 0, 0])
    assert ndcg_at_k(relevance, 4, count)[1] == pytest.approx(1 / math.log2(5))


@given(lists, st.integers(0, 5))
def test_properties(relevance, extra):
    length = relevance.shape[1]
    count = np.maximum(relevance.sum(axis=1) + extra, 1)
    previous_hit, previous_recall = 0.0, 0.0
    for k in range(1, length + 1):
        hit, recall, ndcg = (
            hit_rate_at_k(relevance, k),
            recall_at_k(relevance, k, count),
            ndcg_at_k(relevance, k, count),
        )
        for values in (hit, recall, ndcg):
            assert ((values >= 0) & (values <= 1)).all()
        assert ((ndcg > 0) == (hit > 0)).all()  # a gain needs a hit, a hit gives a gain
        assert (hit >= previous_hit).all()
        assert (recall >= previous_recall).all()
        previous_hit, previous_recall = hit, recall


@given(lists)
def test_moving_a_hit_up_never_lowers_ndcg(relevance):
    best_first = -np.sort(-relevance, axis=1)
    count = np.maximum(relevance.sum(axis=1), 1)
    k = relevance.shape[1]
    assert (ndcg_at_k(best_first, k, count) >= ndcg_at_k(relevance, k, count) - 1e-12).all()
    has = relevance.any(axis=1)
    assert ndcg_at_k(best_first, k, count)[has] == pytest.approx(1)


@pytest.mark.parametrize("metric", [rmse, mae])
@pytest.mark.parametrize(
    ("y_true", "y_pred", "message"),
    [
        ([1, 2], [1], "y_true"),
        ([1, 2], [[1], [2]], "y_pred"),
        ([], [], "y_true"),
        ([1, np.nan], [1, 2], "y_true"),
        ([1, 2], [np.inf, 2], "y_pred"),
    ],
)
def test_rating_metrics_refuse(metric, y_true, y_pred, message):
    with pytest.raises(ValueError, match=message):
        metric(y_true, y_pred)


@pytest.mark.parametrize("k", [0, -1, 2.0, True, 3])
def test_k_out_of_range(k):
    with pytest.raises((TypeError, ValueError), match="k"):
        hit_rate_at_k([[0, 1]], k)


def test_relevance_must_be_binary():
    with pytest.raises(ValueError, match="other than 0 and 1"):
        hit_rate_at_k([[0, 2]], 1)


@pytest.mark.parametrize("count", [[0], [1, 1], [1]])
def test_number_of_relevant_items_must_fit(count):
    with pytest.raises(ValueError, match="num_relevant"):
        recall_at_k([[1, 1]], 2, count)
