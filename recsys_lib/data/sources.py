"""How each data set is fetched, and brought into the layout of the data home."""

from __future__ import annotations

import csv
import gzip
import io
import os
import pickle
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from recsys_lib.data.checksums import CHECKSUMS
from recsys_lib.data.download import MIRROR_VARIABLE, atomic_file, extract, fetch, verify
from recsys_lib.data.errors import CorruptFileError, DownloadError
from recsys_lib.data.files import find_file
from recsys_lib.data.retail import COLUMNS
from recsys_lib.data.tables import read_columns

_RAW = "https://raw.githubusercontent.com"
_NCF = f"{_RAW}/hexiangnan/neural_collaborative_filtering/4aab159e81c44b062c091bdaed0ab54ac632371f"
_MACR = f"{_RAW}/weitianxin/MACR/b3b7bf1427d501c8d79ebf2c98c360ac90fdf445"
_DERRD = f"{_RAW}/SeongKu-Kang/DE-RRD_CIKM20/97b6bf6fa70caecb26f22b539763f476a1843949"
_GROUPLENS = "https://files.grouplens.org/datasets"

# Data sets whose files lie side by side at one address.
FILES: Mapping[str, str] = {
    "ncf-ml-1m": f"{_NCF}/Data",
    "adressa-macr": f"{_MACR}/data/addressa",
}
# Zip files: address, checksum, folder inside.
ARCHIVES: Mapping[str, tuple[str, str, str]] = {
    "ml-100k": (
        f"{_GROUPLENS}/movielens/ml-100k.zip",
        "sha256:50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
        "ml-100k/",
    ),
    "ml-latest-small": (
        f"{_GROUPLENS}/movielens/ml-latest-small.zip",
        "sha256:696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
        "ml-latest-small/",
    ),
    "lastfm-hetrec2011-2k": (
        f"{_GROUPLENS}/hetrec2011/hetrec2011-lastfm-2k.zip",
        "sha256:6738f48195667ff03caaab4d32ca9a3133d8cc026b7c3cdaf6ce1010e913c59c",
        "",
    ),
}
PICKLES = {
    "train.tsv": ("train_mat_0", "git:0d057a829eb9d38fa35598ee957eb6fba763b59e"),
    "valid.tsv": ("valid_sample_0", "git:67ede3ee68b4f38154b02c91116ce36781dfa45d"),
    "test.tsv": ("test_sample_0", "git:e0ae542b7874b28f1b9207f18ca2f007aec2d369"),
}
RETAIL_URL = "https://archive.ics.uci.edu/static/public/352/data.csv"
RETAIL_ROWS = 541_909


def obtain(name: str, folder: Path, files: Sequence[str], *, progress: bool = True) -> None:
    """Bring ``files`` of a data set into ``folder``, from the mirror if one is set.

    Args:
        name: of the data set.
        folder: ``<data home>/<name>``; created.
        files: those that are missing there.
        progress: show bars.

    Raises:
        DownloadError: see :func:`recsys_lib.data.download.fetch`.
    """
    was_there = folder.is_dir()
    try:
        _obtain(name, folder, files, progress)
    except DownloadError:
        if not was_there:
            with suppress(OSError):  # not empty: somebody else is at work there
                folder.rmdir()
        raise


def _obtain(name: str, folder: Path, files: Sequence[str], progress: bool) -> None:
    mirror = os.environ.get(MIRROR_VARIABLE, "").rstrip("/")
    known = CHECKSUMS.get(name, {})
    if name in FILES and not mirror:
        for file in files:
            fetch(f"{FILES[name]}/{file}", folder / file, checksum=known[file], progress=progress)
        return
    with _scratch(folder) as scratch:
        if mirror:
            for file in files:
                _from_mirror(
                    f"{mirror}/{name}/{file}", scratch / file, known.get(file, ()), progress
                )
        elif name in ARCHIVES:
            _from_archive(name, files, scratch, progress)
        elif name == "citeulike-derrd":
            _from_pickles(files, scratch, progress)
        else:
            _from_uci(scratch, progress)
        for file in files:
            ready = find_file(scratch, file)
            assert ready is not None
            ready.replace(folder / ready.name)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Give a scratch folder on the same disk, removed afterwards."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=folder, prefix=".download.")
    except OSError as error:
        raise DownloadError(
            f"{folder} cannot be written ({error.strerror or error}): "
            "RECSYS_DATA_HOME names another folder to use"
        ) from error
    with scratch as path:
        yield Path(path)


