"""Your own data: any ids in, dense ids out, and back again."""

from __future__ import annotations

import datetime
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_lib.data import Interactions, Split
from recsys_lib.data.frames import UNITS

WHEN = ["2024-01-02T00:00:01", "2024-01-01", "2024-01-03", "1970-01-01T00:00:05"]
KEYS = {"user": "u", "item": "i"}
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
)
def test_ids_of_any_type(frame, column):
    data = Interactions.from_frame(frame.assign(customer=column), user="customer", item="sku")
    assert data.user_ids.tolist() == [1, 0, 1, 1]
    assert len(data.user_vocabulary) == 2


@pytest.mark.parametrize(
    "day",
    [
        ["2024-01-01", "2024-01-01 00:00:00"],
        ["2024-01-01T01:00:00+01:00"] * 2,
        [datetime.date(2024, 1, 1)] * 2,
        pd.to_datetime(["2024-01-01T01"] * 2).tz_localize("Europe/Oslo"),
        pd.to_datetime(["2024-01-01"] * 2).as_unit("ns"),
        pd.Categorical(pd.to_datetime(["2024-01-01"] * 2)),
    ],
)
def test_dates_of_any_type(day):
    data = Interactions.from_frame({"u": [1, 1], "i": [2, 3], "t": day}, **KEYS, time="t")
    assert (data.timestamps.tolist(), data.time_unit) == ([DAY] * 2, "s")


FORMS = {
    "int64": lambda ticks, unit: np.array(ticks, np.int64),
    "object": lambda ticks, unit: np.array(ticks, object),
    "categorical": lambda ticks, unit: pd.Categorical(ticks),
    "nullable": lambda ticks, unit: pd.array(ticks, dtype="Int64"),
    "text": lambda ticks, unit: [f" {tick}" for tick in ticks],
    "decimal": lambda ticks, unit: [Decimal(tick) for tick in ticks],
    "dates": lambda ticks, unit: np.array(ticks, f"datetime64[{unit}]"),
}


@given(
    st.lists(st.integers(10**9, 2 * 10**9 - 1), min_size=3, max_size=9),
    st.integers(0, 999),
    st.sampled_from(["s", "ms", "us", "ns"]),
    st.sampled_from(sorted(FORMS)),
)
def test_times_are_kept_to_their_last_digit(seconds, fraction, unit, form):
    """Whatever the type of the column: the same numbers, the same unit, the newest held out."""
    ticks = [s * 1000 ** UNITS.index(unit) for s in seconds]
    if unit != "s":
        ticks = [tick + (fraction + row) % 999 + 1 for row, tick in enumerate(ticks)]
    frame = {"u": ["ann"] * len(ticks), "i": range(len(ticks)), "t": FORMS[form](ticks, unit)}
    data = Interactions.from_frame(frame, **KEYS, time="t")
    assert (data.timestamps.tolist(), data.time_unit) == (ticks, unit)
    assert data.split_leave_one_out()[1].timestamps.tolist() == [max(ticks)]
    dates = data.to_frame()["time"].to_numpy()
    assert (dates == np.array(ticks, f"datetime64[{unit}]")).all()


@pytest.mark.parametrize(
    "column",
    [[0.99, 0.2, 0.5], [5.9, 5.1, 5.5], [Decimal("5.9"), 5, "5.5"], [20240103, 20240101, 20240102]],
)
def test_numbers_of_no_clear_unit_keep_their_order(column):
    frame = {"u": [1, 1, 1], "i": ["A", "B", "C"], "t": column}
    data = Interactions.from_frame(frame, **KEYS, time="t")
    numbers = [float(value) for value in column]
    assert (data.timestamps.tolist(), data.time_unit) == (numbers, "unknown")
    assert data.to_frame()["time"].tolist() == numbers  # no date is made up
    assert data.split_leave_one_out()[1].timestamps.tolist() == numbers[:1]
    known = Interactions.from_frame(frame, **KEYS, time="t", time_unit="s")
    assert known.to_frame()["time"].tolist() == list(pd.to_datetime(numbers, unit="s"))


