"""Splits: the parts make up the whole, and the answer is never in the training part."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_lib.data import Interactions, make_synthetic, sample_negatives, split_cold_items


@st.composite
def interactions(draw):
    num_users, num_items = draw(st.integers(1, 6)), draw(st.integers(2, 8))
    pair = st.tuples(st.integers(0, num_users - 1), st.integers(0, num_items - 1))
    pairs = draw(st.lists(pair, min_size=2, max_size=40, unique=draw(st.booleans())))
    times = st.lists(st.integers(0, 9) | st.floats(0, 9), min_size=len(pairs), max_size=len(pairs))
    return Interactions(
        user_ids=[user for user, _ in pairs],
        item_ids=[item for _, item in pairs],
        ratings=np.arange(len(pairs)),  # the number of the row, to know it again
        timestamps=draw(st.none() | times),
        num_users=num_users,
        num_items=num_items,
    )


def rows(*parts):
    return sorted(row for part in parts for row in part.ratings.astype(int).tolist())


def pairs(part):
    return set(zip(part.user_ids.tolist(), part.item_ids.tolist(), strict=True))


@given(interactions(), st.integers(0, 5))
def test_leave_one_out(data, seed):
    items = Counter(user for user, _ in pairs(data))
    users = sorted(user for user, count in items.items() if count >= 2)
    if not users:
        with pytest.raises(ValueError, match="no user with two different items"):
            data.split_leave_one_out(seed)
        return
    train, test = data.split_leave_one_out(seed)
    assert sorted(test.user_ids.tolist()) == users  # one row each, no others
    assert not pairs(train) & pairs(test)
    assert pairs(train) | pairs(test) == pairs(data)
    assert not set(rows(train)) & set(rows(test))
    if len(pairs(data)) == len(data):
        assert rows(train, test) == rows(data)
    # Every user keeps something to learn from.
    assert set(train.user_ids.tolist()) == set(data.user_ids.tolist())
    if data.timestamps is not None:
        for user, time in zip(test.user_ids, test.timestamps, strict=True):
            assert time == data.timestamps[data.user_ids == user].max()


@pytest.mark.parametrize(
    ("item_ids", "timestamps", "kept", "tested"),
    [
        ([2, 0, 1], [3, 3, 1], [2, 1], 0),  # the last row among equal times
        ([1, 2, 1], [1, 2, 3], [2], 1),  # earlier rows of the answer are dropped
    ],
)
def test_leave_one_out_by_hand(item_ids, timestamps, kept, tested):
    train, test = Interactions([0] * 3, item_ids, None, timestamps).split_leave_one_out()
    assert (train.item_ids.tolist(), test.item_ids.tolist()) == (kept, [tested])
    assert test.timestamps.tolist() == [3]
    data = Interactions([0] * 50, list(range(50)))  # without times the seed decides
    held_out = {int(data.split_leave_one_out(seed)[1].item_ids[0]) for seed in range(20)}
    assert len(held_out) > 5


@given(interactions(), st.floats(0.05, 0.95), st.integers(0, 5))
def test_fractions(data, fraction, seed):
    """Random rows, the same share of each user's rows, or all from one moment on."""
    num_test = round(len(data) * fraction)
    count = Counter(data.user_ids.tolist())
    wanted = {u: min(int(np.floor(n * fraction + 0.5)), n - 1) for u, n in count.items()}
    newest = None if data.timestamps is None else np.sort(data.timestamps)[-max(1, num_test)]
    cannot = {
        "random": num_test in (0, len(data)) and "leaves a part empty",
        "stratified": not any(wanted.values()) and "no user has enough rows",
        "by_time": "no timestamps",
    }
    if newest is not None:  # ties may reach to the start
        cannot["by_time"] = newest == data.timestamps.min() and "leaves no row"
    for kind, message in cannot.items():
        split = getattr(data, f"split_{kind}")
        options = {} if kind == "by_time" else {"seed": seed}
        if message:
            with pytest.raises(ValueError, match=message):
                split(fraction, **options)
            continue
        train, test = split(fraction, **options)
        assert rows(train, test) == rows(data)
        assert rows(split(fraction, **options)[1]) == rows(test) == test.ratings.tolist()
        if kind == "random":
            assert len(test) == num_test
        elif kind == "stratified":
            assert +Counter(test.user_ids.tolist()) == +Counter(wanted)
            assert set(train.user_ids.tolist()) == set(count)
        else:
            assert train.timestamps.max() < test.timestamps.min()
            assert len(test) >= num_test


@given(interactions(), st.integers(2, 6), st.integers(0, 5))
def test_folds(data, num_folds, seed):
    if num_folds > len(data):
        with pytest.raises(ValueError, match=f"num_folds is {num_folds}"):
            data.split_folds(num_folds, seed)
        return
    folds = list(data.split_folds(num_folds, seed))
    for train, test in folds:
        assert rows(train, test) == rows(data)
        assert len(test) in (len(data) // num_folds, -(-len(data) // num_folds))
    assert rows(*(test for _, test in folds)) == rows(data)


def test_bad_arguments():
    data = Interactions([0] * 9, list(range(9)), timestamps=list(range(9)))
    for fraction in (0, 1, -0.1, float("nan")):
        for split in (data.split_random, data.split_stratified, data.split_by_time):
            with pytest.raises(ValueError, match="test_fraction is"):
                split(fraction)
        for name in ("test_fraction", "validation_fraction"):
            with pytest.raises(ValueError, match=f"{name} is"):
                split_cold_items(data, **{name: fraction})
    with pytest.raises(ValueError, match="num_folds is"):
        data.split_folds(1)
    with pytest.raises(ValueError, match="add up to"):
        split_cold_items(data, test_fraction=0.6, validation_fraction=0.5)
    with pytest.raises(ValueError, match="expected enough for one in test"):
        split_cold_items(data, min_interactions=10**9)


@pytest.mark.parametrize("with_ids", [False, True])
def test_no_item_and_no_row_is_in_two_parts(with_ids):
    log, ids = make_synthetic("music"), {}
    if with_ids:
        ids = {"item_vocabulary": np.arange(log.num_items)}
    log = Interactions(log.user_ids, log.item_ids, item_names=log.item_names, name="mine", **ids)
    split = split_cold_items(log, seed=1)
    parts = (split.train, split.validation, split.test)
    items = np.concatenate([part.item_vocabulary for part in parts])
    counts = np.bincount(log.item_ids, minlength=log.num_items)
    assert len(np.unique(items)) == len(items) == (counts >= 5).sum()
    assert sum(map(len, parts)) == counts[counts >= 5].sum()
    assert [p.num_items / len(items) for p in parts] == pytest.approx([0.7, 0.1, 0.2], abs=1e-3)
    for part in parts:
        assert (part.num_users, part.name) == (log.num_users, "mine")
        assert np.bincount(part.item_ids).min() >= 5  # nothing of an item was lost
        assert part.item_names == tuple(log.item_names[i] for i in part.item_vocabulary)
    again, other = split_cold_items(log, seed=1), split_cold_items(log, seed=2)
    np.testing.assert_array_equal(again.test.item_vocabulary, split.test.item_vocabulary)
    assert not np.array_equal(other.test.item_vocabulary, split.test.item_vocabulary)


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
    for count, message in ((40, "num_negatives is 40: user"), (0, "num_negatives is 0")):
        with pytest.raises(ValueError, match=message):
            sample_negatives(train, test, count)
