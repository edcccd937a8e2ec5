"""Equal scores: one rule, and the last bit of a score decides nothing."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_lib.data import Interactions, Split, sample_negatives
from recsys_lib.evaluation import evaluate_cold_items, evaluate_full_ranking, evaluate_leave_one_out
from recsys_lib.models import Factors, top_k

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