T, F, SPANS = [True, False, True, False], [1.0, 2.0, 3.0], pd.to_timedelta([1, 2, 3, 4])
DATES = pd.to_datetime(WHEN, format="ISO8601")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(
            ({"customer": pd.Series(["eve", missing] * 2, dtype=object)}, "dropna")
            for missing in (None, np.nan, pd.NA)
        ),
        *(({"stars": kind}, "rating='stars': row 0") for kind in (T, SPANS, DATES)),
        ({"stars": ["5", "x", "1", "2"]}, "rating='stars': row 1 holds 'x'"),
        ({"stars": [5, np.nan, 1, 2]}, "rating='stars': row 1 holds nan"),
        ({"stars": pd.array([5, None, 1, 2], dtype="Int64")}, "rating='stars': row 1 holds <NA>"),
        ({"stars": pd.Series([5, True, 1, 2], dtype=object)}, "rating='stars': row 1 holds True"),
        ({"when": ["2024-01-01", "soon", "2024-01-01", "2024-01-01"]}, "time='when': row 1 holds"),
        ({"when": ["2024-01-01", 5, "2024-01-01", 6]}, "time='when': row 0 .* as in other rows"),
        *(({"when": [1.0, bad, 2.0, 3.0]}, "time='when': row 1") for bad in (np.nan, np.inf, 1e20)),
        *(({"when": [bad, *F]}, "time='when': row 0") for bad in ("nan", "1e99999", 10**400)),
        ({"when": np.array([2**63, 1, 2, 3], np.uint64)}, "time='when': row 0"),
        ({"when": np.array([1.6e9, *F], np.float32)}, "time='when' is of type float32"),
        ({"when": [Decimal("1e9"), Decimal("1e9") + Decimal("1e-12"), *F[:2]]}, "more digits"),
        ({"when": [1.6e9, 1.6e12, 1.6e9, 1.6e9]}, "in s and ms: .*time_unit"),
        *(({"when": kind}, "time='when': row 0") for kind in (T, SPANS)),
    ],
)
def test_values_that_cannot_be_read(frame, change, message):
    with pytest.raises(ValueError, match=message):
        Interactions.from_frame(frame.assign(**change), **COLUMNS)


def test_a_unit_that_is_asked_for(frame):
    whole = Interactions.from_frame(frame, **COLUMNS, time_unit="ms")
    assert whole.timestamps[1] == DAY * 1000
    finer = frame.assign(when=DATES + pd.Timedelta("1ms"))
    for unit, message in (("s", "has finer times"), ("min", "time_unit is 'min'")):
        with pytest.raises(ValueError, match=message):
            Interactions.from_frame(finer, **COLUMNS, time_unit=unit)
    later = Interactions.from_frame(frame, **COLUMNS, vocabulary=whole)
    assert later.time_unit == "ms"  # as in the first frame, so that parts can be compared
    with pytest.raises(ValueError, match="time_unit of train is 'ms', of test 's'"):
        Split(whole, Interactions.from_frame(frame, **COLUMNS))


FRAME = {"u": ["b", "a", "b"], "i": [3, 1, 2], "t": [0.5, 2, 3]}


@pytest.mark.parametrize("kind", ["dict", "pandas", "polars.DataFrame", "pyarrow.table"])
def test_frames_of_other_kinds(kind):
    make = {"dict": dict, "pandas": pd.DataFrame}.get(kind)
    if make is None:
        module, function = kind.split(".")
        make = getattr(pytest.importorskip(module), function)
    data = Interactions.from_frame(make(FRAME), **KEYS, time="t", rating="t")
    assert data.user_vocabulary[data.user_ids].tolist() == FRAME["u"]
    assert data.item_vocabulary[data.item_ids].tolist() == FRAME["i"]
    assert data.timestamps.tolist() == data.ratings.tolist() == FRAME["t"]


