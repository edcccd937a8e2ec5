"""The card of each data set, read from ``catalogue.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class DatasetInfo:
    """The card of a data set.

    Args:
        name: for :func:`recsys_lib.data.load_dataset`.
        title: in words.
        domain: "video", "e-commerce", "news", "music" or "papers".
        files: what belongs into the folder ``<data home>/<name>/``, each plain or gzipped, and the
            forms of which one must agree: lines, bytes and checksum ``algorithm:digest``.
        columns: what a row or an item has besides its ids. Items with names have vocabularies.
        licence: terms, in short; read the source before you use the data for anything else.
        citation: what to cite.
        source: where to read about it.
        address: where it is downloaded from: a folder, or one file.
        checksum: of the one file.
        num_splits: how many published splits :func:`recsys_lib.data.load_split` knows.
        statistics: counts, checked by the tests.
        notes: what surprises.
    """

    name: str
    title: str
    domain: Literal["video", "e-commerce", "news", "music", "papers"]
    files: Mapping[str, Sequence[str]]
    columns: tuple[str, ...]
    licence: str
    citation: str
    source: str
    address: str
    statistics: Mapping[str, int]
    notes: str
    checksum: str = ""
    num_splits: int = 0


_CARDS = tomllib.loads(Path(__file__).with_name("catalogue.toml").read_text("utf-8"))
DATASETS: Mapping[str, DatasetInfo] = {
    name: DatasetInfo(name, **card | {"columns": tuple(card["columns"])})
    for name, card in _CARDS.items()
}
