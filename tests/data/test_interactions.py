"""The one data type: what it accepts, that nothing changes it, and how it is split."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from recsys_lib.data import Interactions, Split, make_synthetic, sample_negatives, split_cold_items
from recsys_lib.evaluation import rmse
from recsys_lib.models import EASE
from recsys_lib.serving import TopKIndex

SEEDS = st.integers(0, 5)


@st.composite
def interactions(draw):
    num_users, num_items = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    pair = st.tuples(st.integers(0, num_users - 1), st.integers(0, num_items - 1))
    pairs = draw(st.lists(pair, min_size=1, max_size=40, unique=draw(st.booleans())))
    times = st.lists(st.integers(0, 9) | st.floats(0, 9), min_size=len(pairs), max_size=len(pairs))
    numbers, times = np.arange(len(pairs)), draw(st.none() | times)  # to know the rows again
    return Interactions(*zip(*pairs, strict=True), numbers, times, num_users, num_items)


def rows(*parts):
    return sorted(row for part in parts for row in part.ratings.astype(int).tolist())


def pairs(part):
    return set(zip(part.user_ids.tolist(), part.item_ids.tolist(), strict=True))


DATA = Interactions([0] * 9, list(range(9)), timestamps=list(range(9)))
TWO = Interactions([0, 1], [0, 1])
OTHERS = Interactions([0], [2]), Interactions([2], [0], num_items=2)
FRACTIONS = (0, 1, -0.1, float("nan"))
SPLITS = (DATA.split_random, DATA.split_stratified, DATA.split_by_time)


def make(**change):
    return lambda: Interactions(**{"user_ids": [0, 1], "item_ids": [1, 0]} | change)


def split(*parts, **options):
    return lambda: Split(TWO, *(parts or (TWO,)), **options)


def cold(**options):
    return lambda: split_cold_items(DATA, **options)


OTHER_TYPES = {
    "user_ids": [[0.0, 1.0], np.array([0, 1], object)],
    "item_ids": [["a", "b"], [True, False]],
    "ratings": [["good", "bad"], [True, False], np.array([1, 2], "M8[s]")],
    "timestamps": [[True, False]],
}
MASKED = np.ma.array([0, 1], mask=[False, True])
REFUSED = [
    *((make(**{n: MASKED}), ValueError, f"{n} has 1 masked") for n in OTHER_TYPES),
    (lambda: TWO.take(MASKED), ValueError, "rows has 1 masked"),
    (lambda: rmse(MASKED, [0, 1]), ValueError, "y_true has 1 masked"),
    (lambda: TopKIndex(np.eye(2)).search(np.ma.diag(MASKED), 1), ValueError, "user_vectors has"),
    (lambda: EASE().fit(TWO).score_histories([MASKED]), ValueError, r"histories\[0\] has 1"),
    *((make(**{n: v}), TypeError, f"{n} is of type") for n in OTHER_TYPES for v in OTHER_TYPES[n]),
    (make(user_ids=[], item_ids=[]), ValueError, "user_ids is empty"),
    (make(user_ids=[[0], [1]]), ValueError, r"user_ids has shape \(2, 1\)"),
    (make(user_ids=[0, 1, 1]), ValueError, "item_ids has 2 rows"),
    (make(user_ids=[-1, 1]), ValueError, "user_ids holds -1"),
    (make(item_ids=[0, 7], num_items=7), ValueError, "item_ids holds 7"),
    (make(user_ids=np.array([0, 2**63], np.uint64)), ValueError, "user_ids: row 1 holds 92"),
    (make(num_users=2.0), TypeError, "num_users is 2.0"),
    (make(num_items=-3), ValueError, "num_items is -3"),
    (make(ratings=[1.0, np.nan]), ValueError, r"ratings\[1\] is nan"),
    (make(ratings=[1e39, 2.0]), ValueError, r"ratings\[0\] is inf"),
    (make(timestamps=[1.5, np.nan]), ValueError, "timestamps: row 1 holds nan"),
    (make(timestamps=[1, 2], time_unit="h"), ValueError, "time_unit is 'h'"),
    (make(timestamps=[1, 2, 3]), ValueError, "timestamps has 3 rows"),
    (make(item_names=("one",)), ValueError, "item_names has 1 entries"),
    (make(user_vocabulary=["a"]), ValueError, "user_vocabulary has 1 entries"),
    (lambda: TWO.to_csr("stars"), ValueError, "values is 'stars'"),
    (lambda: TWO.to_csr("ratings"), ValueError, "no ratings"),
    *((lambda r=r: TWO.take(r), ValueError, "rows is empty") for r in ([], np.zeros(2, bool))),
    *((split(negatives=n), ValueError, "negatives has shape") for n in ([[0, 1]], [0, 1])),
    (split(negatives=[[0], [2]]), ValueError, "negatives holds 2"),
    (split(negatives=[[0.0], [1.0]]), TypeError, "negatives is of type float64"),
    *((split(TWO, None, o), ValueError, "expected 2 and 2") for o in OTHERS),
    *((split(o), ValueError, "expected 2 and 2") for o in OTHERS),
    *((lambda f=f, s=s: s(f), ValueError, "test_fraction is") for f in FRACTIONS for s in SPLITS),
    *((cold(test_fraction=f), ValueError, "test_fraction is") for f in FRACTIONS),
    *((cold(validation_fraction=f), ValueError, "validation_fraction is") for f in FRACTIONS),
    (cold(test_fraction=0.6, validation_fraction=0.5), ValueError, "add up to"),
    (cold(min_interactions=99), ValueError, "enough for one in test"),
    *((lambda n=n: DATA.split_folds(n), ValueError, f"num_folds is {n}") for n in (1, 10)),
]


@pytest.mark.parametrize("call, error, word", REFUSED)
def test_refuses(call, error, word):
    with pytest.raises(error, match=word):
        call()


def test_accepts_and_keeps():
    users = np.array([0, 1], np.uint8)
    times, names = np.array([7, 8], np.int32), ["a", "b"]
    data = Interactions(users, (1, 0), [5, 3], times, np.int64(4), item_names=names)
    users[0] = 1
    assert data.user_ids.tolist() == [0, 1]
    assert (data.num_users, data.num_items, len(data), data.density) == (4, 2, 2, 2 / 8)
    assert (data.user_ids.dtype, data.ratings.dtype) == (np.int64, np.float32)
    assert (data.timestamps.dtype, data.item_names) == (np.int64, ("a", "b"))
    with pytest.raises(ValueError, match="read-only"):
        data.ratings[0] = 9
    with pytest.raises(AttributeError):
        data.num_users = 9
    split = Split(TWO, TWO, negatives=[[1], [0]], name="mine")
    assert (split.num_users, split.num_items, split.is_synthetic) == (2, 2, False)
    assert "'mine', 2 rows for training, 2 for testing, 1 negatives each" in repr(split)


def test_repeated_and_very_many_pairs():
    data = Interactions([0, 0, 1], [1, 1, 0], ratings=[5, 2, 4])
    assert data.to_csr().toarray().tolist() == [[0, 1], [1, 0]]
    assert data.to_csr("count").toarray().tolist() == [[0, 2], [1, 0]]
    assert data.to_csr("ratings").toarray().tolist() == [[0, 2], [4, 0]]
    assert data.density == 0.5
    data = Interactions([0, 1, 0, 4], [0, 2, 2**62 - 1, 0], num_items=2**62)
    assert data.to_csr().nnz == 4  # user * num_items + item would wrap: 4 * 2**62 is 0
    assert data.density == 4 / (5 * 2**62)


@given(interactions(), st.data())
def test_counts_lists_and_parts(data, draw):
    assert data.to_csr("count").sum() == len(data)
    assert data.to_csr().nnz == len(pairs(data))
    assert data.to_csr().shape == (data.num_users, data.num_items)
    lists = [data.item_ids[data.user_ids == user].tolist() for user in range(data.num_users)]
    assert [items.tolist() for items in data.items_by_user()] == lists
    kept = draw.draw(st.lists(st.integers(0, len(data) - 1), min_size=1, max_size=9))
    part = data.take(kept)
    assert part.user_ids.tolist() == data.user_ids[kept].tolist()
    assert part.ratings.tolist() == kept
    assert part.to_csr().shape == data.to_csr().shape
    assert rows(data.take(np.isin(np.arange(len(data)), kept))) == sorted(set(kept))


@given(interactions(), SEEDS)
def test_leave_one_out(data, seed):
    items = Counter(user for user, _ in pairs(data))
    users = sorted(user for user, count in items.items() if count >= 2)
    if not users:
        with pytest.raises(ValueError, match="no user with two different items"):
            data.split_leave_one_out(seed)
        return
    train, test = data.split_leave_one_out(seed)
    assert sorted(test.user_ids.tolist()) == users  # one row each, no others
    assert pairs(train) == pairs(data) - pairs(test) and pairs(test) <= pairs(data)
    assert not set(rows(train)) & set(rows(test))
    if len(pairs(data)) == len(data):
        assert rows(train, test) == rows(data)
    assert set(train.user_ids) == set(data.user_ids)  # all keep something to learn from
    if data.timestamps is not None:
        for user, time in zip(test.user_ids, test.timestamps, strict=True):
            assert time == data.timestamps[data.user_ids == user].max()


def test_leave_one_out_by_hand():
    for items, times, kept, tested in (
        ([2, 0, 1], [3, 3, 1], [2, 1], 0),  # the last row among equal times
        ([1, 2, 1], [1, 2, 3], [2], 1),  # earlier rows of the answer are dropped
    ):
        train, test = Interactions([0] * 3, items, None, times).split_leave_one_out()
        assert (train.item_ids.tolist(), test.item_ids.tolist()) == (kept, [tested])
        assert test.timestamps.tolist() == [3]
    data = Interactions([0] * 50, list(range(50)))  # without times the seed decides
    assert len({int(data.split_leave_one_out(seed)[1].item_ids[0]) for seed in range(20)}) > 5


@given(interactions(), st.floats(0.05, 0.95), SEEDS)
def test_fractions(data, fraction, seed):
    """Random rows, the same share of each user's rows, or all from one moment on."""
    num_test = round(len(data) * fraction)
    count = Counter(data.user_ids.tolist())
    wanted = {u: min(int(np.floor(n * fraction + 0.5)), n - 1) for u, n in count.items()}
    newest = None if data.timestamps is None else np.sort(data.timestamps)[-max(1, num_test)]
    cannot = {
        "random": num_test in (0, len(data)) and "leaves a part empty",
        "stratified": not any(wanted.values()) and "no user has rows enough",
        "by_time": "no timestamps",
    }
    if newest is not None:  # ties may reach to the start
        cannot["by_time"] = newest == data.timestamps.min() and "leaves no row"
    for kind, word in cannot.items():
        split = getattr(data, f"split_{kind}")
        options = {} if kind == "by_time" else {"seed": seed}
        if word:
            with pytest.raises(ValueError, match=word):
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


