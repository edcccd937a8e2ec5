"""Invoice lines with every fault that a shop's export has."""

import numpy as np
import pandas as pd
import pytest

from recsys_lib.data import (
    clean_retail,
    load_dataset,
    load_frame,
    split_basket_completion,
    split_next_basket,
)
from recsys_lib.data.readers import RETAIL_COLUMNS

GOOD = ("1", "85048", "MUG", 6, "2011-01-03 10:00", 2.1, 17850, "France")


def frame_of(*rows):
    return pd.DataFrame(list(rows), columns=RETAIL_COLUMNS)


def line(**changes):
    return tuple((dict(zip(RETAIL_COLUMNS, GOOD, strict=True)) | changes).values())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"InvoiceNo": None}, "no invoice"),
        ({"InvoiceDate": "yesterday"}, "no date"),
        ({"InvoiceDate": None}, "no date"),
        ({"StockCode": "POST"}, "no product"),
        ({"StockCode": "gift_0001_10"}, "no product"),
        ({"StockCode": "BANK CHARGES"}, "no product"),
        ({"StockCode": None}, "no product"),
        ({"InvoiceNo": "c9", "StockCode": "11111"}, "a cancellation"),
        ({"Quantity": -6}, "no quantity above zero"),
        ({"Quantity": "six"}, "no quantity above zero"),
        ({"Quantity": np.inf}, "no quantity above zero"),
        ({"Quantity": np.nan}, "no quantity above zero"),
        ({"UnitPrice": 0}, "no price above zero"),
        ({"UnitPrice": "2,10"}, "no price above zero"),
        ({}, "a repeated line"),
        ({"CustomerID": "17850.0", "Description": " MUG "}, "a repeated line"),
        # Everything is wrong with it: counted once, under the first reason.
        ({"InvoiceNo": "", "StockCode": "M", "Quantity": -1, "UnitPrice": -1}, "no invoice"),
    ],
)
def test_a_bad_line_goes_for_its_reason(changes, reason):
    frame = frame_of(GOOD, line(**changes))
    before = frame.copy(deep=True)
    lines, report = clean_retail(frame)
    pd.testing.assert_frame_equal(frame, before)
    assert report[report > 0].to_dict() == {reason: 1, "kept": 1}
    assert report.sum() == 2
    assert lines[["basket", "item", "quantity"]].values.tolist() == [["1", "85048", 6]]


def test_spreadsheet_types_are_read_as_text_is():
    frame = frame_of(GOOD, line(InvoiceNo="2", StockCode="85048a", CustomerID=None))
    mixed = frame.astype({"Quantity": float}).assign(
        InvoiceNo=[1.0, 2], StockCode=[85048.0, "85048A"], CustomerID=["17850.0", ""],
        InvoiceDate=pd.to_datetime(frame["InvoiceDate"]),
    )  # fmt: skip
    first, second = (clean_retail(f)[0] for f in (frame, mixed))
    assert first["item"].tolist() == ["85048", "85048A"]
    assert first["customer"].isna().tolist() == [False, True]
    for column in ("basket", "item", "quantity", "time", "price"):
        assert first[column].tolist() == second[column].tolist()
    assert second["customer"][0] == "17850"


@pytest.mark.parametrize(
    ("cancelled", "left"),
    [
        ([("17850", "85048", -3)], [6, 1]),  # of the last purchase before it, as far as it goes
        ([("17850", "85048", -4)], [6]),
        ([("17850", "85048", -6)], [4]),
        ([("17850", "85048", -4), ("17850", "85048", -1)], [5]),
        ([("17850", "85048", -99)], ValueError),
        ([("17851", "85048", -4), (None, "85048", -4), ("17850", "11111", -4)], [6, 4]),
    ],
)
def test_what_a_cancellation_takes(cancelled, left):
    bought = [GOOD, line(InvoiceNo="2", Quantity=4, InvoiceDate="2011-01-04")]
    later = line(InvoiceNo="3", InvoiceDate="2011-02-01", StockCode="22222")
    cancels = [
        line(InvoiceNo=f"C{n}", CustomerID=who, StockCode=what, Quantity=many, InvoiceDate=when)
        for n, (who, what, many) in enumerate(cancelled)
        for when in ["2011-01-05"]
    ]
    before = line(InvoiceNo="C8", Quantity=-6, InvoiceDate="2010-01-01")  # of something earlier
    if left is ValueError:
        with pytest.raises(ValueError, match="no row is left"):
            clean_retail(frame_of(*bought, *cancels, before))
        return
    lines, report = clean_retail(frame_of(*cancels, later, *bought, before))
    assert lines["quantity"].tolist() == [6, *left]
    assert report["cancelled later"] == 2 - len(left)
    assert report.sum() == 4 + len(cancels)


