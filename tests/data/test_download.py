"""Every way in which a download can fail, against a server on 127.0.0.1."""

from __future__ import annotations

import errno
import hashlib
import io
import socket
import time
import zipfile
from pathlib import Path

import pytest

from recsys_lib.data import DataError, DownloadError, download, fetch
from recsys_lib.data.download import extract

CERTIFICATES = Path(__file__).parent / "certificates"
CONTENT = b"1\t2\t3\n" * 100_000


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def make_zip(path: Path, members: dict[str, bytes], link: str | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        if link is not None:
            info = zipfile.ZipInfo(link)
            info.external_attr = 0o120777 << 16
            archive.writestr(info, "/etc/passwd")
    return path


@pytest.mark.parametrize(
    "checksum",
    [
        "sha256:" + hashlib.sha256(CONTENT).hexdigest(),
        "md5:" + hashlib.md5(CONTENT).hexdigest(),
        "git:" + hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest(),
        ("sha256:" + "0" * 64, "md5:" + hashlib.md5(CONTENT).hexdigest()),
        (),
    ],
)
def test_fetch_stores_the_file(server, tmp_path, checksum):
    server.routes["/a"] = CONTENT
    target = fetch(server.url + "/a", tmp_path / "new" / "a", checksum=checksum, progress=False)
    assert target.read_bytes() == CONTENT
    assert files_in(tmp_path) == ["new", "new/a"]


def test_fetch_shows_a_progress_bar(server, tmp_path, capsys):
    server.routes["/a"] = CONTENT
    fetch(server.url + "/a", tmp_path / "a")
    assert "100%" in capsys.readouterr().err


def test_git_blob_id_is_that_of_git(server, tmp_path):
    # `printf 'hello\n' | git hash-object --stdin`
    server.routes["/a"] = b"hello\n"
    fetch(
        server.url + "/a", tmp_path / "a", checksum="git:ce013625030ba8dba906f756967f9e9ca394464a"
    )


def test_truncated_file(server, tmp_path):
    def cut_short(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"x" * 400)

    server.routes["/a"] = cut_short
    with pytest.raises(DownloadError, match=r"truncated, 400 bytes came: expected 1,000"):
        fetch(server.url + "/a", tmp_path / "a", progress=False)
    assert files_in(tmp_path) == []


def test_wrong_checksum_keeps_the_old_file(server, tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    server.routes["/a"] = b"changed"
    with pytest.raises(DownloadError, match=r"wrong checksum, .* came: expected sha256:00"):
        fetch(server.url + "/a", tmp_path / "a", checksum="sha256:" + "0" * 64, progress=False)
    assert files_in(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_empty_file(server, tmp_path):
    server.routes["/a"] = b""
    with pytest.raises(DownloadError, match="is empty"):
        fetch(server.url + "/a", tmp_path / "a", progress=False)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("status", [403, 404, 500])
def test_http_error(server, tmp_path, status):
    server.routes["/a"] = lambda handler: handler.send_error(status)
    with pytest.raises(DownloadError, match=f"the server answers {status}") as raised:
        fetch(server.url + "/a", tmp_path / "a", progress=False)
    assert raised.value.status == status
    assert files_in(tmp_path) == []
    server.routes["/a"] = b"better now"  # an answer is no reason to give the host up
    fetch(server.url + "/a", tmp_path / "a", progress=False)


def test_expired_certificate(web_server, tmp_path, monkeypatch):
    # Trusted, so that the date is the one thing wrong with it.
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATES / "expired.pem"))
    server = web_server("expired.pem")
    server.routes["/a"] = CONTENT
    with pytest.raises(DownloadError, match="certificate has expired") as raised:
        fetch(server.url + "/a", tmp_path / "a", progress=False)
    assert "RECSYS_DATA_MIRROR" in str(raised.value)
    assert files_in(tmp_path) == []
    assert server.requests == []


def test_untrusted_certificate(web_server, tmp_path):
    server = web_server("valid.pem")
    with pytest.raises(DownloadError, match=r"certificate is not valid.*RECSYS_DATA_MIRROR"):
        fetch(server.url + "/a", tmp_path / "a", progress=False)
    assert files_in(tmp_path) == []


def test_valid_certificate(web_server, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATES / "valid.pem"))
    server = web_server("valid.pem")
    server.routes["/a"] = CONTENT
    assert fetch(server.url + "/a", tmp_path / "a", progress=False).read_bytes() == CONTENT


