"""Your own data: any ids in, dense ids out, and back again."""

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
FOUR = {
    "customer": ["eve", "bob", "eve", "abe"],
    "sku": [90, 17, 17, 90],
    "stars": [5, 3.5, 1, 4],
    "when": np.array(WHEN, "datetime64[ns]"),
    "title": ["Teapot", "Mug", "Mug again", None],
    "note": [1.5, None, 2.0, 3.0],
}
FRAME = {"u": ["b", "a", "b"], "i": [3, 1, 2], "t": [0.5, 2, 3]}


def four(columns=COLUMNS, options=(), **change):
    """Read the four rows, with some columns changed."""
    return Interactions.from_frame(pd.DataFrame(FOUR).assign(**change), **columns, **dict(options))


def read(users, items, *times, **options):
    """Read the rows; the timestamps, if there are any, are the column "t"."""
    frame = {"u": users, "i": items} | dict(zip("t", times, strict=False))
    return Interactions.from_frame(frame, **KEYS, **({"time": "t"} if times else {}), **options)


def test_there_and_back():
    frame = pd.DataFrame(FOUR)
    before = frame.copy(deep=True)
    texts = {"item_name": "title", "item_text": "note"}
    data = Interactions.from_frame(frame, **COLUMNS, **texts, name="mine")
    pd.testing.assert_frame_equal(frame, before)
    assert data.user_vocabulary.tolist() == ["abe", "bob", "eve"]
    assert data.item_vocabulary.tolist() == [17, 90]
    assert (data.user_ids.tolist(), data.item_ids.tolist()) == ([2, 1, 2, 0], [1, 0, 0, 1])
    assert data.ratings.tolist() == [5, 3.5, 1, 4]
    assert data.timestamps.tolist() == [DAY + 86_401, DAY, DAY + 2 * 86_400, 5]
    assert (data.name, data.item_names, data.item_texts) == ("mine", ("Mug", "Teapot"), ("", "1.5"))
    back = data.to_frame()
    assert back.columns.tolist() == list(COLUMNS)
    assert all(back[name].tolist() == frame[column].tolist() for name, column in COLUMNS.items())


TYPES = ["string", "datetime64[s]", lambda id_: ("x", id_), lambda id_: id_ + 0.5]


@pytest.mark.parametrize("kind", TYPES)
def test_ids(kind):
    column = pd.Series([20, 10] * 2)
    data = four(customer=column.map(kind) if callable(kind) else column.astype(kind))
    assert (data.user_ids.tolist(), len(data.user_vocabulary)) == ([1, 0, 1, 0], 2)


FORMS = {
    "int64": lambda ticks, unit: np.array(ticks, np.int64),
    "object": lambda ticks, unit: np.array(ticks, object),
    "categorical": lambda ticks, unit: pd.Categorical(ticks),
    "nullable": lambda ticks, unit: pd.array(ticks, dtype="Int64"),
    "text": lambda ticks, unit: [f" {tick}" for tick in ticks],
    "decimal": lambda ticks, unit: [Decimal(tick) for tick in ticks],
    "dates": lambda ticks, unit: np.array(ticks, f"datetime64[{unit}]"),
}
SECONDS = st.lists(st.integers(10**9, 2 * 10**9 - 1), min_size=3, max_size=9)


@given(SECONDS, st.integers(0, 999), st.sampled_from(UNITS), st.sampled_from(sorted(FORMS)))
def test_last_digit_of_times(seconds, fraction, unit, form):
    """Whatever the type of the column: the same numbers, the same unit, the newest held out."""
    ticks = [s * 1000 ** UNITS.index(unit) for s in seconds]
    if unit != "s":
        ticks = [tick + (fraction + row) % 999 + 1 for row, tick in enumerate(ticks)]
    data = read(["ann"] * len(ticks), range(len(ticks)), FORMS[form](ticks, unit))
    assert (data.timestamps.tolist(), data.time_unit) == (ticks, unit)
    assert data.split_leave_one_out()[1].timestamps.tolist() == [max(ticks)]
    dates = data.to_frame()["time"].to_numpy()
    assert (dates == np.array(ticks, f"datetime64[{unit}]")).all()


