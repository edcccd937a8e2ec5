"""How files are fetched: official addresses, archives, pickles, mirrors."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import zipfile
from collections import defaultdict

import pytest

from recsys_lib.data import DATASETS, DownloadError, load_dataset, load_frame, sources
from recsys_lib.data.sources import pairs_from_pickle

NCF = {
    "ml-1m.train.rating": b"0\t0\t5\n1\t1\t3\n1\t2\t4\n",
    "ml-1m.test.rating": b"0\t2\t5\t978824351\n1\t3\t3\t978300174\n",
    "ml-1m.test.negative": b"(0,2)\t1\t4\n(1,3)\t0\t3\n",
}
RETAIL_HEADER = (
    "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def put(folder, files):
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def test_mirror_with_plain_and_packed_files(server, tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_DATA_MIRROR", server.url + "/data/")
    monkeypatch.setattr(sources, "CHECKSUMS", {})
    server.routes = {f"/data/ncf-ml-1m/{name}": content for name, content in NCF.items()}
    train = server.routes.pop("/data/ncf-ml-1m/ml-1m.train.rating")
    server.routes["/data/ncf-ml-1m/ml-1m.train.rating.gz"] = gzip.compress(train)
    split = load_dataset("ncf-ml-1m", data_home=tmp_path, progress=False)
    assert len(split.train) == 3
    assert names_in(tmp_path / "ncf-ml-1m") == [
        "ml-1m.test.negative",
        "ml-1m.test.rating",
        "ml-1m.train.rating.gz",
    ]
    asked = len(server.requests)
    load_dataset("ncf-ml-1m", data_home=tmp_path, progress=False)
    assert len(server.requests) == asked


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mirror_is_checked(server, tmp_path, monkeypatch, suffix):
    monkeypatch.setenv("RECSYS_DATA_MIRROR", server.url)
    content = gzip.compress(b"0 1 2\n") if suffix else b"0 1 2\n"
    server.routes = {f"/adressa-macr/{name}{suffix}": content for name in ("train.txt", "test.txt")}
    with pytest.raises(DownloadError, match="wrong checksum"):
        load_dataset("adressa-macr", data_home=tmp_path, progress=False)
    assert names_in(tmp_path) == []


def test_mirror_serves_a_damaged_gzip(server, tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_DATA_MIRROR", server.url)
    server.routes = {"/adressa-macr/train.txt.gz": gzip.compress(b"0 1 2\n" * 99)[:-9]}
    with pytest.raises(DownloadError, match="no whole gzip file"):
        load_dataset("adressa-macr", data_home=tmp_path, progress=False)
    assert names_in(tmp_path) == []


def test_only_missing_files_are_fetched(server, tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_DATA_MIRROR", server.url)
    monkeypatch.setattr(sources, "CHECKSUMS", {})
    put(tmp_path / "adressa-macr", {"train.txt": b"0 1 2\n"})
    server.routes = {"/adressa-macr/test.txt": b"0 3\n1 0\n"}
    split = load_dataset("adressa-macr", data_home=tmp_path, progress=False)
    assert server.requests == ["/adressa-macr/test.txt"]
    assert split.test.item_ids.tolist() == [3, 0]
    assert split.train.to_frame().to_numpy().tolist() == [[0, 1], [0, 2]]


def test_official_address_with_git_blob_ids(server, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "FILES", {"adressa-macr": server.url})
    server.routes = {"/train.txt": b"0 1 2\n", "/test.txt": b"0 3\n"}
    with pytest.raises(
        DownloadError, match="expected git:bd8920e78e87ce47552862cdacc3695ba6fb42c6"
    ):
        load_dataset("adressa-macr", data_home=tmp_path, progress=False)
    assert names_in(tmp_path) == []


def test_archive(server, tmp_path, monkeypatch):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("user_artists.dat", "userID\tartistID\tweight\r\n2\t7\t40\r\n5\t7\t1\r\n")
        archive.writestr("artists.dat", 'id\tname\turl\tpictureURL\r\n7\t"Weird" Al\t\t\r\n')
        archive.writestr("tags.dat", "tagID\ttagValue\r\n1\tcaf\xe9\r\n".encode("latin-1"))
        tagged = "userID\tartistID\ttagID\tday\tmonth\tyear\r\n2\t7\t1\t1\t4\t2009\r\n"
        archive.writestr("user_taggedartists.dat", tagged)
    server.routes["/l.zip"] = buffer.getvalue()
    name = "lastfm-hetrec2011-2k"
    monkeypatch.setattr(sources, "ARCHIVES", {name: (server.url + "/l.zip", (), "")})
    data = load_dataset(name, data_home=tmp_path, progress=False)
    assert data.item_texts == ('"Weird" Al café',)
    assert data.ratings.tolist() == [40, 1]
    assert names_in(tmp_path / name) == sorted(DATASETS[name].files)


def test_archive_that_points_out_of_the_folder(server, tmp_path, monkeypatch):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("ml-100k/u.data", "1\t1\t1\t1\n")
        archive.writestr("ml-100k/u.item", "")
        archive.writestr("../../evil", "")
    server.routes["/m.zip"] = buffer.getvalue()
    monkeypatch.setattr(sources, "ARCHIVES", {"ml-100k": (server.url + "/m.zip", (), "ml-100k/")})
    with pytest.raises(DownloadError, match="points out of the folder"):
        load_dataset("ml-100k", data_home=tmp_path / "home", progress=False)
    assert list(tmp_path.rglob("*")) == [tmp_path / "home"]


def test_pickles_become_text(server, tmp_path, monkeypatch):
    train = defaultdict(dict, {1: {3: 1, 2: 1}, 0: {5: 1}})
    parts = {"train_mat_0": train, "valid_sample_0": {0: 1, 1: 4}, "test_sample_0": {0: [2]}}
    server.routes = {
        f"/Dataset/citeULike/LOO/{name}": pickle.dumps(part) for name, part in parts.items()
    }
    monkeypatch.setattr(sources, "_DERRD", server.url)
    unchecked = {file: (member, ()) for file, (member, _) in sources.PICKLES.items()}
    monkeypatch.setattr(sources, "PICKLES", unchecked)
    split = load_dataset("citeulike-derrd", data_home=tmp_path, progress=False)
    assert split.train.to_frame().to_numpy().tolist() == [[0, 5], [1, 2], [1, 3]]
    assert split.validation.item_ids.tolist() == [1, 4]
    assert split.test.item_ids.tolist() == [2]


@pytest.mark.parametrize(
    "evil", [{"__reduce__": (os.system, ("touch evil",))}, {"__reduce__": (eval, ("1",))}]
)
def test_pickles_run_nothing(tmp_path, monkeypatch, evil):
    monkeypatch.chdir(tmp_path)
    kind = type("Evil", (), {"__reduce__": lambda self: evil["__reduce__"]})
    with pytest.raises(DownloadError, match="is not allowed in a data file"):
        pairs_from_pickle(pickle.dumps({0: kind()}), "evil")
    assert names_in(tmp_path) == []


def test_retail_from_uci(server, tmp_path, monkeypatch):
    lines = [
        '536365,85123a,"HOLDER, WHITE",6,12/1/2010 8:26,2.55,17850,United Kingdom',
        "C536366,85123A,HOLDER,-1,12/1/2010 9:00,2.55,17850,United Kingdom",
        "536367,85123A,damaged,4,12/2/2010 9:00,0,,United Kingdom",
        "536368,POST,POSTAGE,1,12/2/2010 9:01,18,12583,France",
        '536369,85123A,"HOLDER, WHITE",2,12/3/2010 9:01,2.55,12583,France',
    ]
    server.routes["/data.csv"] = (RETAIL_HEADER + "\n".join(lines) + "\n").encode()
    monkeypatch.setattr(sources, "RETAIL_URL", server.url + "/data.csv")
    with pytest.raises(DownloadError, match="has 5 rows: expected 541909"):
        load_dataset("online-retail", data_home=tmp_path, progress=False)
    assert names_in(tmp_path) == []
    monkeypatch.setattr(sources, "RETAIL_ROWS", 5)
    frame = load_frame("online-retail", data_home=tmp_path, progress=False)
    assert len(frame) == 5
    assert str(frame["InvoiceDate"][0]) == "2010-12-01 08:26:00"
    assert frame["CustomerID"].isna().tolist() == [False, False, True, False, False]
    data = load_dataset("online-retail", data_home=tmp_path, progress=False)
    assert data.user_vocabulary[data.user_ids].tolist() == [17850, 12583]
    assert data.item_vocabulary.tolist() == ["85123A"]
    assert data.ratings.tolist() == [6, 2]
    assert data.item_names == ("HOLDER, WHITE",)
