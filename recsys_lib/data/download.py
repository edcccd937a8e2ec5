"""Fetch a file whole or not at all, and take files out of a zip without trusting it."""

from __future__ import annotations

import os
import re
import stat
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import urlsplit

from recsys_lib.data.files import DownloadError, verify
from recsys_lib.files import FilePath, replace_file

MIRROR_VARIABLE = "RECSYS_DATA_MIRROR"
_TIMEOUT_S = 10.0  # for the connection and for each read

# Hosts that did not answer in this process, and why: a second wait would not help.
_unreachable: dict[str, str] = {}


def fetch(
    url: str, target: FilePath, *, checksum: str | Sequence[str] = (), progress: bool = True
) -> Path:
    """Download ``url`` to ``target``, unless a file is there already.

    The bytes go to a temporary file in the same folder, which is moved when they are right and
    removed otherwise; one that a killed process left is removed by the next call. A transfer that
    breaks off is tried once more. A host that cannot be reached is remembered for as long as the
    process lives, so that later calls fail at once. TLS certificates are always verified.

    Args:
        url: http or https address.
        target: where the file shall be; its folder is created.
        checksum: ``"sha256:<hex>"``, ``"md5:<hex>"`` or ``"git:<hex>"`` (git blob id), which may
            have ``"<n> lines, "`` or ``"<n> bytes, "`` before it; of several, one must agree.
            Empty: not checked. A file that is there already is checked too.
        progress: show a bar on stderr.

    Returns:
        ``target`` as a path.

    Raises:
        DownloadError: no network, a bad certificate, an HTTP error, a truncated or empty file, a
            wrong checksum, no space, or a folder that cannot be written.
    """
    from pooch import HTTPDownloader
    from requests.exceptions import ChunkedEncodingError, RequestException

    target, host = Path(target), urlsplit(url).netloc
    if target.exists():
        verify(target.read_bytes(), checksum, str(target))
        return target
    if host in _unreachable:
        raise DownloadError(f"{url}: {_unreachable[host]} (tried before in this process)")
    certificates = os.environ.get("SSL_CERT_FILE") or True
    http = HTTPDownloader(progressbar=progress, timeout=_TIMEOUT_S, verify=certificates)

    def download(file: Path) -> None:
        try:
            http(url, str(file), None)
        except ChunkedEncodingError:  # broke off
            http(url, str(file), None)
        verify(file.read_bytes(), checksum, url)

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, download)
    except ChunkedEncodingError as error:
        raise DownloadError(f"{url}: the transfer broke off ({error}); try again") from error
    except RequestException as error:
        raise _refused(url, host, error) from error
    except OSError as error:
        raise not_stored(target, error) from error
    return target


def not_stored(target: Path, error: OSError) -> DownloadError:
    """Return the error that says why a file or folder cannot be written, and what to do."""
    why = error.strerror or error
    return DownloadError(f"{target} cannot be stored: {why}; RECSYS_DATA_HOME names another folder")


def extract(archive: Path, files: Sequence[str], folder: Path) -> None:
    """Take files out of a zip, from whatever folder in it, after a look at every member's name.

    Args:
        archive: the zip file.
        files: names without folders.
        folder: where the files shall be; has to be there.

    Raises:
        DownloadError: no zip, a file that is missing, or any member with an absolute path, a
            ``..`` or a symbolic link; then nothing is written at all.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = {}
            for info in opened.infolist():
                path = PurePosixPath(info.filename.replace("\\", "/"))
                is_link = stat.S_ISLNK(info.external_attr >> 16)
                leaves = path.is_absolute() or ".." in path.parts
                if is_link or leaves or PureWindowsPath(info.filename).drive:
                    what = f"{info.filename!r} points out of the folder or is a symbolic link"
                    raise DownloadError(f"{archive.name} is refused: {what}")
                members[path.name] = info
            for missing in sorted(set(files) - set(members)):
                raise DownloadError(f"{archive.name} has no {missing}: expected it there")
            for file in files:
                (folder / file).write_bytes(opened.read(members[file]))
    except (zipfile.BadZipFile, EOFError) as error:
        raise DownloadError(f"{archive.name} is no whole zip file: {error}") from error


def _refused(url: str, host: str, error: Exception) -> DownloadError:
    """Return what a failed request means for the reader."""
    from requests.exceptions import ConnectionError, HTTPError, SSLError, Timeout

    certificate = re.search(r"certificate verify failed: ([^(]*)", str(error))
    if isinstance(error, SSLError) and certificate:
        return DownloadError(
            f"{url}: the server's TLS certificate is not valid ({certificate[1].strip()}). It is "
            "not skipped: nobody could tell whose file it is. Wait until the server is repaired, "
            f"or set {MIRROR_VARIABLE} to the address of a mirror that holds <data set>/<file>"
        )
    if isinstance(error, HTTPError) and error.response is not None:
        status, reason = error.response.status_code, error.response.reason
        return DownloadError(f"{url}: the server answers {status} {reason}", status=status)
    if isinstance(error, ConnectionError | Timeout):
        _unreachable[host] = f"{host} cannot be reached ({error}): is there a network?"
        return DownloadError(f"{url}: {_unreachable[host]}")
    return DownloadError(f"{url}: {error}")