NUMBERS = [[0.99, 0.2, 0.5], [5.9, 5.1], [Decimal("5.9"), 5, "5.5"], [20240103, 20240101]]


@pytest.mark.parametrize("column", NUMBERS)
def test_numbers_of_no_clear_unit(column):
    rows, numbers = ([1] * len(column), range(len(column)), column), list(map(float, column))
    data = read(*rows)
    assert (data.timestamps.tolist(), data.time_unit) == (numbers, "unknown")
    assert data.to_frame()["time"].tolist() == numbers  # no date is made up
    assert data.split_leave_one_out()[1].timestamps.tolist() == numbers[:1]
    dates = read(*rows, time_unit="s").to_frame()["time"]
    assert dates.tolist() == list(pd.to_datetime(numbers, unit="s"))


def test_a_unit_that_is_asked_for():
    whole = four(options={"time_unit": "ms"})
    assert whole.timestamps[1] == DAY * 1000
    later = four(options={"vocabulary": whole})
    assert later.time_unit == "ms"  # as in the first frame, so that parts can be compared
    with pytest.raises(ValueError, match="time_unit of train is 'ms', of test 's'"):
        Split(whole, four())


MARCH = 1_709_337_600  # 2024-03-02, the first or second date of each column
CLEAR = [
    *(["02/03/2024", "15/03/2024"], ["15/03/2024", "02/03/2024"], ["2024-3-2", "2024-3-3"]),
    *(["02.03.2024", "03.03.2024", "%d.%m.%Y"], ["20240302", "20240303", "%Y%m%d"]),
    *([20240302, 20240303, "%Y%m%d"], ["2 Mar 2024", "3 Mar 2024"], ["2024/03/02", "2024/03/03"]),
    *(["Sat, 02 Mar 2024 00:00:00 GMT"] * 2, ["03/02/2024 00:00", "03/15/2024 00:00"]),
    *([datetime.date(2024, 3, 2), "2024-03-02T10:00"], ["2024-03-02 00:00 UTC"] * 2),
    *(["2024-03-02T01:00:00+01:00"] * 2, list(pd.to_datetime(["2024-03-02"] * 2).as_unit("ns"))),
    list(pd.to_datetime(["2024-03-02T01"] * 2).tz_localize("Europe/Oslo")),
]


@pytest.mark.parametrize("column", CLEAR, ids=str)
def test_dates_of_a_clear_form(column):
    days, form = column[:2], (*column, None)[2]
    for dates in (days, pd.Categorical(days), pd.Series(days, dtype=object), pd.Index(days)):
        data = read([1, 1], [2, 3], dates, time_format=form)
        assert MARCH in data.timestamps.tolist() and data.time_unit == "s"
        assert abs(data.timestamps - MARCH).max() < 14 * 86_400


MONTH_FIRST, DAY_FIRST = "%m/%d/%Y", "%d/%m/%Y"
DAYS = st.lists(st.dates(datetime.date(1990, 1, 1), datetime.date(2030, 1, 1)), min_size=1)


@pytest.mark.slow
@given(DAYS, st.sampled_from([MONTH_FIRST, DAY_FIRST]))
def test_day_and_month_are_never_guessed(days, form):
    column = [day.strftime(form) for day in days]
    right = [int((day - datetime.date(1970, 1, 1)).total_seconds()) for day in days]
    rows = [1] * len(days), range(len(days)), column
    assert read(*rows, time_format=form).timestamps.tolist() == right
    if any(day.day > 12 for day in days) or all(day.day == day.month for day in days):
        assert read(*rows).timestamps.tolist() == right
    else:
        with pytest.raises(ValueError, match=r"time='t': row .* time_format"):
            read(*rows)


