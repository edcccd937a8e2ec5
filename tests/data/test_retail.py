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


def clean(*rows):
    """Clean lines that are GOOD but for these changes."""
    whole = [dict(zip(RETAIL_COLUMNS, GOOD, strict=True)) | changes for changes in rows]
    return clean_retail(pd.DataFrame(whole, columns=RETAIL_COLUMNS))


# Everything is wrong with the last one: counted once, under the first reason.
WORST = {"InvoiceNo": "", "StockCode": "M", "Quantity": -1, "UnitPrice": -1}
BAD = {
    "no invoice": [{"InvoiceNo": None}, WORST],
    "no date": [{"InvoiceDate": bad} for bad in ("yesterday", None)],
    "no product": [{"StockCode": x} for x in ("POST", "gift_0001_10", "BANK CHARGES", None)],
    "a cancellation": [{"InvoiceNo": "c9", "StockCode": "11111"}],
    "no quantity above zero": [{"Quantity": bad} for bad in (-6, "six", np.inf, np.nan)],
    "no price above zero": [{"UnitPrice": bad} for bad in (0, "2,10")],
    "a repeated line": [{}, {"CustomerID": "17850.0", "Description": " MUG "}],
}


@pytest.mark.parametrize("changes, reason", [(line, why) for why in BAD for line in BAD[why]])
def test_a_bad_line_goes_for_its_reason(changes, reason):
    lines, report = clean({}, changes)
    assert report[report > 0].to_dict() == {reason: 1, "kept": 1}
    assert report.sum() == 2
    assert lines[["basket", "item", "quantity"]].values.tolist() == [["1", "85048", 6]]


def test_spreadsheet_types_are_read_as_text_is_and_the_frame_stays():
    rows = [GOOD, ("2", "85048a", *GOOD[2:6], None, "France")]
    frame = pd.DataFrame(rows, columns=RETAIL_COLUMNS)
    mixed = frame.astype({"Quantity": float}).assign(
        InvoiceNo=[1.0, 2], StockCode=[85048.0, "85048A"], CustomerID=["17850.0", ""],
        InvoiceDate=pd.to_datetime(frame["InvoiceDate"]),
    )  # fmt: skip
    before = mixed.copy(deep=True)
    first, second = (clean_retail(f)[0] for f in (frame, mixed))
    pd.testing.assert_frame_equal(mixed, before)
    assert first["item"].tolist() == ["85048", "85048A"]
    assert first["customer"].isna().tolist() == [False, True]
    for column in ("basket", "item", "quantity", "time", "price"):
        assert first[column].tolist() == second[column].tolist()
    assert second["customer"][0] == "17850"


CANCELLED = [
    ([("17850", "85048", -3)], [6, 1]),  # of the last purchase before it, as far as it goes
    ([("17850", "85048", -4)], [6]),
    ([("17850", "85048", -6)], [4]),
    ([("17850", "85048", -4), ("17850", "85048", -1)], [5]),
    ([("17851", "85048", -4), (None, "85048", -4), ("17850", "11111", -4)], [6, 4]),
    ([("17850", "85048", -99)], []),
]


@pytest.mark.parametrize("cancelled, left", CANCELLED)
def test_what_a_cancellation_takes(cancelled, left):
    bought = [{}, {"InvoiceNo": "2", "Quantity": 4, "InvoiceDate": "2011-01-04"}]
    other = {"InvoiceNo": "3", "InvoiceDate": "2011-02-01", "StockCode": "22222"}
    cancels = [
        {"InvoiceNo": f"C{n}", "CustomerID": who, "StockCode": what, "Quantity": many}
        | {"InvoiceDate": "2011-01-05"}
        for n, (who, what, many) in enumerate(cancelled)
    ]
    before = {"InvoiceNo": "C8", "Quantity": -6, "InvoiceDate": "2010-01-01"}  # of earlier ones
    lines, report = clean(*cancels, other, *bought, before)
    assert lines["quantity"].tolist() == [6, *left]
    assert report["cancelled later"] == 2 - len(left)
    assert report.sum() == 4 + len(cancels)
    if not left:
        with pytest.raises(ValueError, match="no row is left"):
            clean(*bought, *cancels, before)


