"""The full ranking of the running example takes seconds, not minutes."""

import time

import numpy as np
import pytest

from recsys_lib.data import Interactions
from recsys_lib.evaluation import evaluate_full_ranking


class Factors:
    def __init__(self, rng, num_users, num_items, embedding_dim):
        self.users = rng.normal(size=(num_users, embedding_dim)).astype(np.float32)
        self.items = rng.normal(size=(num_items, embedding_dim)).astype(np.float32)

    def score(self, user_ids, item_ids):
        return np.einsum("nd,nd->n", self.users[user_ids], self.items[item_ids])

    def score_all_items(self, user_ids):
        return self.users[user_ids] @ self.items.T


@pytest.mark.slow
def test_full_ranking_of_six_thousand_users():
    rng = np.random.default_rng(0)
    num_users, num_items, num_rows = 6040, 3704, 1_000_000
    data = Interactions(
        rng.integers(0, num_users, num_rows),
        rng.integers(0, num_items, num_rows),
        num_users=num_users,
        num_items=num_items,
    )
    train, test = data.split_leave_one_out()
    model = Factors(rng, num_users, num_items, 192)
    start = time.process_time()
    result = evaluate_full_ranking(model, train, test, k=10)
    assert time.process_time() - start < 6  # CPU seconds: three on two cores, however busy
    assert result.num_users == num_users
