"""Your own data: any ids in, dense ids out, and back again."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_lib.data import Interactions

WHEN = ["2024-01-02T00:00:01", "2024-01-01", "2024-01-03", "1970-01-01T00:00:05"]
DAY = 1_704_067_200  # 2024-01-01
COLUMNS = {"user": "customer", "item": "sku", "rating": "stars", "time": "when"}


@pytest.fixture
def frame():
    return pd.DataFrame(
        {
            "customer": ["eve", "bob", "eve", "abe"],
            "sku": [90, 17, 17, 90],
            "stars": [5, 3.5, 1, 4],
            "when": np.array(WHEN, "datetime64[ns]"),
            "title": ["Teapot", "Mug", "Mug again", None],
            "note": [1.5, None, 2.0, 3.0],
        }
    )


def test_there_and_back(frame):
    before = frame.copy(deep=True)
    texts = {"item_name": "title", "item_text": "note"}
    data = Interactions.from_frame(frame, **COLUMNS, **texts, name="mine")
    pd.testing.assert_frame_equal(frame, before)
    assert data.user_vocabulary.tolist() == ["abe", "bob", "eve"]
    assert data.user_ids.tolist() == [2, 1, 2, 0]
    assert data.item_vocabulary.tolist() == [17, 90]
    assert data.item_ids.tolist() == [1, 0, 0, 1]
    assert data.ratings.tolist() == [5, 3.5, 1, 4]
    assert data.timestamps.tolist() == [DAY + 86_401, DAY, DAY + 2 * 86_400, 5]
    assert (data.item_names, data.item_texts) == (("Mug", "Teapot"), ("", "1.5"))
    assert data.name == "mine"
    back = data.to_frame()
    assert back.columns.tolist() == ["user", "item", "rating", "time"]
    for column, original in zip(back, COLUMNS.values(), strict=True):
        assert back[column].tolist() == frame[original].tolist()


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
        (["2024-01-01"] * 4, [DAY] * 4),
        (["2024-01-01", "2024-01-01 00:00:00"] * 2, [DAY] * 4),
        (["2024-01-01T01:00:00+01:00"] * 4, [DAY] * 4),
        ([datetime.date(2024, 1, 1)] * 4, [DAY] * 4),
        (pd.to_datetime(["2024-01-01"] * 4).tz_localize("Europe/Oslo"), [DAY - 3600] * 4),
        (pd.to_datetime(["2024-01-01"] * 4).as_unit("ns"), [DAY] * 4),
    ],
    ids=["seconds", "text", "mixed", "offset", "date", "zone", "nanoseconds"],
)
def test_times_of_any_type(frame, column, expected):
    data = Interactions.from_frame(frame.assign(when=column), **COLUMNS)
    assert data.timestamps.tolist() == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(
            ({"customer": pd.Series(["eve", missing, "eve", missing], dtype=object)}, "dropna")
            for missing in (None, np.nan, pd.NA)
        ),
        ({"stars": ["5", "x", "1", "2"]}, "rating='stars': row 1 holds 'x'"),
        ({"stars": [5, np.nan, 1, 2]}, "rating='stars': row 1 holds nan"),
        ({"when": ["2024-01-01", "soon", "2024-01-01", "2024-01-01"]}, "time='when': row 1 holds"),
        ({"when": [1.0, np.nan, 2.0, 3.0]}, "time='when': row 1 holds nan"),
        ({"when": [1.0, np.inf, 2.0, 3.0]}, "time='when': row 1 holds inf"),
    ],
)
def test_values_that_cannot_be_read(frame, change, message):
    with pytest.raises(ValueError, match=message):
        Interactions.from_frame(frame.assign(**change), **COLUMNS)


def test_columns_that_are_not_there(frame):
    for argument in COLUMNS:
        with pytest.raises(KeyError, match=f"{argument}='client'"):
            Interactions.from_frame(frame, **(COLUMNS | {argument: "client"}))
    with pytest.raises(ValueError, match="frame is empty"):
        Interactions.from_frame(frame[:0], **COLUMNS)
    with pytest.raises(TypeError, match="user='customer' holds ids that cannot be sorted"):
        Interactions.from_frame(frame.assign(customer=[["a"], ["b"], ["c"], ["d"]]), **COLUMNS)


@given(st.lists(st.tuples(st.text(max_size=3), st.integers()), min_size=1, max_size=30))
def test_vocabulary_gives_the_ids_back(rows):
    rows = [(user, item % 2**60) for user, item in rows]
    data = Interactions.from_frame(pd.DataFrame(rows, columns=["u", "i"]), user="u", item="i")
    users, items = data.user_vocabulary[data.user_ids], data.item_vocabulary[data.item_ids]
    assert list(zip(users.tolist(), items.tolist(), strict=True)) == rows
    assert len(set(data.user_vocabulary.tolist())) == data.num_users
