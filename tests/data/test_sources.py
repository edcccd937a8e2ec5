"""Where data sets are looked for, how they are fetched, and what happens when they cannot be."""

import gzip
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import warnings
import zipfile
from collections import defaultdict
from dataclasses import replace

import pytest

from recsys_lib.data import DATASETS, DownloadError, Split, load_dataset, load_frame, load_split
from recsys_lib.data.files import CorruptFileError, data_home, path_of, read_bytes
from recsys_lib.data.readers import purchases_of
from recsys_lib.data.sources import PICKLES, pairs_from_pickle

FIELDS = ("ratings", "timestamps", "user_vocabulary", "item_vocabulary", "item_names", "item_texts")
NCF = {
    "ml-1m.train.rating": "0\t0\t5\n1\t1\t3\n1\t2\t4\n",
    "ml-1m.test.rating": "0\t2\t5\t978824351\n1\t3\t3\t978300174\n",
    "ml-1m.test.negative": "(0,2)\t1\t4\n(1,3)\t0\t3\n",
}
LASTFM = {
    "user_artists.dat": "userID\tartistID\tweight\r\n2\t7\t40\r\n5\t7\t1\r\n",
    "artists.dat": 'id\tname\turl\tpictureURL\r\n7\t"Weird" Al\t\t\r\n',
    "tags.dat": "tagID\ttagValue\r\n1\tcaf\xe9\r\n".encode("latin-1"),
    "user_taggedartists.dat": "userID\tartistID\ttagID\tday\tmonth\tyear\r\n2\t7\t1\t1\t4\t9\r\n",
}
RETAIL = b"""InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
536365,85123a,"HOLDER, WHITE",6,12/1/2010 8:26,2.55,17850,United Kingdom
C536366,85123A,HOLDER,-1,12/1/2010 9:00,2.55,17850,United Kingdom
536367,85123A,damaged,4,12/2/2010 9:00,0,,United Kingdom
536368,POST,POSTAGE,1,12/2/2010 9:01,18,12583,France
536369,85123A,"HOLDER, WHITE",2,12/3/2010 9:01,2.55,12583,France
"""


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No address answers, and the data home is empty."""
    monkeypatch.setenv("RECSYS_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RECSYS_DATA_MIRROR", "http://127.0.0.1:9/nothing")
    return tmp_path / "home"


@pytest.fixture
def card(server, monkeypatch):
    """Make a data set come from the test's server, without checksums."""

    def change(name, path="", **changes):
        known, files = DATASETS[name], dict.fromkeys(DATASETS[name].files, ())
        changes = {"address": server.url + path, "checksum": (), "files": files} | changes
        monkeypatch.setitem(DATASETS, name, replace(known, **changes))

    return change


@pytest.fixture
def here(tmp_path):
    return {"data_home": tmp_path, "progress": False}


def fields(data):
    rows = data.train if isinstance(data, Split) else data
    found = {field for field in FIELDS if getattr(rows, field) is not None}
    return found | {f for f in ("negatives", "validation") if getattr(data, f, None) is not None}


