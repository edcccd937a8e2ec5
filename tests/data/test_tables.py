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


@pytest.fixture
def file(tmp_path):
    def write(text, name="sales.csv", encoding="utf-8"):
        path = tmp_path / name
        content = text if isinstance(text, bytes) else text.encode(encoding)
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    return write


@pytest.mark.parametrize("name", ["sales.csv", "sales.csv.gz", "sales.txt"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_whole_file(file, name, encoding):
    data, report = read_interactions(file(ROWS, name, encoding), **ALL)
    assert data.user_vocabulary.tolist() == ["ann", "bob"]
    assert data.item_vocabulary.tolist() == ["007", "7"]  # two ids, as they are written
    assert data.ratings.tolist() == [5, 3.5, 1]
    assert data.timestamps.tolist()[1] - data.timestamps.tolist()[0] == 34 * 3600
    assert (data.name, report.sum(), report["kept"]) == (name, 3, 3)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",7,1,2024-01-04", "no user"),
        ("NULL,7,1,2024-01-04", "no user"),
        ("ann", "no item"),  # cut
        ("ann,,1,2024-01-04", "no item"),
        ("ann,7,many,2024-01-04", "no number as stars"),
        ("ann,7,inf,2024-01-04", "no number as stars"),
        ('ann,7,"1,5",2024-01-04', "no number as stars"),
        ("ann,7,1,03/04/2024", "no time as when"),
        ("ann,7,1", "no time as when"),
    ],
)
def test_a_bad_row_goes_for_its_reason(file, row, reason):
    data, report = read_interactions(file(f"{ROWS}{row}\n"), **ALL)
    assert len(data) == 3
    assert report[report > 0].to_dict() == {reason: 1, "kept": 3}


def test_repeats(file):
    path = file(ROWS + "bob,7,3.5,2024-01-03T10:00\nbob,7,3.5,2024-01-05\n")
    assert len(read_interactions(path, **ALL)[0]) == 5
    data, report = read_interactions(path, repeats="drop", **ALL)
    assert (len(data), report["a repeated row"]) == (4, 1)
    with pytest.raises(ValueError, match="repeats"):
        read_interactions(path, repeats="sum", **ALL)


def test_times(file):
    numbers = file("u,i,t\na,x,1700000000\nb,y,\nc,z,1700000009\n", "n.csv")
    data, report = read_interactions(numbers, user="u", item="i", time="t")
    assert (data.timestamps.tolist(), data.time_unit) == ([1700000000, 1700000009], "s")
    assert report["no time as t"] == 1
    days = file("u,i,t\na,x,03/04/2024\nb,y,31/04/2024\n", "d.csv")
    data, report = read_interactions(days, user="u", item="i", time="t", time_format="%d/%m/%Y")
    assert data.to_frame()["time"].tolist() == [pd.Timestamp("2024-04-03")]


def test_two_columns_need_no_names(file):
    data, report = read_interactions(file("who;what\na;x\nb;y\n"), separator=";", name="mine")
    assert (len(data), data.name, report.to_dict()) == (
        2, "mine", {"no user": 0, "no item": 0, "kept": 2},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "options", "kind", "message"),
    [
        (ROWS, {}, ValueError, "user, item: expected the names"),
        (ROWS, {"user": "customer"}, ValueError, "user, item: expected the names"),
        (ROWS, {"user": "customer", "item": "product"}, KeyError, "item='product'"),
        (ROWS, {"separator": ";"}, ValueError, "user, item: .*see separator"),
        ("17,5\n18,6\n", {}, ValueError, "columns is None"),
        ("u17,i5\nu18,i5\nu17,i6\n", {}, ValueError, "columns is None, .*'u17'"),
        ("a,b\n1,2,3\n1,2,3\n", {}, DataError, "more values than the names"),
        ("a,b\n1,2\n1,2,3\n", {}, DataError, "Expected 2 fields in line 3, saw 3"),
        ("a,b\n", {}, ValueError, "frame is empty"),
        ("a,b\n,\n", {}, ValueError, "no row is left"),
        ("", {}, DataError, "is empty"),
        ("a,b\né,1\n".encode("latin-1"), {}, DataError, "encoding='latin-1'"),
    ],
)
def test_what_is_refused(file, text, options, kind, message):
    with pytest.raises(kind, match=message):
        read_interactions(file(text), **options)


def test_other_ways_to_write_it(file):
    path = file("7.0,é\n8,x\n", encoding="latin-1")
    data, _ = read_interactions(path, columns=["u", "i"], encoding="latin-1")
    assert (data.user_vocabulary.tolist(), data.item_vocabulary.tolist()) == (
        ["7", "8"],
        ["x", "é"],
    )
    cut = path.with_suffix(".csv.gz")
    cut.write_bytes(gzip.compress(ROWS.encode())[:-9])
    with pytest.raises(DataError, match="no whole gzip file"):
        read_interactions(cut, **ALL)
    with pytest.raises(DataError, match="cannot be read"):
        read_interactions(path.with_name("nothing.csv"))


def test_parquet_without_pyarrow(file, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **options):
        if name == "pyarrow":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="pip install 'recsys-lib"):
        read_interactions(file("", "sales.parquet"))


def test_parquet(tmp_path, file):
    pytest.importorskip("pyarrow")
    frame = pd.read_csv(file(ROWS), dtype={"sku": str})
    frame.loc[len(frame)] = [None, "7", 1.0, "2024-01-04"]
    path = tmp_path / "sales.parquet"
    frame.to_parquet(path)
    data, report = read_interactions(path, **ALL)
    assert data.item_vocabulary.tolist() == ["007", "7"]
    assert report.to_dict()["no user"] == 1 and len(data) == 3
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="no whole Parquet file"):
        read_interactions(path, **ALL)
