"""Your own data: any ids in, dense ids out, and back again."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_lib.data import Interactions


@pytest.fixture
def frame():
    return pd.DataFrame(
        {
            "customer": ["eve", "bob", "eve", "abe"],
            "sku": [90, 17, 17, 90],
            "stars": [5, 3.5, 1, 4],
            "when": np.array(
                ["2024-01-02T00:00:01", "2024-01-01", "2024-01-03", "1970-01-01T00:00:05"],
                "datetime64[ns]",
            ),
            "title": ["Teapot", "Mug", "Mug again", None],
            "note": [1.5, None, 2.0, 3.0],
        }
    )


def test_ids_ratings_times_and_texts(frame):
    data = Interactions.from_frame(
        frame,
        user="customer",
        item="sku",
        rating="stars",
        time="when",
        item_name="title",
        item_text="note",
        name="mine",
    )
    assert data.user_vocabulary.tolist() == ["abe", "bob", "eve"]
    assert data.user_ids.tolist() == [2, 1, 2, 0]
    assert data.item_vocabulary.tolist() == [17, 90]
    assert data.item_ids.tolist() == [1, 0, 0, 1]
    assert data.ratings.tolist() == [5, 3.5, 1, 4]
    assert data.timestamps.tolist() == [1_704_153_601, 1_704_067_200, 1_704_240_000, 5]
    assert data.item_names == ("Mug", "Teapot")
    assert data.item_texts == ("", "1.5")
    assert data.name == "mine"


def test_there_and_back(frame):
    data = Interactions.from_frame(frame, user="customer", item="sku", rating="stars", time="when")
    back = data.to_frame()
    assert back["user"].tolist() == frame["customer"].tolist()
    assert back["item"].tolist() == frame["sku"].tolist()
    assert back["rating"].tolist() == frame["stars"].tolist()
    assert (back["time"] == frame["when"]).all()
    again = Interactions.from_frame(back, user="user", item="item", rating="rating", time="time")
    assert again.user_ids.tolist() == data.user_ids.tolist()
    assert again.timestamps.tolist() == data.timestamps.tolist()


@pytest.mark.parametrize(
    "column",
    [
        pd.Categorical(["b", "a", "b", "b"]),
        pd.array([20, 10, 20, 20], dtype="Int64"),
        pd.array(["b", "a", "b", "b"], dtype="string"),
        pd.to_datetime(["2024-01-02", "2024-01-01", "2024-01-02", "2024-01-02"]),
        [2.5, 1.5, 2.5, 2.5],
        [("x", 2), ("x", 1), ("x", 2), ("x", 2)],
    ],
    ids=["categorical", "nullable", "string", "date", "float", "tuple"],
)
def test_ids_of_any_type(frame, column):
    data = Interactions.from_frame(frame.assign(customer=column), user="customer", item="sku")
    assert data.user_ids.tolist() == [1, 0, 1, 1]
    assert len(data.user_vocabulary) == 2


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([5, 6, 7, 8], [5, 6, 7, 8]),
        (["2024-01-01"] * 4, [1_704_067_200] * 4),
        (["2024-01-01", "2024-01-01 00:00:00"] * 2, [1_704_067_200] * 4),
        (["2024-01-01T01:00:00+01:00"] * 4, [1_704_067_200] * 4),
        ([datetime.date(2024, 1, 1)] * 4, [1_704_067_200] * 4),
        (pd.to_datetime(["2024-01-01"] * 4).tz_localize("Europe/Oslo"), [1_704_063_600] * 4),
        (pd.to_datetime(["2024-01-01"] * 4).as_unit("ns"), [1_704_067_200] * 4),
    ],
    ids=["seconds", "text", "mixed", "offset", "date", "zone", "nanoseconds"],
)
def test_times_of_any_type(frame, column, expected):
    data = Interactions.from_frame(
        frame.assign(when=column), user="customer", item="sku", time="when"
    )
    assert data.timestamps.tolist() == expected


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_missing_ids(frame, missing):
    column = pd.Series(["eve", missing, "eve", missing], dtype=object)
    with pytest.raises(ValueError, match=r"user='customer': 2 of 4 rows have no id.*dropna"):
        Interactions.from_frame(frame.assign(customer=column), user="customer", item="sku")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stars": ["5", "x", "1", "2"]}, "rating='stars': row 1 holds 'x': expected a number"),
        ({"stars": [5, np.nan, 1, 2]}, "rating='stars': row 1 holds nan"),
        ({"when": ["2024-01-01", "soon", "2024-01-01", "2024-01-01"]}, "time='when': row 1 holds"),
        ({"when": [1.0, np.nan, 2.0, 3.0]}, "time='when': row 1 holds nan"),
        ({"when": [1.0, np.inf, 2.0, 3.0]}, "time='when': row 1 holds inf"),
    ],
)
def test_values_that_cannot_be_read(frame, change, message):
    with pytest.raises(ValueError, match=message):
        Interactions.from_frame(
            frame.assign(**change), user="customer", item="sku", rating="stars", time="when"
        )


def test_columns_that_are_not_there(frame):
    with pytest.raises(KeyError, match="user='client' is no column of the frame"):
        Interactions.from_frame(frame, user="client", item="sku")
    with pytest.raises(KeyError, match="time='date'"):
        Interactions.from_frame(frame, user="customer", item="sku", time="date")
    with pytest.raises(ValueError, match="frame is empty"):
        Interactions.from_frame(frame[:0], user="customer", item="sku")


def test_the_frame_is_left_alone(frame):
    before = frame.copy(deep=True)
    Interactions.from_frame(frame, user="customer", item="sku", rating="stars", time="when")
    pd.testing.assert_frame_equal(frame, before)


@given(st.lists(st.tuples(st.text(max_size=3), st.integers()), min_size=1, max_size=30))
def test_vocabulary_gives_the_ids_back(rows):
    rows = [(user, item % 2**60) for user, item in rows]
    data = Interactions.from_frame(pd.DataFrame(rows, columns=["u", "i"]), user="u", item="i")
    back = zip(
        data.user_vocabulary[data.user_ids].tolist(),
        data.item_vocabulary[data.item_ids].tolist(),
        strict=True,
    )
    assert list(back) == rows
    assert len(set(data.user_vocabulary.tolist())) == data.num_users
