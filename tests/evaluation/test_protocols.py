"""Protocols: by hand, against a slow and obvious version, ties, NaN, and bad input."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_lib.data import Interactions, Split, sample_negatives
from recsys_lib.evaluation import (
    RankingResult,
    evaluate_cold_items,
    evaluate_full_ranking,
    evaluate_leave_one_out,
    evaluate_ratings,
)


class Table:
    """A model we did not write: scores from a table, by pairs only."""

    def __init__(self, table):
        self.table = np.asarray(table)

    def score(self, user_ids, item_ids):
        return self.table[user_ids, item_ids]


class FastTable(Table):
    def score_all_items(self, user_ids):
        return self.table[user_ids]


def make_split(negatives):
    train, test = (Interactions([0], [item], num_items=5) for item in (4, 0))
    return Split(train, test, negatives=negatives)


def test_by_hand():
    split = make_split([[1, 2, 3]])
    model = Table([[0.5, 0.9, 0.1, 0.7, 0.0]])
    result = evaluate_leave_one_out(model, split, k=3)
    assert (result.hit_rate, result.recall) == (1.0, 1.0)
    assert result.ndcg == pytest.approx(1 / np.log2(4))  # third of four
    assert evaluate_leave_one_out(model, split, k=2).hit_rate == 0
    # A negative that is the target or a repeat counts once.
    result = evaluate_leave_one_out(model, make_split([[0, 1, 1, 2]]), k=2)
    assert result.ndcg == pytest.approx(1 / np.log2(3))  # only item 1 is ahead, once
    # Minus infinity is never recommended, and the model keeps its scores.
    model = Table([[-np.inf, 0.0, 0.0, 0.0, 0.0]])
    before = model.table.copy()
    assert evaluate_full_ranking(model, split.train, split.test, k=5).hit_rate == 0
    np.testing.assert_array_equal(model.table, before)
    test, model = Interactions([0, 0], [0, 1], ratings=[5, 1]), Table([[7.0, 2.0]])
    result = evaluate_ratings(model, test)
    assert (result.rmse, result.mae) == (pytest.approx(np.sqrt(2.5)), 1.5)
    assert evaluate_ratings(model, test, clip=(1, 5)).mae == 0.5


def slow_full_ranking(table, train, test, k, exclude_seen):
    """One user at a time, one sort, no cleverness."""
    pairs = zip(train.user_ids, train.item_ids, strict=True)
    seen, found = set(pairs) if exclude_seen else set(), {}
    for user in np.unique(test.user_ids):
        truth = {i for u, i in zip(test.user_ids, test.item_ids, strict=True) if u == user}
        truth = {i for i in truth if (user, i) not in seen}
        if not truth:
            continue
        items = [i for i in range(train.num_items) if (user, i) not in seen]
        # Best first; at the same score the relevant come last.
        items.sort(key=lambda i, user=user, truth=truth: (-table[user, i], i in truth))
        rel = np.array([i in truth for i in items] + [False] * k)[:k]
        discount = 1 / np.log2(np.arange(k) + 2)
        ideal = discount[: min(k, len(truth))].sum()
        found[user] = (rel.any(), rel.sum() / len(truth), (rel * discount).sum() / ideal)
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000), st.integers(2, 8), st.integers(2, 9), st.integers(2, 4), st.booleans()
)
def test_full_ranking_equals_the_slow_version(seed, num_users, num_items, levels, exclude_seen):
    rng = np.random.default_rng(seed)
    rows = rng.integers(2, 30)
    users, items = rng.integers(0, num_users, rows), rng.integers(0, num_items, rows)
    data = Interactions(users, items, num_users=num_users, num_items=num_items)
    train, test = data.split_random(test_fraction=0.5, seed=seed)
    table = rng.integers(0, levels, (num_users, num_items)).astype("float32")  # many ties
    k = int(rng.integers(1, num_items + 1))
    expected = slow_full_ranking(table, train, test, k, exclude_seen)
    if not expected:
        with pytest.raises(ValueError, match="no pair that is not in train"):
            evaluate_full_ranking(Table(table), train, test, k)
        return
    for model in (Table(table), FastTable(table)):
        result = evaluate_full_ranking(model, train, test, k, exclude_seen=exclude_seen)
        assert result.user_ids.tolist() == sorted(expected)
        values = np.array([expected[u] for u in result.user_ids], float).T
        found = result.hit_rate_per_user, result.recall_per_user, result.ndcg_per_user
        np.testing.assert_allclose(found, values)


def test_batches_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    data = Interactions(rng.integers(0, 50, 400), rng.integers(0, 30, 400))
    train, test = data.split_leave_one_out()
    split = Split(train, test, negatives=sample_negatives(train, test, 9))
    model = FastTable(rng.normal(size=(data.num_users, data.num_items)))
    whole = evaluate_full_ranking(model, train, test), evaluate_leave_one_out(model, split)
    monkeypatch.setattr("recsys_lib.evaluation.protocols._PAIRS_PER_BATCH", 70)
    parts = evaluate_full_ranking(model, train, test), evaluate_leave_one_out(model, split)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(a.ndcg_per_user, b.ndcg_per_user)


def test_cold_items_equal_the_full_ranking_with_all_others_at_minus_infinity():
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 20, 300), rng.integers(0, 40, 300)
    cold, scores = items < 25, rng.normal(size=(20, 25))
    whole = FastTable(np.hstack([scores, np.full((20, 15), -np.inf)]))
    counts = {"num_users": 20, "num_items": 40}
    parts = [Interactions(users[rows], items[rows], **counts) for rows in (~cold, cold)]
    expected = evaluate_full_ranking(whole, *parts, k=5)
    test = Interactions(users[cold], items[cold], num_users=20, num_items=25)
    found = evaluate_cold_items(scores, test, k=5)
    np.testing.assert_array_equal(found.user_ids, expected.user_ids)
    np.testing.assert_allclose(found.ndcg_per_user, expected.ndcg_per_user)
    np.testing.assert_allclose(found.recall_per_user, expected.recall_per_user)


SPLIT = make_split([[1, 2, 3]])
PARTS = SPLIT.train, SPLIT.test
ZEROS = Table(np.zeros((1, 5)))
NAN = [Kind([[np.nan, 0, 0, 0, 0]]) for Kind in (Table, FastTable)]
COLUMN = SimpleNamespace(score=lambda user_ids, item_ids: np.zeros((len(user_ids), 1)))


@pytest.mark.parametrize(
    ("evaluate", "arguments", "word"),
    [
        *((evaluate_leave_one_out, (model, SPLIT, 3), "1 NaN") for model in NAN),
        *((evaluate_full_ranking, (model, *PARTS, 3), "1 NaN") for model in NAN),
        (evaluate_leave_one_out, (COLUMN, SPLIT, 3), r"score has shape \(4, 1\)"),
        (evaluate_full_ranking, (COLUMN, *PARTS, 3), r"\(5,\)"),
        (evaluate_leave_one_out, (ZEROS, Split(*PARTS)), "negatives is None"),
        (evaluate_leave_one_out, (ZEROS, SPLIT), "k is"),
        (evaluate_full_ranking, (ZEROS, *PARTS, 6), "k is"),
        (evaluate_cold_items, (ZEROS.table, PARTS[1], 6), "k is"),
        (evaluate_ratings, (ZEROS, PARTS[1]), "no ratings"),
        (evaluate_full_ranking, (ZEROS, PARTS[0], PARTS[0]), "no pair that is not in train"),
        (evaluate_full_ranking, (ZEROS, PARTS[0], Interactions([0], [0])), "test counts"),
        *((evaluate_cold_items, ([row], PARTS[1], 1), "scores") for row in ([1.0], [np.nan] * 5)),
    ],
)
def test_refuses(evaluate, arguments, word):
    with pytest.raises(ValueError, match=word):
        evaluate(*arguments)


def test_intervals():
    values = np.random.default_rng(0).random(300)
    result = RankingResult(10, "toy", np.arange(300), values, values, values)
    low, high = result.confidence_interval("ndcg")
    narrow = result.confidence_interval("ndcg", level=0.5)
    assert low < narrow[0] < result.ndcg < narrow[1] < high
    # The standard error by hand.
    assert high - result.ndcg == pytest.approx(1.959964 * values.std(ddof=1) / len(values) ** 0.5)
    for name, arguments in (("metric", ("auc",)), ("level", ("ndcg", 95))):
        with pytest.raises(ValueError, match=name):
            result.confidence_interval(*arguments)
