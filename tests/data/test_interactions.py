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
    users, items = zip(*draw(st.lists(pair, min_size=1, max_size=40)), strict=True)
    ratings = np.arange(len(users)) % 5 + 1.0
    return Interactions(users, items, ratings, num_users=num_users, num_items=num_items)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"user_ids": [], "item_ids": []}, ValueError, "user_ids is empty"),
        ({"user_ids": [0.0, 1.0]}, TypeError, "user_ids is of type float64"),
        ({"item_ids": ["a", "b"]}, TypeError, "item_ids is of type .*from_frame"),
        ({"item_ids": [True, False]}, TypeError, "item_ids is of type bool"),
        ({"user_ids": [[0], [1]]}, ValueError, r"user_ids has shape \(2, 1\)"),
        ({"user_ids": [0, 1, 1]}, ValueError, "item_ids has 2 rows: expected 3"),
        ({"user_ids": [-1, 1]}, ValueError, r"user_ids holds -1: expected ids in \[0, 2\)"),
        ({"item_ids": [0, 7], "num_items": 7}, ValueError, "item_ids holds 7"),
        ({"user_ids": np.array([0, 2**63], np.uint64)}, ValueError, "user_ids: row 1 holds 92"),
        ({"user_ids": np.array([0, 1], object)}, TypeError, "user_ids is of type object"),
        ({"num_users": 2.0}, TypeError, "num_users is 2.0"),
        ({"num_items": -3}, ValueError, "num_items is -3"),
        ({"ratings": [1.0, np.nan]}, ValueError, r"ratings\[1\] is nan"),
        ({"ratings": ["good", "bad"]}, TypeError, "ratings is of type"),
        ({"ratings": [True, False]}, TypeError, "ratings is of type bool"),
        ({"ratings": np.array([1, 2], "M8[s]")}, TypeError, "ratings is of type datetime64"),
        ({"ratings": [1e39, 2.0]}, ValueError, r"ratings\[0\] is inf"),
        ({"timestamps": [1.5, np.nan]}, ValueError, "timestamps: row 1 holds nan"),
        ({"timestamps": [True, False]}, TypeError, "timestamps is of type bool"),
        ({"timestamps": [1, 2], "time_unit": "h"}, ValueError, "time_unit is 'h'"),
        ({"timestamps": [1, 2, 3]}, ValueError, "timestamps has 3 rows"),
        ({"item_names": ("one",)}, ValueError, "item_names has 1 entries, num_items is 2"),
        ({"user_vocabulary": ["a"]}, ValueError, "user_vocabulary has 1 entries"),
    ],
)
def test_what_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        Interactions(**{"user_ids": [0, 1], "item_ids": [1, 0]} | change)


def test_what_is_accepted_and_that_nothing_changes_it():
    users = np.array([0, 1], np.uint8)
    times, names = np.array([7, 8], np.int32), ["a", "b"]
    data = Interactions(users, (1, 0), [5, 3], times, np.int64(4), item_names=names)
    users[0] = 1
    assert data.user_ids.tolist() == [0, 1]
    assert (data.num_users, data.num_items, len(data), data.density) == (4, 2, 2, 2 / 8)
    assert (data.user_ids.dtype, data.ratings.dtype) == (np.int64, np.float32)
    assert data.timestamps.dtype == np.int64
    assert data.item_names == ("a", "b")
    assert not data.is_synthetic
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


def test_pairs_of_very_many_items_stay_apart():
    data = Interactions([0, 1, 0, 4], [0, 2, 2**62 - 1, 0], num_items=2**62)
    assert data.to_csr().nnz == 4  # user * num_items + item would wrap: 4 * 2**62 is 0
    assert data.density == 4 / (5 * 2**62)


@given(interactions(), st.data())
def test_counts_lists_and_parts(data, draw):
    pairs = set(zip(data.user_ids.tolist(), data.item_ids.tolist(), strict=True))
    assert data.to_csr("count").sum() == len(data)
    assert data.to_csr().nnz == len(pairs)
    assert data.to_csr().shape == (data.num_users, data.num_items)
    lists = data.items_by_user()
    assert len(lists) == data.num_users
    for user, items in enumerate(lists):
        assert items.tolist() == data.item_ids[data.user_ids == user].tolist()
    rows = draw.draw(st.lists(st.integers(0, len(data) - 1), min_size=1, max_size=9))
    part = data.take(rows)
    assert part.user_ids.tolist() == data.user_ids[rows].tolist()
    assert part.ratings.tolist() == data.ratings[rows].tolist()
    assert (part.num_users, part.num_items) == (data.num_users, data.num_items)
    assert len(data.take(np.isin(np.arange(len(data)), rows))) == len(set(rows))
    for nothing in ([], np.zeros(len(data), bool)):
        with pytest.raises(ValueError, match="rows is empty"):
            data.take(nothing)


def test_split_is_checked():
    data = Interactions([0, 1], [0, 1])
    for other in (Interactions([0], [2]), Interactions([2], [0], num_items=2)):
        for parts in ((data, other), (data, data, None, other)):
            with pytest.raises(ValueError, match=r"counts .* expected 2 and 2"):
                Split(*parts)
    for negatives, error, message in (
        ([[0, 1]], ValueError, r"negatives has shape \(1, 2\)"),
        ([0, 1], ValueError, r"negatives has shape \(2,\)"),
        ([[0], [2]], ValueError, "negatives holds 2"),
        ([[0.0], [1.0]], TypeError, "negatives is of type float64"),
    ):
        with pytest.raises(error, match=message):
            Split(data, data, negatives=negatives)
    split = Split(data, data, negatives=[[1], [0]], name="mine")
    assert (split.num_users, split.num_items, split.is_synthetic) == (2, 2, False)
    assert "'mine', 2 rows for training, 2 for testing, 1 negatives each" in repr(split)
