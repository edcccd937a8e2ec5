"""The full ranking of the running example takes seconds, not minutes."""

import time

import numpy as np
import pytest

from recsys_lib.data import Interactions
from recsys_lib.evaluation import evaluate_full_ranking
from recsys_lib.models import Factors


@pytest.mark.slow
def test_full_ranking_of_six_thousand_users():
    rng, counts, rows = np.random.default_rng(0), (6040, 3704), 1_000_000
    users, items = (rng.integers(0, count, rows) for count in counts)
    data = Interactions(users, items, num_users=counts[0], num_items=counts[1])
    train, test = data.split_leave_one_out()
    tables = [rng.normal(size=(count, 192)).astype(np.float32) for count in counts]
    model = Factors(tables[1], tables[0])
    start = time.process_time()
    result = evaluate_full_ranking(model, train, test, k=10)
    assert time.process_time() - start < 6  # CPU seconds: three on two cores, however busy
    assert result.num_users == counts[0]