@given(interactions(), st.integers(2, 6), SEEDS)
def test_folds(data, num_folds, seed):
    assume(num_folds <= len(data))
    folds = list(data.split_folds(num_folds, seed))
    for train, test in folds:
        assert rows(train, test) == rows(data)
        assert len(test) in (len(data) // num_folds, -(-len(data) // num_folds))
    assert rows(*(test for _, test in folds)) == rows(data)


@pytest.mark.parametrize("with_ids", [False, True])
def test_cold_items(with_ids):
    """No item and no row is in two parts."""
    log = make_synthetic("music")
    ids = {"item_vocabulary": np.arange(log.num_items)} if with_ids else {}
    log = Interactions(log.user_ids, log.item_ids, item_names=log.item_names, name="mine", **ids)
    split, again, other = (split_cold_items(log, seed=seed) for seed in (1, 1, 2))
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
    np.testing.assert_array_equal(again.test.item_vocabulary, split.test.item_vocabulary)
    assert not np.array_equal(other.test.item_vocabulary, split.test.item_vocabulary)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 5))
def test_sampled_negatives(seed, num_negatives):
    """They are unseen and different."""
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
    for count, word in ((40, "num_negatives is 40: user"), (0, "num_negatives is 0")):
        with pytest.raises(ValueError, match=word):
            sample_negatives(train, test, count)
