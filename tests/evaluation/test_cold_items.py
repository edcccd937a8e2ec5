"""The ranking of cold items against the ranking of the whole catalogue."""

from __future__ import annotations

import numpy as np
import pytest

from recsys_lib.data import Interactions
from recsys_lib.evaluation import evaluate_full_ranking
from recsys_lib.evaluation import evaluate_cold_items


def test_equal_to_the_full_ranking_with_all_other_items_at_minus_infinity() -> None:
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 20, 300), rng.integers(0, 40, 300)
    cold = items < 25
    scores = rng.normal(size=(20, 25))
    test = Interactions(users[cold], items[cold], num_users=20, num_items=25)

    class Whole:
        def score_all_items(self, rows: np.ndarray) -> np.ndarray:
            return np.hstack([scores, np.full((20, 15), -np.inf)])[rows]

        def score(self, user_ids: np.ndarray, item_ids: np.ndarray) -> np.ndarray:
            return self.score_all_items(user_ids)[np.arange(len(item_ids)), item_ids]

    parts = [
        Interactions(users[rows], items[rows], num_users=20, num_items=40) for rows in (~cold, cold)
    ]
    expected = evaluate_full_ranking(Whole(), *parts, k=5)
    found = evaluate_cold_items(scores, test, k=5)
    np.testing.assert_array_equal(found.user_ids, expected.user_ids)
    np.testing.assert_allclose(found.ndcg_per_user, expected.ndcg_per_user)
    np.testing.assert_allclose(found.recall_per_user, expected.recall_per_user)


def test_wrong_arguments() -> None:
    test = Interactions([0, 1], [1, 0], num_items=3)
    with pytest.raises(ValueError, match=r"scores has shape \(2, 2\): expected \(2, 3\)"):
        evaluate_cold_items(np.zeros((2, 2)), test)
    with pytest.raises(ValueError, match="scores holds 6 NaN"):
        evaluate_cold_items(np.full((2, 3), np.nan), test, k=1)
    with pytest.raises(ValueError, match="k is 10: expected at most 3"):
        evaluate_cold_items(np.zeros((2, 3)), test)
