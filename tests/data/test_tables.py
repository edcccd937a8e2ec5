"""The reader's own file: what is wrong with it is said, and nothing is guessed."""

import builtins
import gzip

import pandas as pd
import pytest

from recsys_lib.data import DataError, read_interactions

ROWS = """customer,sku,stars,when
ann,007,5,2024-01-02
bob,7,3.5,2024-01-03T10:00
ann,7,1,2024-01-04
"""
ALL = {"user": "customer", "item": "sku", "rating": "stars", "time": "when"}
UIT = {"user": "u", "item": "i", "time": "t"}


@pytest.mark.parametrize("name", ["sales.csv", "sales.csv.gz", "sales.txt"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_whole_file(write, name, encoding):
    data, report = read_interactions(write(ROWS, name, encoding), **ALL)
    assert data.user_vocabulary.tolist() == ["ann", "bob"]
    assert data.item_vocabulary.tolist() == ["007", "7"]  # two ids, as they are written
    assert data.ratings.tolist() == [5, 3.5, 1]
    assert data.timestamps.tolist()[1] - data.timestamps.tolist()[0] == 34 * 3600
    assert (data.name, report.sum(), report["kept"]) == (name, 3, 3)


BAD_ROWS = {
    "no user": [",7,1,2024-01-04", "NULL,7,1,2024-01-04"],
    "no item": ["ann", "ann,,1,2024-01-04"],
    "no number as stars": [f"ann,7,{x},2024-01-04" for x in ("many", "inf", '"1,5"')],
    "no time as when": ["ann,7,1,03/04/2024", "ann,7,1"],
}


@pytest.mark.parametrize("row, reason", [(row, why) for why in BAD_ROWS for row in BAD_ROWS[why]])
def test_a_bad_row_goes_for_its_reason(write, row, reason):
    data, report = read_interactions(write(f"{ROWS}{row}\n", "sales.csv"), **ALL)
    assert len(data) == 3
    assert report[report > 0].to_dict() == {reason: 1, "kept": 3}


def test_repeats(write):
    path = write(ROWS + "bob,7,3.5,2024-01-03T10:00\nbob,7,3.5,2024-01-05\n", "sales.csv")
    assert len(read_interactions(path, **ALL)[0]) == 5
    data, report = read_interactions(path, repeats="drop", **ALL)
    assert (len(data), report["a repeated row"]) == (4, 1)


def test_times(write):
    numbers = write("u,i,t\na,x,1700000000\nb,y,\nc,z,1700000009\n", "n.csv")
    data, report = read_interactions(numbers, **UIT)
    assert (data.timestamps.tolist(), data.time_unit) == ([1700000000, 1700000009], "s")
    assert report["no time as t"] == 1
    days = write("u,i,t\na,x,03/04/2024\nb,y,31/04/2024\n", "d.csv")
    data, _ = read_interactions(days, **UIT, time_format="%d/%m/%Y")
    assert data.to_frame()["time"].tolist() == [pd.Timestamp("2024-04-03")]


def test_other_ways_to_write_it(write):
    path = write("who;what\na;x\nb;y\n", "a.csv")
    data, report = read_interactions(path, separator=";", name="mine")  # two columns need no names
    assert (len(data), data.name) == (2, "mine")
    assert report.to_dict() == {"no user": 0, "no item": 0, "kept": 2}
    path = write("7.0,é\n8,x\n", "b.csv", encoding="latin-1")
    data, _ = read_interactions(path, columns=["u", "i"], encoding="latin-1")
    assert data.user_vocabulary.tolist() == ["7", "8"]
    assert data.item_vocabulary.tolist() == ["x", "é"]


REFUSED = [
    *((ROWS, o, ValueError, "user, item: expected the names") for o in ({}, {"user": "customer"})),
    (ROWS, {"user": "customer", "item": "product"}, KeyError, "item='product'"),
    (ROWS, {"separator": ";"}, ValueError, "user, item: .*see separator"),
    (ROWS, {"repeats": "sum", **ALL}, ValueError, "repeats"),
    ("17,5\n18,6\n", {}, ValueError, "columns is None"),
    ("u17,i5\nu18,i5\nu17,i6\n", {}, ValueError, "columns is None, .*'u17'"),
    ("a,b\n1,2,3\n1,2,3\n", {}, DataError, "more values than the names"),
    ("a,b\n1,2\n1,2,3\n", {}, DataError, "Expected 2 fields in line 3, saw 3"),
    ("a,b\n", {}, ValueError, "frame is empty"),
    ("a,b\n,\n", {}, ValueError, "no row is left"),
    ("", {}, DataError, "is empty"),
    ("a,b\né,1\n".encode("latin-1"), {}, DataError, "encoding='latin-1'"),
    (gzip.compress(ROWS.encode(), mtime=0)[:-9], ALL, DataError, "no whole gzip file"),
]


@pytest.mark.parametrize("text, options, kind, message", REFUSED)
def test_what_is_refused(write, text, options, kind, message):
    path = write(text, "sales.csv.gz" if "gzip" in message else "sales.csv")
    with pytest.raises(kind, match=message):
        read_interactions(path, **options)
    with pytest.raises(DataError, match="cannot be read"):
        read_interactions(path.with_name("nothing.csv"))


def test_parquet_without_pyarrow(write, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **options):
        if name == "pyarrow":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="pip install 'recsys-lib"):
        read_interactions(write("", "sales.parquet"))


def test_parquet(tmp_path, write):
    pytest.importorskip("pyarrow")
    frame = pd.read_csv(write(ROWS, "sales.csv"), dtype={"sku": str})
    frame.loc[len(frame)] = [None, "7", 1.0, "2024-01-04"]
    path = tmp_path / "sales.parquet"
    frame.to_parquet(path)
    data, report = read_interactions(path, **ALL)
    assert data.item_vocabulary.tolist() == ["007", "7"]
    assert report.to_dict()["no user"] == 1 and len(data) == 3
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="no whole Parquet file"):
        read_interactions(path, **ALL)