def test_no_network_is_remembered(tmp_path, monkeypatch):
    with socket.socket() as free:  # bound, not listening: refuses connections
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a"
        with pytest.raises(DownloadError, match="cannot be reached"):
            fetch(url, tmp_path / "a", progress=False)

    def not_again(*args, **options):
        raise AssertionError("tried the same host again")

    monkeypatch.setattr(download.urllib.request, "urlopen", not_again)
    with pytest.raises(DownloadError, match="tried before in this process"):
        fetch(url, tmp_path / "b", progress=False)
    assert files_in(tmp_path) == []


def test_no_answer(tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a"
        start = time.monotonic()
        with pytest.raises(DownloadError, match=r"no answer for 0\.2 s"):
            fetch(url, tmp_path / "a", progress=False, timeout_s=0.2)
        assert time.monotonic() - start < 5
    assert files_in(tmp_path) == []


def test_no_space(server, tmp_path, monkeypatch):
    server.routes["/a"] = CONTENT
    make = download.tempfile.NamedTemporaryFile

    def full(*args, **options):
        file = make(*args, **options)

        def write(data):
            raise OSError(errno.ENOSPC, "No space left on device")

        file.write = write
        return file

    monkeypatch.setattr(download.tempfile, "NamedTemporaryFile", full)
    with pytest.raises(DownloadError, match="no space left on the disk"):
        fetch(server.url + "/a", tmp_path / "a", progress=False)
    assert files_in(tmp_path) == []


def test_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "home").write_text("a file, not a folder")
    server.routes["/a"] = CONTENT
    with pytest.raises(DownloadError, match=r"folder cannot be written.*RECSYS_DATA_HOME"):
        fetch(server.url + "/a", tmp_path / "home" / "a", progress=False)
    assert server.requests == []


def test_folder_that_cannot_be_written(server, tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(download.tempfile, "NamedTemporaryFile", refuse)
    with pytest.raises(DownloadError, match=r"Read-only file system.*RECSYS_DATA_HOME"):
        fetch(server.url + "/a", tmp_path / "a", progress=False)


def test_interrupt_leaves_nothing(server, tmp_path, monkeypatch):
    server.routes["/a"] = CONTENT

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "_copy", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch(server.url + "/a", tmp_path / "a", progress=False)
    assert files_in(tmp_path) == []


def test_all_errors_are_data_errors():
    assert issubclass(DownloadError, DataError)
    assert issubclass(DataError, RuntimeError)


def test_extract_takes_the_named_members(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {"in/x": b"1", "in/y": b"2"})
    extract(archive, {"in/x": tmp_path / "out" / "x"})
    assert files_in(tmp_path / "out") == ["x"]
    assert (tmp_path / "out" / "x").read_bytes() == b"1"


@pytest.mark.parametrize(
    "evil", ["../evil", "in/../../evil", "/etc/evil", "..\\evil", "C:\\evil", "C:/evil"]
)
def test_extract_refuses_paths_that_leave_the_folder(tmp_path, evil):
    archive = make_zip(tmp_path / "a.zip", {"in/x": b"1", evil: b"2"})
    with pytest.raises(DownloadError, match="points out of the folder"):
        extract(archive, {"in/x": tmp_path / "out" / "x"})
    assert files_in(tmp_path) == ["a.zip"]


def test_extract_refuses_links(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {"in/x": b"1"}, link="in/y")
    with pytest.raises(DownloadError, match="symbolic link"):
        extract(archive, {"in/x": tmp_path / "out" / "x"})
    assert files_in(tmp_path) == ["a.zip"]


def test_extract_names_a_missing_member(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {"in/x": b"1"})
    with pytest.raises(DownloadError, match="no member in/y"):
        extract(archive, {"in/x": tmp_path / "x", "in/y": tmp_path / "y"})
    assert files_in(tmp_path) == ["a.zip"]


def test_extract_refuses_what_is_no_zip(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x", b"0123456789" * 1000)
    (tmp_path / "a.zip").write_bytes(buffer.getvalue()[:500])
    with pytest.raises(DownloadError, match="no whole zip file"):
        extract(tmp_path / "a.zip", {"x": tmp_path / "x"})
    assert files_in(tmp_path) == ["a.zip"]


def test_extract_refuses_a_damaged_member(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {"x": b"0123456789"})
    content = archive.read_bytes()
    archive.write_bytes(content.replace(b"0123456789", b"0123456780", 1))
    with pytest.raises(DownloadError, match="no whole zip file"):
        extract(archive, {"x": tmp_path / "x"})
    assert files_in(tmp_path) == ["a.zip"]
