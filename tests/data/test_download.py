"""Every way in which a download can fail, against a server on 127.0.0.1."""

import errno
import hashlib
import socket
import time
import zipfile
from pathlib import Path

import pooch
import pytest

from recsys_lib.data import DataError, DownloadError, fetch
from recsys_lib.data.download import extract

CERTIFICATES = Path(__file__).parent / "certificates"
CONTENT = b"1\t2\t3\n" * 100_000
WRONG = "sha256:" + "0" * 64
RIGHT = (
    "100000 lines, 600000 bytes, sha256:" + hashlib.sha256(CONTENT).hexdigest(),
    "md5:" + hashlib.md5(CONTENT).hexdigest(),
    (WRONG, "git:bb6b9aecfa9a372296f42fdcd691abad181010d3"),  # of `git hash-object`
)


def cut_short(handler):
    handler.begin(1000, b"x" * 400)


@pytest.fixture
def get(tmp_path):
    return lambda url, **options: fetch(url + "/a", tmp_path / "a", progress=False, **options)


@pytest.mark.parametrize("checksum", [*RIGHT, ()])
def test_fetch(server, tmp_path, capsys, names_in, checksum):
    server.routes["/a"] = CONTENT
    target = fetch(server.url + "/a", tmp_path / "new" / "a", checksum=checksum)
    assert target.read_bytes() == CONTENT
    assert target.stat().st_mode & 0o777 == 0o644
    assert names_in(tmp_path) == ["new", "new/a"]
    printed = capsys.readouterr().err
    assert "100%" in printed and "Downloading" not in printed  # a bar, and nothing else
    server.routes["/a"] = b"changed"
    fetch(server.url + "/a", target, checksum=checksum, progress=False)  # it is there
    assert target.read_bytes() == CONTENT
    assert capsys.readouterr().err == ""
    target.write_bytes(CONTENT[:-1])
    if checksum:
        with pytest.raises(DownloadError, match="wrong checksum"):
            fetch(server.url + "/a", target, checksum=checksum)


ANSWERS = [(cut_short, "broke off"), (b"changed", "wrong checksum"), (b"", "is empty")]
ANSWERS += [(status, f"answers {status}") for status in (403, 404, 500)]


@pytest.mark.parametrize("answer, word", ANSWERS)
def test_wrong_answers(server, get, tmp_path, names_in, answer, word):
    is_status = isinstance(answer, int)
    server.routes["/a"] = (lambda handler: handler.send_error(answer)) if is_status else answer
    with pytest.raises(DownloadError, match=word) as raised:
        get(server.url, checksum=WRONG)
    assert names_in(tmp_path) == []
    assert raised.value.status == (answer if is_status else None)
    assert len(server.requests) == (2 if answer is cut_short else 1)
    server.routes["/a"] = b"better now"  # an answer is no reason to give the host up
    get(server.url)


def test_second_try(server, get):
    def first_time(handler):
        server.routes["/a"] = CONTENT
        cut_short(handler)

    server.routes["/a"] = first_time
    assert get(server.url).read_bytes() == CONTENT


# The expired one is trusted, so that the date is the one thing wrong with it.
SEALS = [
    ("expired.pem", "expired.pem", "has expired"),
    ("valid.pem", None, "is not valid"),
    ("valid.pem", "valid.pem", None),
]


@pytest.mark.parametrize("server, trusted, word", SEALS, indirect=["server"])
def test_certificates(server, get, tmp_path, monkeypatch, names_in, trusted, word):
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATES / trusted))
    server.routes["/a"] = CONTENT
    if word is None:
        assert get(server.url).read_bytes() == CONTENT
        return
    for _ in range(2):  # the host is not given up
        with pytest.raises(DownloadError, match=word + ".*RECSYS_DATA_MIRROR"):
            get(server.url)
    assert names_in(tmp_path) == server.requests == []


@pytest.mark.parametrize("listens", [False, True])
def test_silent_host(get, tmp_path, monkeypatch, names_in, listens):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        if listens:
            bound.listen()
        monkeypatch.setattr("recsys_lib.data.download._TIMEOUT_S", 0.2)
        url, start = f"http://127.0.0.1:{bound.getsockname()[1]}", time.monotonic()
        with pytest.raises(DownloadError, match="cannot be reached"):
            get(url)
        assert time.monotonic() - start < 5
    monkeypatch.setattr("requests.get", None)
    with pytest.raises(DownloadError, match="tried before in this process"):
        get(url)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "why"), KeyboardInterrupt("why")])
def test_full_disk_and_interrupt(get, tmp_path, monkeypatch, names_in, error):
    def fail(self, url, file, *args):
        Path(file).write_bytes(b"part")
        raise error

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", fail)
    with pytest.raises((DownloadError, KeyboardInterrupt), match="why"):
        get("http://127.0.0.1")
    assert names_in(tmp_path) == []


def test_no_folder(tmp_path):
    (tmp_path / "home").write_text("a file, not a folder")
    with pytest.raises(DownloadError, match=r"cannot be stored.*RECSYS_DATA_HOME"):
        fetch("http://127.0.0.1/a", tmp_path / "home" / "a")
    assert issubclass(DownloadError, DataError) and issubclass(DataError, RuntimeError)


LINK = zipfile.ZipInfo("in/y")
LINK.external_attr = 0o120777 << 16
OUTSIDE = ["../evil", "in/../../evil", "/etc/evil", "..\\evil", "C:\\evil", "C:/evil", LINK]
ZIPS = [
    *(("x", name, lambda content: content, "out of the folder or is a symb") for name in OUTSIDE),
    ("y", "in/z", lambda content: content, "has no y"),
    ("x", "in/z", lambda content: content[:-30], "no whole zip file"),
    ("x", "in/z", lambda content: content.replace(b"456789", b"456780", 1), "no whole zip file"),
]


@pytest.mark.parametrize("file, second, damage, word", ZIPS)
def test_extract(tmp_path, names_in, file, second, damage, word):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("in/x", b"0123456789")
        opened.writestr(second, b"/etc/passwd")
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    with pytest.raises(DownloadError, match=word):
        extract(path, [file], tmp_path)
    assert names_in(tmp_path) == ["a.zip"]
    if second == "in/z":
        path.write_bytes(whole)
        extract(path, ["x"], tmp_path)
        assert (tmp_path / "x").read_bytes() == b"0123456789"
