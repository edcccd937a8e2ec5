"""Where load_dataset looks, what it fetches, and what it says when there is nothing to be had."""

from __future__ import annotations

import gzip
import warnings

import numpy as np
import pytest

from recsys_lib.data import (
    DATASETS,
    CorruptFileError,
    DownloadError,
    Interactions,
    Split,
    describe_dataset,
    load_dataset,
    load_folds,
    load_frame,
)
from recsys_lib.data.files import data_home

NCF = {
    "ml-1m.train.rating": b"0\t0\t5\n1\t1\t3\n1\t2\t4\n",
    "ml-1m.test.rating": b"0\t2\t5\t978824351\n1\t3\t3\t978300174\n",
    "ml-1m.test.negative": b"(0,2)\t1\t4\n(1,3)\t0\t3\n",
}
FIELDS = ("ratings", "timestamps", "user_vocabulary", "item_vocabulary", "item_names", "item_texts")
RETAIL_HEADER = (
    "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
)


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No address answers, and the data home is empty."""
    monkeypatch.setenv("RECSYS_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RECSYS_DATA_MIRROR", "http://127.0.0.1:9/nothing")
    return tmp_path / "home"


def put(folder, files):
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def test_data_home(monkeypatch, tmp_path):
    monkeypatch.delenv("RECSYS_DATA_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data_home() == tmp_path / "recsys_lib"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_home() == tmp_path / ".cache" / "recsys_lib"
    monkeypatch.setenv("RECSYS_DATA_HOME", "~/mine")
    assert data_home() == tmp_path / "mine"
    assert data_home(tmp_path / "other") == tmp_path / "other"


@pytest.mark.parametrize("columns", [3, 4])
@pytest.mark.parametrize("packed", [False, True])
def test_ncf_layout(nowhere, columns, packed):
    files = dict(NCF)
    if columns == 4:
        files["ml-1m.train.rating"] = b"0\t0\t5\t7\n1\t1\t3\t8\n1\t2\t4\t9\n"
    if packed:
        files = {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    put(nowhere / "ncf-ml-1m", files)
    split = load_dataset("ncf-ml-1m")
    assert split.train.item_ids.tolist() == [0, 1, 2]
    assert split.train.ratings.tolist() == [5, 3, 4]
    assert split.test.item_ids.tolist() == [2, 3]
    assert split.negatives.tolist() == [[1, 4], [0, 3]]
    assert (split.num_users, split.num_items) == (2, 5)
    assert (split.train.timestamps is not None) == (columns == 4)
    assert (split.test.timestamps is not None) == (columns == 4)


def test_a_whole_data_home_is_only_read(nowhere):
    folder = nowhere / "ncf-ml-1m"
    put(folder, NCF)
    before = {path: path.stat().st_mtime_ns for path in nowhere.rglob("*")}
    load_dataset("ncf-ml-1m")
    assert {path: path.stat().st_mtime_ns for path in nowhere.rglob("*")} == before


@pytest.mark.parametrize(
    ("negatives", "message"),
    [
        (b"(0,2)\t1\t4\n(1,3)\t0\n", "line 2: .* expected .user,item. and 2 item ids"),
        (b"(0,2)\t1\t4\n(1,4)\t0\t3\n", "line 2: .1,4. came: expected the pair"),
        (b"(0,2)\t1\t4\n\n", "line 2: '' came"),
        (b"(0,2)\t1\t4\n", "has 1 lines: expected 2"),
        (b"0,2\t1\t4\n", "line 1"),
        (b"(0,2)\t1\tx\n", "line 1"),
    ],
)
def test_ncf_bad_negatives(nowhere, negatives, message):
    put(nowhere / "ncf-ml-1m", NCF | {"ml-1m.test.negative": negatives})
    with pytest.raises(CorruptFileError, match=message):
        load_dataset("ncf-ml-1m", fallback="synthetic")  # damage is never papered over


def test_what_to_put_where(nowhere):
    with pytest.raises(DownloadError) as raised:
        load_dataset("ncf-ml-1m", progress=False)
    message = str(raised.value)
    for part in (*NCF, str(nowhere / "ncf-ml-1m"), "RECSYS_DATA_HOME", "RECSYS_DATA_MIRROR"):
        assert part in message
    assert describe_dataset("ncf-ml-1m").source in message
    assert not (nowhere / "ncf-ml-1m").exists()


@pytest.mark.parametrize("name", DATASETS)
def test_fallback_gives_the_same_kind_and_columns(nowhere, name):
    info = DATASETS[name]
    with pytest.warns(UserWarning, match=f"{name} is not to be had.*SYNTHETIC") as caught:
        data = load_dataset(name, fallback="synthetic", progress=False)
    assert caught[0].filename == __file__
    assert data.is_synthetic
    assert data.name == f"synthetic (for {name})"
    assert isinstance(data, Split if info.kind == "split" else Interactions)
    rows = data.train if isinstance(data, Split) else data
    for column in FIELDS:
        assert (getattr(rows, column) is not None) == (column in info.columns), column
    if isinstance(data, Split):
        assert (data.validation is not None) == ("validation" in info.columns)
        seen = data.train.to_csr()
        assert seen[data.test.user_ids, data.test.item_ids].sum() == 0
    if name == "ncf-ml-1m":
        assert data.negatives.shape == (len(data.test), 99)
        assert len(data.test) == data.num_users
        met = data.train.to_csr() + data.test.to_csr()
        assert met[np.repeat(data.test.user_ids, 99), data.negatives.ravel()].sum() == 0
        assert all(len(set(row)) == 99 for row in data.negatives.tolist())


def test_fallback_of_folds_and_frame(nowhere):
    with pytest.warns(UserWarning, match="SYNTHETIC"):
        splits = load_folds("ml-100k", fallback="synthetic", progress=False)
    assert len(splits) == 5
    assert all(split.is_synthetic for split in splits)
    with pytest.warns(UserWarning, match="SYNTHETIC"):
        frame = load_frame("online-retail", fallback="synthetic", progress=False)
    assert list(frame.columns) == RETAIL_HEADER.strip().split(",")
    assert (frame.groupby("InvoiceNo")["CustomerID"].nunique() == 1).all()
    assert frame.groupby("InvoiceNo").size().mean() > 1.5


def test_no_warning_when_the_files_are_there(nowhere):
    put(nowhere / "ncf-ml-1m", NCF)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not load_dataset("ncf-ml-1m", fallback="synthetic").is_synthetic


def test_bad_arguments():
    with pytest.raises(
        ValueError, match=r"name is 'ml-1m': expected one of ncf-ml-1m, .*synthetic"
    ):
        load_dataset("ml-1m")
    with pytest.raises(ValueError, match="fallback is 'yes'"):
        load_dataset("ncf-ml-1m", fallback="yes")
    with pytest.raises(ValueError, match="preset is 'films'"):
        load_dataset("synthetic", preset="films")
    with pytest.raises(ValueError, match="expected 'ml-100k'"):
        load_folds("ncf-ml-1m")
    with pytest.raises(ValueError, match="expected 'online-retail'"):
        load_frame("ml-100k")
    with pytest.raises(ValueError, match="expected one of"):
        describe_dataset("ml-1m")


def test_damaged_retail_line(nowhere):
    bad = "536365,85123A,HOLDER,six,2010-12-01 08:26:00,2.55,17850,United Kingdom\n"
    put(nowhere / "online-retail", {"online_retail.csv": (RETAIL_HEADER + bad).encode()})
    with pytest.raises(CorruptFileError, match=r"line 2: Quantity is 'six': expected int64"):
        load_frame("online-retail")
