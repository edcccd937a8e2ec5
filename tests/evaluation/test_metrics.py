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