def test_what_is_no_frame_or_no_column(frame):
    foreign = type("Foreign", (), {"to_pandas": lambda self: pd.DataFrame(FRAME)})()
    assert len(Interactions.from_frame(foreign, **KEYS)) == 3
    twice = pd.DataFrame([[1, 2, 3]], columns=["u", "i", "i"])
    for wrong, error, message in (
        ([FRAME], TypeError, "frame is of type list"),
        (twice, ValueError, "item='i' names several columns"),
        ({"u": [17, "17"], "i": [1, 2]}, TypeError, "user='u' holds one id as number and text"),
        ({"u": [["a"], ["b"]], "i": [1, 2]}, TypeError, "user='u' holds ids that cannot be sorted"),
        ({"u": [], "i": []}, ValueError, "frame is empty"),
    ):
        with pytest.raises(error, match=message):
            Interactions.from_frame(wrong, **KEYS)
    for argument in COLUMNS:
        with pytest.raises(KeyError, match=f"{argument}='client'"):
            Interactions.from_frame(frame, **(COLUMNS | {argument: "client"}))


def read(users, items, **options):
    return Interactions.from_frame({"u": users, "i": items}, **KEYS, **options)


def test_a_second_frame_with_the_vocabulary_of_the_first():
    train = read(["ann", "bob", "cid"], ["x", "y", "z"])
    later = {"users": ["bob", "cid", "dan"], "items": ["z", "x", "y"]}
    with pytest.raises(ValueError, match="user_vocabulary of test is not that of train"):
        Split(train, read(**later))
    with pytest.raises(ValueError, match=r"user='u': row 2 holds 'dan'.*unknown"):
        read(**later, vocabulary=train)
    with pytest.warns(match="1 of 3 rows are dropped: 1 with an unknown user") as caught:
        test = read(**later, vocabulary=train, unknown="drop")
    assert caught[0].filename == __file__.replace(".pyc", ".py")
    assert (test.user_ids.tolist(), test.item_ids.tolist()) == ([1, 2], [2, 0])
    assert Split(train, test).num_users == 3
    new = read(**later, vocabulary=train, unknown="new")
    assert new.user_vocabulary.tolist() == ["ann", "bob", "cid", "dan"]
    assert new.user_ids.tolist() == [1, 2, 3]
    again = read(["ann", "bob", "cid"], ["x", "y", "z"], vocabulary=new)
    assert again.user_ids.tolist() == train.user_ids.tolist() and Split(again, new).num_users == 4
    for unknown in ("error", "drop", "new"):
        with pytest.raises(TypeError, match="item='i' is integer: the vocabulary is string"):
            read(["bob"], [1], vocabulary=train, unknown=unknown)
    for unknown, message in (("drop", "no row has a user and an item"), ("keep", "unknown is 'k")):
        with pytest.raises(ValueError, match=message), warnings.catch_warnings(action="ignore"):
            read(["dan"], ["x"], vocabulary=train, unknown=unknown)
    assert read([1], [2], vocabulary=Interactions([0, 1], [0, 2])).item_ids.tolist() == [2]
    first = Interactions.from_frame({**FRAME, "n": ["a", None, "c"]}, **KEYS, item_name="n")
    more = {"u": ["a", "a"], "i": [3, 9], "n": ["other", "new"]}
    data = Interactions.from_frame(more, **KEYS, item_name="n", vocabulary=first, unknown="new")
    assert data.item_names == ("", "c", "a", "new")


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=20),
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=20),
    st.sampled_from([int, str, float, "category", "Int64"]),
)
def test_any_second_frame_keeps_its_ids(first, second, kind):
    def frame(rows):
        return pd.DataFrame(rows, columns=["u", "i"]).astype(kind)

    before = Interactions.from_frame(frame(first), **KEYS)
    after = Interactions.from_frame(frame(second), **KEYS, vocabulary=before, unknown="new")
    for side in ("user", "item"):
        old, new = (data.original_ids(side).tolist() for data in (before, after))
        assert new[: len(old)] == old and len(set(new)) == len(new)
        ids = getattr(after, f"{side}_ids")
        assert [new[id_] for id_ in ids] == frame(second)[side[0]].tolist()
