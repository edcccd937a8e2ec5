"""Sampled negatives: unseen, different, the same for the same seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_lib.data import Interactions, sample_negatives


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 5))
def test_sampled_negatives_are_unseen_and_different(seed, num_negatives):
    rng = np.random.default_rng(seed)
    data = Interactions(rng.integers(0, 9, 60), rng.integers(0, 40, 60), num_items=40)
    train, test = data.split_leave_one_out(seed)
    negatives = sample_negatives(train, test, num_negatives, seed)
    known = (train.to_csr() + test.to_csr()).toarray() > 0
    assert negatives.shape == (len(test), num_negatives)
    for user, row in zip(test.user_ids, negatives, strict=True):
        assert len(set(row.tolist())) == num_negatives
        assert not known[user, row].any()
    np.testing.assert_array_equal(negatives, sample_negatives(train, test, num_negatives, seed))


def test_sampled_negatives_must_exist():
    train, test = Interactions([0, 0, 0], [0, 1, 2]).split_leave_one_out()
    with pytest.raises(ValueError, match="only 0 unseen items"):
        sample_negatives(train, test, 1)
    with pytest.raises(ValueError, match="num_negatives is 0"):
        sample_negatives(train, test, 0)
