from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recsys_lib.models import top_k

# Few different values, so that ties happen.
SCORES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 12)),
    elements=st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0]),
)


@settings(max_examples=200, deadline=None)
@given(SCORES, st.integers(1, 15))
def test_equals_a_full_stable_sort(scores, k):
    expected = np.full((len(scores), k), -1)
    for row, values in enumerate(scores.tolist()):
        ranked = sorted(range(len(values)), key=lambda column: (-values[column], column))
        ranked = [column for column in ranked if values[column] > -np.inf][:k]
        expected[row, : len(ranked)] = ranked
    np.testing.assert_array_equal(top_k(scores, k), expected)


def test_scores_stay_and_may_be_empty():
    scores = np.array([[1.0, 3.0, 2.0]])
    top_k(scores, 2)
    assert scores.tolist() == [[1.0, 3.0, 2.0]]
    assert top_k(np.zeros((0, 4)), 2).shape == (0, 2)
    assert top_k(np.zeros((2, 0)), 2).tolist() == [[-1, -1], [-1, -1]]


@pytest.mark.parametrize(
    ("scores", "k", "message"),
    [
        ([[1.0, np.nan]], 1, "scores holds 1 NaN"),
        ([1.0, 2.0], 1, "two dimensions"),
        *(([[1.0]], k, f"k is {k}") for k in (0, 1.5, True)),
    ],
)
def test_bad_arguments(scores, k, message):
    with pytest.raises((TypeError, ValueError), match=message):
        top_k(scores, k)