def test_names_and_times():
    rows = [
        line(Description="MUG  RED"),
        line(InvoiceNo="2", Description="check"),
        line(InvoiceNo="3", Description="MUG RED"),
        line(InvoiceNo="3", StockCode="22222", Description=None, InvoiceDate="2011-01-03 09:59"),
    ]
    lines, _ = clean_retail(frame_of(*rows))
    assert lines["name"].tolist() == ["MUG RED"] * 3 + ["22222"]
    assert lines["time"][2] == lines["time"][3] == pd.Timestamp("2011-01-03 09:59")


@pytest.mark.parametrize("column", RETAIL_COLUMNS)
def test_a_missing_column_is_named(column):
    with pytest.raises(KeyError, match=column):
        clean_retail(frame_of(GOOD).drop(columns=column))


DAYS = [
    ("1", "ann", "10000 20000", 1), ("2", "bob", "10000", 2), ("3", None, "20000 30000", 3),
    ("4", "ann", "10000 30000", 4), ("5", "eve", "30000", 4), ("6", None, "10000 20000 30000", 4),
    ("7", "ann", "20000", 5),
]  # fmt: skip


@pytest.fixture
def lines():
    rows = [
        line(InvoiceNo=basket, StockCode=item, CustomerID=who, InvoiceDate=f"2011-01-0{day}")
        for basket, who, items, day in DAYS
        for item in items.split()
    ]
    return clean_retail(frame_of(*rows))[0]


def test_next_basket(lines):
    split = split_next_basket(lines, 0.5)
    shown = [
        part.to_frame()[["user", "item"]].values.tolist() for part in (split.train, split.test)
    ]
    assert shown[0] == [["ann", "10000"], ["ann", "20000"], ["bob", "10000"]]
    assert shown[1] == [["ann", "10000"], ["ann", "30000"]]  # the first basket, not the second
    assert split.num_items == 3 and split.train.timestamps.max() < split.test.timestamps.min()


def test_basket_completion(lines):
    past, later = split_basket_completion(lines, 0.5)
    assert past.to_frame()["user"].tolist() == ["1", "1", "2", "3", "3"]
    hidden, visible = later.test.to_frame()["user"], later.train.to_frame()["user"]
    # Guests too; baskets of one product have nothing to hide.
    assert sorted(visible) == ["4", "6"]
    assert sorted(hidden) == ["4", "6", "6"]
    assert len(split_basket_completion(lines, 0.5, hidden=0.2)[1].test) == 1  # .6 and .9 of one
    with pytest.raises(ValueError, match="test_fraction is 0"):
        split_basket_completion(lines, 0.5, hidden=0)
    both = later.train.to_csr().multiply(later.test.to_csr())
    assert both.nnz == 0
    draws = {tuple(split_basket_completion(lines, 0.5, seed=n)[1].test.item_ids) for n in range(20)}
    assert len(draws) > 1


def test_synthetic_lines_say_so(tmp_path):
    with pytest.warns(UserWarning, match="SYNTHETIC"):
        frame = load_frame(data_home=tmp_path, fallback="synthetic")
    cleaned, report = clean_retail(frame)
    assert split_next_basket(cleaned).is_synthetic
    assert split_basket_completion(cleaned)[0].is_synthetic
    assert report.sum() == len(frame)


@pytest.mark.slow
def test_the_report_adds_up_on_real_lines(real_data):
    real_data("online-retail")
    frame = load_frame()
    lines, report = clean_retail(frame)
    assert report.sum() == len(frame) == 541_909
    assert report["kept"] == len(lines)
    assert lines["customer"].isna().sum() > 100_000
    assert lines["name"].groupby(lines["item"]).nunique().max() == 1
    assert not split_next_basket(lines).is_synthetic


@pytest.mark.parametrize("name", ["lastfm-hetrec2011-2k", "ml-latest-small"])
def test_tags(real_data, name):
    data, tags = real_data(name), load_frame(name)
    assert list(tags) == ["user", "item", "tag", "time"]
    assert set(tags["item"]) <= set(data.item_vocabulary)
    assert set(tags["user"]) <= set(data.user_vocabulary)
    assert len(tags) == {"lastfm-hetrec2011-2k": 184_941, "ml-latest-small": 3_683}[name]
    assert tags.notna().all().all()


def test_synthetic_tags(tmp_path):
    with pytest.warns(UserWarning, match="SYNTHETIC"):
        tags = load_frame("ml-latest-small", data_home=tmp_path, fallback="synthetic")
    with pytest.warns(UserWarning, match="SYNTHETIC"):
        data = load_dataset("ml-latest-small", data_home=tmp_path, fallback="synthetic")
    assert set(tags["item"]) <= set(data.item_vocabulary)
    with pytest.raises(ValueError, match="name is 'ml-100k'"):
        load_frame("ml-100k")