def _from_mirror(url: str, target: Path, checksum: tuple[str, ...], progress: bool) -> None:
    """Fetch the plain file, or where there is none the gzipped one; check what is in it."""
    try:
        fetch(url, target, checksum=checksum, progress=progress)
    except DownloadError as error:
        if error.status != 404:
            raise
        packed = fetch(f"{url}.gz", target.with_name(f"{target.name}.gz"), progress=progress)
        try:
            content = gzip.decompress(packed.read_bytes())
        except (OSError, EOFError, zlib.error) as broken:
            raise DownloadError(f"{url}.gz is no whole gzip file: {broken}") from broken
        verify(content, checksum, f"{url}.gz")


def _from_archive(name: str, files: Sequence[str], scratch: Path, progress: bool) -> None:
    url, checksum, inside = ARCHIVES[name]
    archive = fetch(url, scratch / url.rsplit("/", 1)[1], checksum=checksum, progress=progress)
    extract(archive, {inside + file: scratch / file for file in files})
    if name == "lastfm-hetrec2011-2k":
        for file in files:
            _to_utf8(scratch / file)


def _to_utf8(path: Path) -> None:
    content = path.read_bytes()
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        with atomic_file(path) as output:
            output.write(content.decode("latin-1").encode("utf-8"))


_CONTAINERS = {"dict": dict, "list": list, "set": set, "int": int}


class _PlainUnpickler(pickle.Unpickler):
    """Reads containers and numbers; a pickle that asks for anything to be called is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "defaultdict"):
            return defaultdict
        if module in ("builtins", "__builtin__") and name in _CONTAINERS:
            return _CONTAINERS[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a data file")


def pairs_from_pickle(content: bytes, label: str) -> list[tuple[int, int]]:
    """Read ``{user: item}``, ``{user: [item, ...]}`` or ``{user: {item: ...}}`` as sorted pairs.

    Raises:
        DownloadError: the pickle holds anything but such containers of whole numbers.
    """
    try:
        table = _PlainUnpickler(io.BytesIO(content)).load()
        pairs = [
            (int(user), int(item))
            for user, items in table.items()
            for item in ([items] if isinstance(items, int) else items)
        ]
    except Exception as error:  # a pickle can fail in any way
        raise DownloadError(
            f"{label} cannot be read without running code from it ({error}): write its pairs as "
            "text, one 'user<tab>item' per line"
        ) from error
    return sorted(pairs)


def _from_pickles(files: Sequence[str], scratch: Path, progress: bool) -> None:
    for file in files:
        member, checksum = PICKLES[file]
        url = f"{_DERRD}/Dataset/citeULike/LOO/{member}"
        content = fetch(url, scratch / member, checksum=checksum, progress=progress).read_bytes()
        pairs = pairs_from_pickle(content, url)
        with atomic_file(scratch / file) as output:
            output.write("".join(f"{user}\t{item}\n" for user, item in pairs).encode())


def _from_uci(scratch: Path, progress: bool) -> None:
    """Rewrite month/day/year dates as ISO; no checksum is published, so the rows are counted."""
    path = fetch(RETAIL_URL, scratch / "data.csv", progress=progress)
    try:
        columns = read_columns(path, COLUMNS)
        dates = {
            value: datetime.strptime(value, "%m/%d/%Y %H:%M").isoformat(" ")
            for value in set(columns[4])
        }
    except (CorruptFileError, ValueError) as error:
        raise DownloadError(f"{RETAIL_URL} is not as expected: {error}") from error
    if len(columns[0]) != RETAIL_ROWS:
        raise DownloadError(f"{RETAIL_URL} has {len(columns[0])} rows: expected {RETAIL_ROWS}")
    columns[4] = [dates[value] for value in columns[4]]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(zip(*columns, strict=True))
    with atomic_file(scratch / "online_retail.csv.gz") as output:
        output.write(gzip.compress(text.getvalue().encode(), mtime=0))
