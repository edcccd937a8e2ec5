"""How the files of each data set are fetched, and brought into the layout of the data home."""

from __future__ import annotations

import csv
import gzip
import io
import os
import pickle
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from recsys_lib.data.catalogue import DatasetInfo
from recsys_lib.data.download import MIRROR_VARIABLE, extract, fetch, not_stored
from recsys_lib.data.files import (
    CorruptFileError,
    DownloadError,
    path_of,
    read_bytes,
    read_columns,
    verify,
)
from recsys_lib.data.readers import RETAIL_COLUMNS

# Files of citeulike-derrd are pickles at their address, and text here.
PICKLES = {
    "train.tsv": ("train_mat_0", "git:0d057a829eb9d38fa35598ee957eb6fba763b59e"),
    "valid.tsv": ("valid_sample_0", "git:67ede3ee68b4f38154b02c91116ce36781dfa45d"),
    "test.tsv": ("test_sample_0", "git:e0ae542b7874b28f1b9207f18ca2f007aec2d369"),
}


def obtain(info: DatasetInfo, folder: Path, files: Sequence[str], *, progress: bool = True) -> None:
    """Bring files of a data set into ``folder``, from the mirror if one is set: all or none.

    Args:
        info: card of the data set.
        folder: ``<data home>/<name>``; created.
        files: those that are missing there.
        progress: show bars.

    Raises:
        DownloadError: see :func:`recsys_lib.data.download.fetch`.
    """
    mirror = os.environ.get(MIRROR_VARIABLE, "").rstrip("/")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".download.{os.getpid()}.") as name:
            scratch = Path(name)
            if mirror:
                _from_mirror(f"{mirror}/{info.name}", info, files, scratch, progress)
            elif info.name == "citeulike-derrd":
                _from_pickles(info.address, files, scratch, progress)
            elif info.name == "online-retail":
                _from_uci(info.address, info.statistics["rows"], scratch, progress)
            elif info.address.endswith(".zip"):
                _from_archive(info, files, scratch, progress)
            else:
                for file in files:
                    url, sums = f"{info.address}/{file}", info.files[file]
                    fetch(url, scratch / file, checksum=sums, progress=progress)
            for file in files:
                ready = path_of(scratch, file)
                ready.replace(folder / ready.name)
    except OSError as error:
        raise not_stored(folder, error) from error
    finally:
        with suppress(OSError):  # not empty: all is well, or somebody else is at work there
            folder.rmdir()


def _from_mirror(
    address: str, info: DatasetInfo, files: Sequence[str], scratch: Path, progress: bool
) -> None:
    """Fetch the plain file, or where there is none the gzipped one; check what is in it."""
    for file in files:
        url, checksum = f"{address}/{file}", info.files[file]
        try:
            fetch(url, scratch / file, checksum=checksum, progress=progress)
        except DownloadError as error:
            if error.status != 404:
                raise
            packed = fetch(f"{url}.gz", scratch / f"{file}.gz", progress=progress)
            try:
                content = read_bytes(packed)
            except CorruptFileError as broken:
                raise DownloadError(f"{url}.gz: {broken}") from broken
            verify(content, checksum, f"{url}.gz")


def _from_archive(info: DatasetInfo, files: Sequence[str], scratch: Path, progress: bool) -> None:
    archive = scratch / info.address.rsplit("/", 1)[1]
    fetch(info.address, archive, checksum=info.checksum, progress=progress)
    extract(archive, files, scratch)
    if info.name == "lastfm-hetrec2011-2k":  # one file of it is in Latin-1
        for path in (scratch / file for file in files):
            try:
                path.read_text("utf-8")
            except UnicodeDecodeError:
                path.write_bytes(path.read_bytes().decode("latin-1").encode("utf-8"))


class _PlainUnpickler(pickle.Unpickler):
    """Reads containers and numbers; a pickle that asks for anything to be called is refused."""

    def find_class(self, module: str, name: str) -> Any:
        plain = {"dict": dict, "list": list, "set": set, "int": int}
        if (module, name) == ("collections", "defaultdict"):
            return defaultdict
        if module in ("builtins", "__builtin__") and name in plain:
            return plain[name]
        raise DownloadError(f"{module}.{name} is not allowed in a data file: nothing was run")


def pairs_from_pickle(content: bytes) -> list[tuple[int, int]]:
    """Return ``{user: item}``, ``{user: [item, ...]}`` or ``{user: {item: ...}}`` as sorted pairs.

    Raises:
        DownloadError: the pickle asks for code to be run.
    """
    table = _PlainUnpickler(io.BytesIO(content)).load()
    lists = [(user, [x] if isinstance(x, int) else x) for user, x in table.items()]
    return sorted((int(user), int(item)) for user, items in lists for item in items)


def _from_pickles(address: str, files: Sequence[str], scratch: Path, progress: bool) -> None:
    for file in files:
        member, checksum = PICKLES[file]
        url = f"{address}/{member}"
        packed = fetch(url, scratch / member, checksum=checksum, progress=progress)
        pairs = pairs_from_pickle(packed.read_bytes())
        (scratch / file).write_text("".join(f"{user}\t{item}\n" for user, item in pairs))


def _from_uci(url: str, num_rows: int, scratch: Path, progress: bool) -> None:
    """Rewrite month/day/year dates as ISO; no checksum is published, so the rows are counted."""
    try:
        columns = read_columns(fetch(url, scratch / "data.csv", progress=progress), RETAIL_COLUMNS)
        read, form = datetime.strptime, "%m/%d/%Y %H:%M"
        dates = {value: read(value, form).isoformat(" ") for value in set(columns[4])}
    except (CorruptFileError, ValueError) as error:
        raise DownloadError(f"{url} is not as expected: {error}") from error
    if len(columns[0]) != num_rows:
        raise DownloadError(f"{url} has {len(columns[0])} rows: expected {num_rows}")
    columns[4] = [dates[value] for value in columns[4]]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(RETAIL_COLUMNS)
    writer.writerows(zip(*columns, strict=True))
    packed = gzip.compress(text.getvalue().encode(), mtime=0)
    (scratch / "online_retail.csv.gz").write_bytes(packed)
