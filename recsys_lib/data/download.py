"""Fetch a file whole or not at all, and take files out of a zip without trusting it."""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import ssl
import stat
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO
from urllib.parse import urlsplit

from recsys_lib.data.errors import DownloadError

MIRROR_VARIABLE = "RECSYS_DATA_MIRROR"
_CHUNK_BYTES = 1 << 18

# Hosts that did not answer in this process, and why: a second wait would not help.
_unreachable: dict[str, str] = {}


def fetch(
    url: str,
    target: str | os.PathLike[str],
    *,
    checksum: str | Sequence[str] = (),
    progress: bool = True,
    timeout_s: float = 10.0,
) -> Path:
    """Download ``url`` to ``target``; the file appears there only when it is whole and right.

    The bytes go to a temporary file in the same folder, which is moved when length and checksum
    agree and removed otherwise. A host that cannot be reached is remembered for as long as the
    process lives, so that later calls fail at once. TLS certificates are always verified.

    Args:
        url: http or https address.
        target: where the file shall be; its folder is created.
        checksum: ``"sha256:<hex>"``, ``"md5:<hex>"`` or ``"git:<hex>"`` (git blob id); of several,
            one must agree. Empty: not checked.
        progress: show a bar on stderr.
        timeout_s: longest wait for the connection and for each read, in seconds.

    Returns:
        ``target`` as a path.

    Raises:
        DownloadError: no network, a bad certificate, an HTTP error, a truncated or empty file, a
            wrong checksum, no space, or a folder that cannot be written.
    """
    target = Path(target)
    host = urlsplit(url).netloc
    if host in _unreachable:
        raise DownloadError(f"{url}: {_unreachable[host]} (tried before in this process)")
    with atomic_file(target) as file:
        try:
            request = urllib.request.Request(url, headers={"User-Agent": "recsys_lib"})
            with urllib.request.urlopen(request, timeout=timeout_s) as response:
                length = response.headers.get("Content-Length")
                received = _copy(response, file, length, target.name, progress)
        except urllib.error.HTTPError as error:
            message = f"{url}: the server answers {error.code} {error.reason}"
            raise DownloadError(message, status=error.code) from error
        except urllib.error.URLError as error:
            raise _connection_error(url, host, error.reason) from error
        except TimeoutError as error:
            raise _connection_error(url, host, f"no answer for {timeout_s:g} s") from error
        except (http.client.HTTPException, ssl.SSLError, ConnectionError) as error:
            raise DownloadError(f"{url}: the transfer broke off ({error!r}); try again") from error
        if length is not None and received != int(length):
            raise DownloadError(
                f"{url}: truncated, {received:,} bytes came: expected {int(length):,}; try again"
            )
        if received == 0:
            raise DownloadError(f"{url}: the file is empty")
        file.flush()
        verify(Path(file.name).read_bytes(), checksum, url)
    return target


def verify(content: bytes, checksum: str | Sequence[str], label: str) -> None:
    """Raise :class:`DownloadError` unless one of the checksums agrees (or none is given)."""
    wanted = [checksum] if isinstance(checksum, str) else list(checksum)
    if not wanted:
        return
    for entry in wanted:
        algorithm, _, digest = entry.partition(":")
        if _digest(content, algorithm) == digest:
            return
    found = _digest(content, wanted[0].partition(":")[0])
    raise DownloadError(
        f"{label}: wrong checksum, {found} came: expected {' or '.join(wanted)} "
        f"({len(content):,} bytes). The file was changed or damaged on its way"
    )


def extract(archive: Path, members: Mapping[str, Path]) -> None:
    """Take files out of a zip, after a look at every member's name.

    Args:
        archive: the zip file.
        members: from the name inside the zip to where the file shall be.

    Raises:
        DownloadError: no zip, a member that is missing, or any member with an absolute path, a
            ``..`` or a symbolic link; then nothing is written at all.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                _check_member(archive, info)
            names = set(opened.namelist())
            for name in members:
                if name not in names:
                    raise DownloadError(f"{archive.name} has no member {name}: expected it there")
            for name, target in members.items():
                with opened.open(name) as source, atomic_file(target) as file:
                    while chunk := source.read(_CHUNK_BYTES):
                        file.write(chunk)
    except (zipfile.BadZipFile, EOFError) as error:
        raise DownloadError(f"{archive.name} is no whole zip file: {error}") from error


@contextmanager
def atomic_file(target: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file next to ``target``; move it there on success, else remove it.

    Raises:
        DownloadError: the folder cannot be written, or there is no space.
    """
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=target.parent, prefix=f".{target.name}.", suffix=".part", delete=False
        ) as file:
            temporary = Path(file.name)
            yield file
        temporary.chmod(0o644)
        temporary.replace(target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason = "no space left on the disk"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            reason = f"the folder cannot be written ({error.strerror})"
        else:
            reason = f"{error.strerror or error}"
        raise DownloadError(
            f"{target} cannot be stored: {reason}; RECSYS_DATA_HOME names another folder to use"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _copy(
    response: http.client.HTTPResponse,
    file: IO[bytes],
    length: str | None,
    label: str,
    progress: bool,
) -> int:
    from tqdm import tqdm

    total = None if length is None else int(length)
    received = 0
    with tqdm(
        total=total, desc=label, unit="B", unit_scale=True, unit_divisor=1024, disable=not progress
    ) as bar:
        while chunk := response.read(_CHUNK_BYTES):
            file.write(chunk)
            received += len(chunk)
            bar.update(len(chunk))
    return received


def _connection_error(url: str, host: str, reason: object) -> DownloadError:
    if isinstance(reason, ssl.SSLCertVerificationError):
        return DownloadError(
            f"{url}: the server's TLS certificate is not valid ({reason.verify_message}). It is "
            "not skipped: nobody could tell whose file it is. Wait until the server is repaired, "
            f"or set {MIRROR_VARIABLE} to the address of a mirror that holds <data set>/<file>"
        )
    _unreachable[host] = f"{host} cannot be reached ({reason}): is there a network?"
    return DownloadError(f"{url}: {_unreachable[host]}")


def _check_member(archive: Path, info: zipfile.ZipInfo) -> None:
    name = info.filename
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or PureWindowsPath(name).drive or ".." in parts.parts:
        raise DownloadError(
            f"{archive.name} is refused: its member {name!r} points out of the folder"
        )
    if stat.S_ISLNK(info.external_attr >> 16):
        raise DownloadError(f"{archive.name} is refused: its member {name!r} is a symbolic link")


def _digest(content: bytes, algorithm: str) -> str:
    if algorithm == "git":
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return hashlib.new(algorithm, content).hexdigest()
