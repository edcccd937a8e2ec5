"""Changes with intervals: by hand, by simulation, and what must not be compared."""

import numpy as np
import pytest

from recsys_lib.data import Interactions
from recsys_lib.evaluation import (
    Change,
    RankingResult,
    evaluate_full_ranking,
    paired_change,
    segments,
    thirds,
)
from recsys_lib.models import Factors


def result(values, users=None):
    values = np.asarray(values, float)
    users = np.arange(len(values)) if users is None else users
    return RankingResult(10, "toy", users, *[values] * 3)


def test_certified():
    cases = (-0.009, 0.001), (-0.011, 0.001), (-0.009, 0.02), (0.041, 0.059), (np.nan, np.nan)
    found = [Change(np.mean(ends), *ends).certified(0.01) for ends in cases]
    assert found == [True, False, False, True, False]  # the third is too wide to say


def test_the_interval_is_that_of_the_paired_ratio():
    rng = np.random.default_rng(0)
    before = rng.uniform(0, 1, 2000)
    after = before * 0.98 + rng.normal(0, 0.02, 2000)
    found = paired_change(result(after), result(before))
    assert found.value == pytest.approx(after.sum() / before.sum() - 1)
    ratio = after.sum() / before.sum()
    deviation = (after - ratio * before).std() / np.sqrt(2000) / before.mean()
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * deviation, rel=0.12)
    assert found.low < found.value < found.high
    unpaired = paired_change(result(rng.permutation(after)), result(before))
    assert unpaired.high - unpaired.low > 10 * (found.high - found.low)


def test_weights_and_users_with_two_rows():
    users = np.array([3, 3, 5])
    before, after = result([1, 1, 1], users), result([0, 1, 1], users)
    found = paired_change(after, before, "recall", weights=[2.0, 1.0, 1.0])
    assert found.value == pytest.approx(-0.5)
    assert (found.low, found.high) == pytest.approx((-2 / 3, 0))  # only the one, only the other


def test_seeds_widen_the_interval():
    users = np.ones(400)
    before = [result(users)] * 3
    after = [result(users * factor) for factor in (0.97, 1.0, 1.03)]
    found = paired_change(after, before)
    assert found.value == pytest.approx(0)
    assert found.low < -0.015 and found.high > 0.015
    assert paired_change(after, before[0]) == found
    assert paired_change(after[0], before[0]).low == pytest.approx(-0.03)


@pytest.mark.parametrize(
    ("after", "before", "options", "message"),
    [
        (result([1, 1]), result([1, 1, 1]), {}, "same users"),
        (result([1, 1]), result([1, 1], np.array([1, 0])), {}, "same users"),
        ([result([1])] * 2, [result([1])] * 3, {}, "2 and 3 results"),
        (result([1]), result([0]), {}, "before has a ndcg of 0"),
        (result([1]), result([1]), {"metric": "mrr"}, "metric is 'mrr'"),
        (result([1]), result([1]), {"weights": [1.0, 2.0]}, "weights has shape"),
    ],
)
def test_what_cannot_be_compared(after, before, options, message):
    with pytest.raises(ValueError, match=message):
        paired_change(after, before, **options)


def test_thirds():
    groups, names = thirds([1, 1, 2, 3, 3, 90], [1, 1, 2, 3, 3, 90])
    assert groups.tolist() == [0, 0, 0, 0, 0, 0] and names[0] == "up to 90"
    counts = np.arange(1, 100)
    groups, names = thirds(counts, counts)
    shares = np.bincount(groups, counts) / counts.sum()
    assert np.abs(shares - 1 / 3).max() < 0.02
    assert names[1].split()[-1] == str(counts[groups == 1].max())


def test_segments_find_who_pays():
    rng = np.random.default_rng(1)
    users = np.repeat(np.arange(300), rng.integers(5, 20, 300))
    items = (60 * rng.uniform(size=len(users)) ** 2).astype(int)
    train, test = Interactions(users, items, num_items=60).split_stratified(0.3, seed=0)
    tastes = (test.to_csr().toarray() + 0.01).astype(np.float32)
    counts = np.bincount(train.item_ids, minlength=60)
    rare = thirds(counts, counts)[0] == 0
    items = (np.eye(60), np.diag(np.where(rare, 0, 1)))
    both, no_tail = (Factors(vectors.astype(np.float32), tastes) for vectors in items)
    frame = segments([no_tail], [both], train, test, 30, metric="recall")
    assert frame["side"].tolist() == ["items"] * 3 + ["users"] * 3
    of_items = frame[frame["side"] == "items"]
    assert of_items["after"].iloc[0] == 0 and of_items["change"].iloc[0] == -1
    assert of_items["change"].iloc[1:].abs().max() < 0.05
    whole = evaluate_full_ranking(both, train, test, 30)
    of_users = frame[frame["side"] == "users"]
    assert of_users["users"].sum() == whole.num_users
    mean = (of_users["before"] * of_users["users"]).sum() / whole.num_users
    assert mean == pytest.approx(whole.recall)