def objects(*values):
    return pd.Series(values * (4 // len(values)), dtype=object)


T, F, SPANS = [True, False, True, False], [1.0, 2.0, 3.0], pd.to_timedelta([1, 2, 3, 4])
DATES = pd.to_datetime(WHEN, format="ISO8601")
UNCLEAR = ["02/03/2024", "01-02-03", "2024-13-02", "now", "10:30", "2024-03-02 10:00 CET"]
UNCLEAR += ["March 2024", b"2024-03-02"]
BAD_VALUES = [
    ("customer", "dropna", [objects("eve", bad) for bad in (None, np.nan, pd.NA)]),
    ("stars", "rating='stars': row 0", [T, SPANS, DATES]),
    ("stars", "rating='stars': row 1", [objects(5, bad, 1, 2) for bad in (True, "x", np.nan)]),
    ("stars", "rating='stars': row 1", [[5, np.nan, 1, 2], pd.array([5, None, 1, 2], "Int64")]),
    ("when", "time='when': row 0", [objects(bad, *F) for bad in ("nan", "1e99999", 10**400)]),
    ("when", "time='when': row 0", [T, SPANS, np.array([2**63, 1, 2, 3], np.uint64)]),
    ("when", "time='when': row 0 .* as in other rows", [["2024-01-01", 5] * 2]),
    ("when", "time='when': row 1", [[1.0, bad, 2.0, 3.0] for bad in (np.nan, np.inf, 1e20)]),
    ("when", "time='when': row 1 holds 'soon'", [["2024-01-01", "soon"] * 2]),
    ("when", "time='when': row 0 .*time_format", [[day] * 4 for day in UNCLEAR]),
    ("when", "row 0 .*time_format", [pd.array(["02.03.2024 10:00"] * 4, dtype="string")]),
    ("when", "time='when' is of type float32", [np.array([1.6e9, *F], np.float32)]),
    ("when", "more digits", [[Decimal("1e9"), Decimal("1e9") + Decimal("1e-12"), *F[:2]]]),
    ("when", "in s and ms: .*time_unit", [[1.6e9, 1.6e12] * 2]),
]
BAD_OPTIONS = [
    ({"time_format": DAY_FIRST}, ["02/03/2024", "2024-03-02"] * 2, "'when': row 1 .*'%d/%m/%Y'"),
    ({"time_unit": "s"}, DATES + pd.Timedelta("1ms"), "has finer times"),
    ({"time_unit": "min"}, DATES, "time_unit is 'min'"),
]
TWICE, TRAIN = pd.DataFrame([[1, 2, 3]], columns=["u", "i", "i"]), read(["ann", "bob"], ["x", "y"])
ALIKE = [1.0, "1"], [b"a", "a"], ["caf\u00e9", "cafe\u0301"], [True, 0], [17, "17"]
ROUNDED = [2.0**53, 1], np.float32([2**24, 1]), np.float16([2048, 1]), [np.inf, 1]


def later(user, item, unknown="error"):
    return lambda: read([user], [item], vocabulary=TRAIN, unknown=unknown)


def new_accents():
    read(["caf\u00e9"], [1], vocabulary=read(["cafe\u0301"], [1]), unknown="new")


REFUSED = [
    *(
        (lambda n=n, c=c: four(**{n: c}), ValueError, word)
        for n, word, cs in BAD_VALUES
        for c in cs
    ),
    *((lambda o=o, c=c: four(options=o, when=c), ValueError, word) for o, c, word in BAD_OPTIONS),
    *((lambda a=a: four(COLUMNS | {a: "?"}), KeyError, f"{a}='\\?'") for a in COLUMNS),
    (lambda: Interactions.from_frame([FRAME], **KEYS), TypeError, "frame is of type list"),
    (lambda: Interactions.from_frame(TWICE, **KEYS), ValueError, "item='i' names several columns"),
    (
        lambda: Interactions.from_frame(FRAME, user="u", item="u"),
        ValueError,
        "expected two columns",
    ),
    *((lambda x=x: read(objects(*x)[:2], [1, 2]), TypeError, "user='u' holds") for x in ALIKE),
    (new_accents, TypeError, "user='u' holds one id"),
    *((lambda x=x: read(x, [1, 2]), TypeError, "user='u' is float.*rounds") for x in ROUNDED),
    (lambda: read([["a"], ["b"]], [1, 2]), TypeError, "user='u' holds ids that cannot be sorted"),
    (lambda: read([], []), ValueError, "frame is empty"),
    (later("dan", "x"), ValueError, r"user='u': row 0 holds 'dan'.*unknown"),
    (later("dan", "x", "drop"), ValueError, "no row has a user and an item"),
    (later("dan", "x", "keep"), ValueError, "unknown is 'keep'"),
    *((later("bob", 1, how), TypeError, "integer: .* string") for how in ("error", "drop", "new")),
    (
        lambda: Split(TRAIN, read(["cy", "di"], ["x", "y"])),
        ValueError,
        "user_vocabulary of test is",
    ),
]


@pytest.mark.parametrize("call, error, word", REFUSED)
def test_refuses(call, error, word):
    with pytest.raises(error, match=word), warnings.catch_warnings(action="ignore"):
        call()


FOREIGN = type("Foreign", (), {"to_pandas": lambda self: pd.DataFrame(FRAME)})
KINDS = [dict, pd.DataFrame, lambda _: FOREIGN(), "polars.DataFrame", "pyarrow.table"]


@pytest.mark.parametrize("kind", KINDS)
def test_frames_of_other_kinds(kind):
    if isinstance(kind, str):
        module, function = kind.split(".")
        kind = getattr(pytest.importorskip(module), function)
    data = Interactions.from_frame(kind(FRAME), **KEYS, time="t", rating="t")
    assert data.user_vocabulary[data.user_ids].tolist() == FRAME["u"]
    assert data.item_vocabulary[data.item_ids].tolist() == FRAME["i"]
    assert data.timestamps.tolist() == data.ratings.tolist() == FRAME["t"]


def test_a_second_frame():
    train = read(["ann", "bob", "cid"], ["x", "y", "z"])
    later = {"users": ["bob", "cid", "dan"], "items": ["z", "x", "y"], "vocabulary": train}
    with pytest.warns(match="1 of 3 rows are dropped: 1 with an unknown user") as caught:
        test = read(**later, unknown="drop")
    assert caught[0].filename == __file__.replace(".pyc", ".py")
    assert (test.user_ids.tolist(), test.item_ids.tolist()) == ([1, 2], [2, 0])
    new = read(**later, unknown="new")
    assert (new.user_vocabulary.tolist(), new.user_ids.tolist()) == (
        ["ann", "bob", "cid", "dan"],
        [1, 2, 3],
    )
    again = read(["ann", "bob", "cid"], ["x", "y", "z"], vocabulary=new)
    assert again.user_ids.tolist() == train.user_ids.tolist()
    assert (Split(train, test).num_users, Split(again, new).num_users) == (3, 4)
    assert read([1], [2], vocabulary=Interactions([0, 1], [0, 2])).item_ids.tolist() == [2]
    first = Interactions.from_frame({**FRAME, "n": ["a", None, "c"]}, **KEYS, item_name="n")
    more = {"u": ["a", "a"], "i": [3, 9], "n": ["other", "new"]}
    data = Interactions.from_frame(more, **KEYS, item_name="n", vocabulary=first, unknown="new")
    assert data.item_names == ("", "c", "a", "new")


def pairs(largest):
    ids = st.integers(0, largest)
    return st.lists(st.tuples(ids, ids), min_size=1, max_size=20)


@given(pairs(9), pairs(12), st.sampled_from([int, str, float, "category", "Int64"]))
def test_a_second_frame_keeps_all_ids(first, second, kind):
    first, second = (pd.DataFrame(x, columns=["u", "i"]).astype(kind) for x in (first, second))
    before = Interactions.from_frame(first, **KEYS)
    after = Interactions.from_frame(second, **KEYS, vocabulary=before, unknown="new")
    for side in ("user", "item"):
        old, new = (data.original_ids(side).tolist() for data in (before, after))
        assert new[: len(old)] == old and len(set(new)) == len(new)
        assert [new[id_] for id_ in getattr(after, f"{side}_ids")] == second[side[0]].tolist()