def test_names_and_times():
    lines, _ = clean(
        {"Description": "MUG  RED"},
        {"InvoiceNo": "2", "Description": "check"},
        {"InvoiceNo": "3", "Description": "MUG RED"},
        {"InvoiceNo": "3", "StockCode": "22222", "Description": None}
        | {"InvoiceDate": "2011-01-03 09:59"},
    )
    assert lines["name"].tolist() == ["MUG RED"] * 3 + ["22222"]
    assert lines["time"][2] == lines["time"][3] == pd.Timestamp("2011-01-03 09:59")


@pytest.mark.parametrize("column", RETAIL_COLUMNS)
def test_a_missing_column_is_named(column):
    with pytest.raises(KeyError, match=column):
        clean_retail(pd.DataFrame([GOOD], columns=RETAIL_COLUMNS).drop(columns=column))


DAYS = [
    ("1", "ann", "10000 20000", 1), ("2", "bob", "10000", 2), ("3", None, "20000 30000", 3),
    ("4", "ann", "10000 30000", 4), ("5", "eve", "30000", 4), ("6", None, "10000 20000 30000", 4),
    ("7", "ann", "20000", 5),
]  # fmt: skip


@pytest.fixture
def lines():
    return clean(
        *(
            {"InvoiceNo": basket, "StockCode": item, "CustomerID": who}
            | {"InvoiceDate": f"2011-01-0{day}"}
            for basket, who, items, day in DAYS
            for item in items.split()
        )
    )[0]


def test_next_basket(lines):
    split = split_next_basket(lines, 0.5)
    train, test = (
        part.to_frame()[["user", "item"]].values.tolist() for part in (split.train, split.test)
    )
    assert train == [["ann", "10000"], ["ann", "20000"], ["bob", "10000"]]
    assert test == [["ann", "10000"], ["ann", "30000"]]  # the first basket, not the second
    assert split.num_items == 3 and split.train.timestamps.max() < split.test.timestamps.min()


def test_basket_completion(lines):
    past, later = split_basket_completion(lines, 0.5)
    assert past.to_frame()["user"].tolist() == ["1", "1", "2", "3", "3"]
    # Guests too; baskets of one product have nothing to hide.
    assert sorted(later.train.to_frame()["user"]) == ["4", "6"]
    assert sorted(later.test.to_frame()["user"]) == ["4", "6", "6"]
    assert later.train.to_csr().multiply(later.test.to_csr()).nnz == 0
    assert len(split_basket_completion(lines, 0.5, hidden=0.2)[1].test) == 1  # .6 and .9 of one
    draws = {tuple(split_basket_completion(lines, 0.5, seed=n)[1].test.item_ids) for n in range(20)}
    assert len(draws) > 1
    with pytest.raises(ValueError, match="test_fraction is 0"):
        split_basket_completion(lines, 0.5, hidden=0)


def test_synthetic_lines_and_tags_say_so(tmp_path):
    synthetic = {"data_home": tmp_path, "fallback": "synthetic"}
    with pytest.warns(UserWarning, match="SYNTHETIC"):
        frame = load_frame(**synthetic)
    lines, report = clean_retail(frame)
    assert split_next_basket(lines).is_synthetic and split_basket_completion(lines)[0].is_synthetic
    assert report.sum() == len(frame)
    with pytest.warns(UserWarning, match="SYNTHETIC"):
        tags = load_frame("ml-latest-small", **synthetic)
        data = load_dataset("ml-latest-small", **synthetic)
    assert set(tags["item"]) <= set(data.item_vocabulary)


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


@pytest.mark.parametrize(
    "name, rows", [("lastfm-hetrec2011-2k", 184_941), ("ml-latest-small", 3_683)]
)
def test_tags(real_data, name, rows):
    data, tags = real_data(name), load_frame(name)
    assert list(tags) == ["user", "item", "tag", "time"]
    assert set(tags["item"]) <= set(data.item_vocabulary)
    assert set(tags["user"]) <= set(data.user_vocabulary)
    assert len(tags) == rows and tags.notna().all().all()