def test_data_home(monkeypatch, tmp_path):
    for name in ("RECSYS_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_home() == tmp_path / ".cache" / "recsys_lib"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert data_home() == tmp_path / "x" / "recsys_lib"
    monkeypatch.setenv("RECSYS_DATA_HOME", "~/mine")
    assert data_home() == tmp_path / "mine"
    assert data_home(tmp_path / "other") == tmp_path / "other"


@pytest.mark.parametrize("times", [False, True])
@pytest.mark.parametrize("end", ["", ".gz"])
def test_files_that_are_there_are_only_read(nowhere, card, write, tmp_path, times, end):
    card("ncf-ml-1m")
    (nowhere / "ncf-ml-1m").mkdir(parents=True)
    content = NCF | (
        {"ml-1m.train.rating": "0\t0\t5\t7\n1\t1\t3\t8\n1\t2\t4\t9\n"} if times else {}
    )
    for file, text in content.items():
        write(text, f"home/ncf-ml-1m/{file}{end}")
    before = {path: path.stat().st_mtime_ns for path in nowhere.rglob("*")}
    with warnings.catch_warnings(action="error"):
        split = load_split("ncf-ml-1m", fallback="synthetic")
    assert {path: path.stat().st_mtime_ns for path in nowhere.rglob("*")} == before
    train = split.train.to_frame().to_numpy().tolist()
    assert (train, split.num_items) == ([[0, 0, 5], [1, 1, 3], [1, 2, 4]], 5)
    assert (split.test.item_ids.tolist(), split.negatives.tolist()) == ([2, 3], [[1, 4], [0, 3]])
    assert split.train.timestamps is None  # whichever file was found
    assert load_dataset("ncf-ml-1m").item_ids.tolist() == [0, 1, 2, 2, 3]


CUTS = {
    "lines": lambda content: b"".join(content.splitlines(True)[:-1]),
    "digit": lambda content: content[:-5],
    "bit": lambda content: content[:999] + bytes([content[999] ^ 1]) + content[1000:],
    "UTF-8": lambda content: content.decode("latin-1").replace("x", "é").encode(),
    "empty": lambda content: b"",
}
CHANGES = [*(("ml-100k", cut) for cut in CUTS), *((name, "lines") for name in DATASETS)]


@pytest.mark.parametrize("name, cut", dict.fromkeys(CHANGES))
def test_changed_files(real_data, tmp_path, name, cut):
    real_data(name)  # or skip
    shutil.copytree(data_home() / name, tmp_path / name, copy_function=os.symlink)
    file = [f for f in DATASETS[name].files if not f.endswith((".base", ".test"))][-1]
    path, changed = path_of(tmp_path / name, file), tmp_path / name / file
    content, lines = read_bytes(path), read_bytes(path).count(b"\n")
    path.unlink()
    changed.write_bytes(CUTS[cut](content))
    word = f" {lines - 1} lines,? .*expected {lines} lines" if cut == "lines" else ""
    for _ in range(2):
        with pytest.raises(CorruptFileError, match=re.escape(str(changed)) + ".*" + word):
            load_dataset(name, data_home=tmp_path, fallback="synthetic")
    if name == "ml-100k":  # as it was: looked at again
        changed.write_bytes(content)
        assert len(load_dataset(name, data_home=tmp_path)) == 100_000


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_killed_download(card, server, tmp_path, here, names_in, how):
    def slow(handler):
        handler.begin(1000, b"0\t0\t5\n")
        process.send_signal(how)
        process.wait()

    card("ncf-ml-1m")
    server.routes = {f"/ncf-ml-1m/{name}": slow for name in NCF}
    code = "import sys, recsys_lib.data as d; d.load_split('ncf-ml-1m', data_home=sys.argv[1])"
    environment = os.environ | {"RECSYS_DATA_MIRROR": server.url}
    command = [sys.executable, "-c", code, str(tmp_path)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    process.wait(60)
    assert (tmp_path / "ncf-ml-1m").exists() == (how == signal.SIGKILL)
    server.routes = {f"/{name}": content.encode() for name, content in NCF.items()}
    load_split("ncf-ml-1m", **here)
    assert names_in(tmp_path / "ncf-ml-1m") == sorted(NCF)


def test_what_to_put_where(nowhere):
    with pytest.raises(DownloadError) as raised:
        load_split("ncf-ml-1m", progress=False)
    parts = [*NCF, str(nowhere / "ncf-ml-1m"), DATASETS["ncf-ml-1m"].source, "RECSYS_DATA_MIRROR"]
    assert all(part in str(raised.value) for part in [*parts, "RECSYS_DATA_HOME"])
    assert not (nowhere / "ncf-ml-1m").exists()


@pytest.mark.parametrize("name", DATASETS)
def test_stand_ins(nowhere, real_data, monkeypatch, name):
    known, options = DATASETS[name], {"progress": False, "fallback": "synthetic"}
    with pytest.warns(UserWarning, match=f"{name} is not to be had.*SYNTHETIC") as caught:
        data = load_dataset(name, **options)
        splits = [load_split(name, fold=n + 1, **options) for n in range(known.num_splits)]
    assert {warning.filename for warning in caught} == {__file__}
    ids = {"user_vocabulary", "item_vocabulary"} if "item_names" in known.columns else set()
    assert fields(data) == set(known.columns) | ids
    assert data.is_synthetic and data.name == f"synthetic (for {name})"
    for split in splits:
        assert split.is_synthetic
        assert fields(split) - {"negatives", "validation"} == fields(data)
        assert len(split.all_rows()) == len(data)
        assert split.train.to_csr()[split.test.user_ids, split.test.item_ids].sum() == 0
        if split.negatives is not None:
            assert split.negatives.shape == (split.num_users, 99)
            assert all(len(set(row)) == 99 for row in split.negatives.tolist())
    monkeypatch.undo()
    real = real_data(name)  # or skip
    assert fields(splits[0] if isinstance(real, Split) else data) == fields(real)


REFUSED = [
    (load_dataset, "ml-1m", {}, "name is 'ml-1m': .*ncf-ml-1m, .*synthetic"),
    (load_dataset, "ml-100k", {"fallback": "yes"}, "fallback is 'yes'"),
    (load_dataset, "synthetic", {"preset": "films"}, "preset is 'films'"),
    (load_split, "ml-latest-small", {}, "name is 'ml-latest-small'"),
    (load_split, "ml-100k", {"fold": 6}, "fold is 6"),
    (load_frame, "ml-100k", {}, "name is 'ml-100k'"),
]


@pytest.mark.parametrize("load, name, options, word", REFUSED)
def test_refuses(load, name, options, word):
    with pytest.raises(ValueError, match=word):
        load(name, **options)


def test_mirror(server, card, write, tmp_path, here, monkeypatch, names_in):
    monkeypatch.setenv("RECSYS_DATA_MIRROR", server.url + "/data/")
    card("ncf-ml-1m")
    folder, routes = tmp_path / "ncf-ml-1m", server.routes
    folder.mkdir()
    write(NCF["ml-1m.test.rating"], "ncf-ml-1m/ml-1m.test.rating")
    routes["/data/ncf-ml-1m/ml-1m.train.rating.gz"] = gzip.compress(b"0\t0\t5\n1\t1\t3\n", mtime=0)
    routes["/data/ncf-ml-1m/ml-1m.test.negative"] = NCF["ml-1m.test.negative"].encode()
    for _ in range(2):
        assert len(load_split("ncf-ml-1m", **here).train) == 2
        files = ["ml-1m.test.negative", "ml-1m.test.rating", "ml-1m.train.rating.gz"]
        assert names_in(folder) == files
        assert sorted(path for path in server.requests if path in routes) == sorted(routes)
        assert "/data/ncf-ml-1m/ml-1m.test.rating" not in server.requests  # that one was there


OTHER, PACKED = b"0 1\n", gzip.compress(b"0 1 2\n" * 99, mtime=0)
WRONG = [("", OTHER, "checksum"), (".gz", PACKED, "checksum"), (".gz", PACKED[:-9], "gzip")]


@pytest.mark.parametrize("end, content, word", WRONG)
def test_mirror_is_checked(server, tmp_path, here, monkeypatch, names_in, end, content, word):
    monkeypatch.setenv("RECSYS_DATA_MIRROR", server.url)
    server.routes = {f"/adressa-macr/{name}{end}": content for name in ("train.txt", "test.txt")}
    with pytest.raises(DownloadError, match=word):
        load_split("adressa-macr", **here)
    assert names_in(tmp_path) == []


def test_archive(server, card, tmp_path, here, names_in):
    name = "lastfm-hetrec2011-2k"
    with zipfile.ZipFile(tmp_path / "l.zip", "w") as archive:
        for file, content in LASTFM.items():
            archive.writestr(file, content)
    server.routes["/l.zip"] = (tmp_path / "l.zip").read_bytes()
    card(name, "/l.zip")
    data = load_dataset(name, **here)
    assert (data.item_texts, data.ratings.tolist()) == (('"Weird" Al café',), [40, 1])
    assert names_in(tmp_path / name) == sorted(DATASETS[name].files)


def test_pickles_become_text(server, card, here, monkeypatch):
    train = defaultdict(dict, {1: {3: 1, 2: 1}, 0: {5: 1}})
    parts = {"train_mat_0": train, "valid_sample_0": {0: 1, 1: 4}, "test_sample_0": {0: [2]}}
    server.routes = {f"/{name}": pickle.dumps(part) for name, part in parts.items()}
    card("citeulike-derrd")
    for file, (member, _) in list(PICKLES.items()):
        monkeypatch.setitem(PICKLES, file, (member, ()))
    split = load_split("citeulike-derrd", **here)
    assert split.train.to_frame().to_numpy().tolist() == [[0, 5], [1, 2], [1, 3]]
    assert (split.validation.item_ids.tolist(), split.test.item_ids.tolist()) == ([1, 4], [2])


@pytest.mark.parametrize("call", [(os.mkdir, ("evil",)), (eval, ("1",))])
def test_pickles_run_nothing(tmp_path, monkeypatch, names_in, call):
    monkeypatch.chdir(tmp_path)
    kind = type("Evil", (), {"__reduce__": lambda self: call})
    with pytest.raises(DownloadError, match="is not allowed in a data file"):
        pairs_from_pickle(pickle.dumps({0: kind()}))
    assert names_in(tmp_path) == []


def test_retail_from_uci(server, card, tmp_path, here, names_in):
    server.routes["/data.csv"] = RETAIL
    card("online-retail", "/data.csv")
    with pytest.raises(DownloadError, match="has 5 rows: expected 541909"):
        load_dataset("online-retail", **here)
    assert names_in(tmp_path) == []
    card("online-retail", "/data.csv", statistics={"rows": 5, "quantity": 12})
    frame = load_frame("online-retail", **here)
    assert (len(frame), str(frame["InvoiceDate"][0])) == (5, "2010-12-01 08:26:00")
    data = load_dataset("online-retail", **here)
    assert data.user_vocabulary[data.user_ids].tolist() == [17850, 12583]
    assert (data.item_vocabulary.tolist(), data.item_names) == (["85123A"], ("HOLDER, WHITE",))
    assert data.ratings.tolist() == [6, 2]
    mixed = frame.astype({"CustomerID": float, "Quantity": float})  # as from a spreadsheet
    for column, kind in (("InvoiceNo", int), ("StockCode", float)):
        mixed[column] = [kind(v) if v.isdigit() else v for v in mixed[column]]
    report = "3 of 5 rows are dropped: 1 without a customer, 1 .*quantity.*, 1 .*, 1 .*product code"
    with pytest.warns(UserWarning, match=report):
        again = purchases_of(mixed)
    for field in ("user_ids", "item_ids", "timestamps", "user_vocabulary", "item_vocabulary"):
        assert getattr(again, field).tolist() == getattr(data, field).tolist()
    path = tmp_path / "online-retail" / "online_retail.csv.gz"
    content = gzip.decompress(path.read_bytes())
    for wrong, word in ((b",six,", "six"), (b",7,", "quantity is 13: expected 12")):
        path.write_bytes(gzip.compress(content.replace(b",6,", wrong)))
        with pytest.raises(CorruptFileError, match=word):
            load_frame("online-retail", data_home=tmp_path)
