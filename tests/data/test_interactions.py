"""The one data type: what it accepts, what it refuses, and that nothing changes it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_lib.data import Interactions, Split


@st.composite
def interactions(draw):
    num_users, num_items = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    pair = st.tuples(st.integers(0, num_users - 1), st.integers(0, num_items - 1))
    pairs = draw(st.lists(pair, min_size=1, max_size=40))
    seconds = st.lists(st.integers(0, 9), min_size=len(pairs), max_size=len(pairs))
    return Interactions(
        user_ids=[user for user, _ in pairs],
        item_ids=[item for _, item in pairs],
        ratings=np.arange(len(pairs)) % 5 + 1.0,
        timestamps=draw(st.none() | seconds),
        num_users=num_users,
        num_items=num_items,
    )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"user_ids": [], "item_ids": []}, ValueError, "user_ids is empty"),
        ({"user_ids": [0.0, 1.0]}, TypeError, "user_ids is of type float64: expected integers"),
        ({"item_ids": ["a", "b"]}, TypeError, "item_ids is of type .*: expected integers"),
        ({"item_ids": [True, False]}, TypeError, "item_ids is of type bool"),
        ({"user_ids": [[0], [1]]}, ValueError, r"user_ids has shape \(2, 1\)"),
        ({"user_ids": [0, 1, 1]}, ValueError, "item_ids has 2 rows: expected 3"),
        ({"user_ids": [-1, 1]}, ValueError, r"user_ids holds -1: expected ids in \[0, 2\)"),
        ({"item_ids": [0, 7], "num_items": 7}, ValueError, r"item_ids holds 7: .*\[0, 7\)"),
        ({"user_ids": [0, 2], "num_users": 2}, ValueError, "user_ids holds 2"),
        ({"user_ids": np.array([0, 2**63], np.uint64)}, ValueError, "user_ids holds"),
        ({"num_users": 2.0}, TypeError, "num_users is 2.0"),
        ({"num_items": -3}, ValueError, "num_items is -3"),
        ({"ratings": [1.0, np.nan]}, ValueError, r"ratings\[1\] is nan: expected finite"),
        ({"ratings": [np.inf, 1.0]}, ValueError, r"ratings\[0\] is inf"),
        ({"ratings": [1.0]}, ValueError, "ratings has 1 rows"),
        ({"ratings": [[1.0], [2.0]]}, ValueError, r"ratings has shape \(2, 1\)"),
        ({"ratings": ["good", "bad"]}, TypeError, "ratings is of type"),
        ({"timestamps": [1.5, 2.0]}, TypeError, "timestamps is of type float64"),
        ({"timestamps": [1, 2, 3]}, ValueError, "timestamps has 3 rows"),
        ({"item_names": ("one",)}, ValueError, "item_names has 1 entries, num_items is 2"),
        ({"item_texts": ("a", "b", "c")}, ValueError, "item_texts has 3 entries"),
        ({"user_vocabulary": ["a"]}, ValueError, "user_vocabulary has 1 entries"),
    ],
)
def test_what_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        Interactions(**{"user_ids": [0, 1], "item_ids": [1, 0]} | change)


def test_what_is_accepted():
    data = Interactions(
        user_ids=np.array([0, 1], np.uint8),
        item_ids=(1, 0),
        ratings=[5, 3],
        timestamps=np.array([7, 8], np.int32),
        num_users=4,
        item_names=["a", "b"],
    )
    assert (data.num_users, data.num_items, len(data)) == (4, 2, 2)
    assert (data.user_ids.dtype, data.ratings.dtype) == (np.int64, np.float32)
    assert data.timestamps.dtype == np.int64
    assert data.item_names == ("a", "b")
    assert data.density == 2 / 8
    assert not data.is_synthetic


def test_nothing_changes_it():
    given_ids = np.array([0, 1])
    data = Interactions(given_ids, [1, 0], ratings=[1, 2])
    given_ids[0] = 1
    assert data.user_ids.tolist() == [0, 1]
    with pytest.raises(ValueError, match="read-only"):
        data.ratings[0] = 9
    with pytest.raises(AttributeError):
        data.num_users = 9


def test_csr_of_repeated_pairs():
    data = Interactions([0, 0, 1], [1, 1, 0], ratings=[5, 2, 4])
    assert data.to_csr().toarray().tolist() == [[0, 1], [1, 0]]
    assert data.to_csr("count").toarray().tolist() == [[0, 2], [1, 0]]
    assert data.to_csr("ratings").toarray().tolist() == [[0, 2], [4, 0]]
    assert data.density == 0.5
    with pytest.raises(ValueError, match="values is 'stars'"):
        data.to_csr("stars")
    with pytest.raises(ValueError, match="no ratings"):
        Interactions([0], [0]).to_csr("ratings")


@given(interactions())
def test_csr_counts_every_row(data):
    assert data.to_csr("count").sum() == len(data)
    assert data.to_csr().nnz == len(
        set(zip(data.user_ids.tolist(), data.item_ids.tolist(), strict=True))
    )
    assert data.to_csr().shape == (data.num_users, data.num_items)
    assert 0 < data.density <= 1


@given(interactions())
def test_items_by_user(data):
    lists = data.items_by_user()
    assert len(lists) == data.num_users
    for user, items in enumerate(lists):
        assert items.tolist() == data.item_ids[data.user_ids == user].tolist()


@given(interactions(), st.data())
def test_take(data, draw):
    rows = draw.draw(st.lists(st.integers(0, len(data) - 1), min_size=1, max_size=9))
    part = data.take(rows)
    assert part.user_ids.tolist() == data.user_ids[rows].tolist()
    assert part.ratings.tolist() == data.ratings[rows].tolist()
    assert (part.num_users, part.num_items) == (data.num_users, data.num_items)
    mask = np.zeros(len(data), bool)
    mask[rows] = True
    assert len(data.take(mask)) == len(set(rows))


def test_take_nothing():
    for rows in ([], [False, False]):
        with pytest.raises(ValueError, match="rows is empty"):
            Interactions([0, 1], [0, 1]).take(rows)


def test_split_is_checked():
    data = Interactions([0, 1], [0, 1])
    for other in (Interactions([0], [2]), Interactions([2], [0], num_items=2)):
        with pytest.raises(ValueError, match="expected the same"):
            Split(data, other)
        with pytest.raises(ValueError, match="expected the same"):
            Split(data, data, validation=other)
    with pytest.raises(ValueError, match=r"negatives has shape \(1, 2\): expected \(2, m\)"):
        Split(data, data, negatives=[[0, 1]])
    with pytest.raises(ValueError, match=r"negatives has shape \(2,\)"):
        Split(data, data, negatives=[0, 1])
    with pytest.raises(ValueError, match="negatives holds 2"):
        Split(data, data, negatives=[[0], [2]])
    with pytest.raises(TypeError, match="negatives is of type float64"):
        Split(data, data, negatives=[[0.0], [1.0]])
    split = Split(data, data, negatives=[[1], [0]], name="mine")
    assert (split.num_users, split.num_items, split.is_synthetic) == (2, 2, False)
    assert "'mine', 2 rows for training, 2 for testing, 1 negatives each" in repr(split)
