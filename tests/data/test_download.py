"""Every way in which a download can fail, against a server on 127.0.0.1."""

from __future__ import annotations

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


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def cut_short(handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"x" * 400)


@pytest.mark.parametrize(
    "checksum",
    [
        "100000 lines, 600000 bytes, sha256:" + hashlib.sha256(CONTENT).hexdigest(),
        "md5:" + hashlib.md5(CONTENT).hexdigest(),
        (WRONG, "git:bb6b9aecfa9a372296f42fdcd691abad181010d3"),  # of `git hash-object`
        (),
    ],
)
def test_fetch_stores_the_file(server, tmp_path, capsys, checksum):
    server.routes["/a"] = CONTENT
    target = fetch(server.url + "/a", tmp_path / "new" / "a", checksum=checksum)
    assert target.read_bytes() == CONTENT
    assert target.stat().st_mode & 0o777 == 0o644
    assert files_in(tmp_path) == ["new", "new/a"]
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


@pytest.mark.parametrize(
    ("answer", "checksum", "message"),
    [
        (cut_short, (), "broke off.*try again"),
        (b"changed", WRONG, "wrong checksum, .* came: expected sha256:00"),
        (b"", (), "is empty"),
        *((status, (), f"the server answers {status}") for status in (403, 404, 500)),
    ],
)
def test_an_answer_that_is_not_right_is_not_stored(server, tmp_path, answer, checksum, message):
    is_status = isinstance(answer, int)
    server.routes["/a"] = (lambda handler: handler.send_error(answer)) if is_status else answer
    with pytest.raises(DownloadError, match=message) as raised:
        fetch(server.url + "/a", tmp_path / "a", checksum=checksum, progress=False)
    assert files_in(tmp_path) == []
    assert raised.value.status == (answer if is_status else None)
    assert len(server.requests) == (2 if answer is cut_short else 1)
    server.routes["/a"] = b"better now"  # an answer is no reason to give the host up
    fetch(server.url + "/a", tmp_path / "a", progress=False)


def test_a_transfer_that_breaks_off_once_is_tried_again(server, tmp_path):
    def first_time(handler):
        server.routes["/a"] = CONTENT
        cut_short(handler)

    server.routes["/a"] = first_time
    assert fetch(server.url + "/a", tmp_path / "a", progress=False).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("certificate", "trusted", "message"),
    [
        # Trusted, so that the date is the one thing wrong with it.
        ("expired.pem", "expired.pem", "certificate has expired.*RECSYS_DATA_MIRROR"),
        ("valid.pem", None, "certificate is not valid.*RECSYS_DATA_MIRROR"),
        ("valid.pem", "valid.pem", None),
    ],
)
def test_certificates(web_server, tmp_path, monkeypatch, certificate, trusted, message):
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATES / trusted))
    server = web_server(certificate)
    server.routes["/a"] = CONTENT
    if message is None:
        assert fetch(server.url + "/a", tmp_path / "a", progress=False).read_bytes() == CONTENT
        return
    for _ in range(2):  # the host is not given up
        with pytest.raises(DownloadError, match=message):
            fetch(server.url + "/a", tmp_path / "a", progress=False)
    assert files_in(tmp_path) == server.requests == []


@pytest.mark.parametrize("listens", [False, True])
def test_a_host_that_does_not_answer_is_remembered(tmp_path, monkeypatch, listens):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        if listens:
            bound.listen()
        url, start = f"http://127.0.0.1:{bound.getsockname()[1]}/a", time.monotonic()
        with pytest.raises(DownloadError, match="cannot be reached"):
            fetch(url, tmp_path / "a", progress=False, timeout_s=0.2)
        assert time.monotonic() - start < 5
    monkeypatch.setattr("requests.get", None)
    with pytest.raises(DownloadError, match="tried before in this process"):
        fetch(url, tmp_path / "b", progress=False)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "why"), KeyboardInterrupt("why")])
def test_a_disk_that_takes_nothing_and_an_interrupt(server, tmp_path, monkeypatch, error):
    def fail(self, url, file, *args):
        Path(file).write_bytes(b"part")
        raise error

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", fail)
    kind = DownloadError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(kind, match="why"):
        fetch(server.url + "/a", tmp_path / "a", progress=False)
    assert files_in(tmp_path) == []


def test_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "home").write_text("a file, not a folder")
    with pytest.raises(DownloadError, match=r"cannot be stored.*RECSYS_DATA_HOME"):
        fetch(server.url + "/a", tmp_path / "home" / "a", progress=False)
    assert server.requests == []
    assert issubclass(DownloadError, DataError) and issubclass(DataError, RuntimeError)


def zip_with(path, members, link=None):
    """Write a zip with the members, and with a link if one is named."""
    with zipfile.ZipFile(path, "w") as opened:
        for name, content in members.items():
            opened.writestr(name, content)
        if link is not None:
            info = zipfile.ZipInfo(link)
            info.external_attr = 0o120777 << 16
            opened.writestr(info, "/etc/passwd")
    return path


@pytest.mark.parametrize(
    "evil", ["../evil", "in/../../evil", "/etc/evil", "..\\evil", "C:\\evil", "C:/evil", None]
)
def test_extract_refuses_what_leaves_the_folder(tmp_path, evil):
    members = {"in/x": b"1"} | ({evil: b"2"} if evil else {})
    path = zip_with(tmp_path / "a.zip", members, None if evil else "in/y")
    with pytest.raises(DownloadError, match="points out of the folder or is a symbolic link"):
        extract(path, ["x"], tmp_path)
    assert files_in(tmp_path) == ["a.zip"]


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("y", lambda content: content, "has no y"),
        ("x", lambda content: content[:-30], "no whole zip file"),
        ("x", lambda content: content.replace(b"456789", b"456780", 1), "no whole zip file"),
    ],
)
def test_extract(tmp_path, file, damage, message):
    path = zip_with(tmp_path / "a.zip", {"in/x": b"0123456789", "in/z": b"2"})
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    with pytest.raises(DownloadError, match=message):
        extract(path, [file], tmp_path)
    assert files_in(tmp_path) == ["a.zip"]
    path.write_bytes(whole)
    extract(path, ["x"], tmp_path)
    assert files_in(tmp_path) == ["a.zip", "x"]
    assert (tmp_path / "x").read_bytes() == b"0123456789"
