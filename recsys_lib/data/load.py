"""Load a data set by name: from the data home, from its official address, or made up."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd

from recsys_lib.checks import check_choice, check_number
from recsys_lib.data import movielens, readers
from recsys_lib.data.catalogue import DATASETS, DatasetInfo
from recsys_lib.data.files import DownloadError, check_file, path_of, remove_leftovers
from recsys_lib.data.files import data_home as home_of
from recsys_lib.data.interactions import Interactions
from recsys_lib.data.sources import obtain
from recsys_lib.data.splits import Split, sample_negatives
from recsys_lib.data.synthetic import PRESETS, Preset, make_synthetic
from recsys_lib.files import FilePath

Folder = FilePath | None
Fallback = Literal["synthetic"] | None
_T = TypeVar("_T")

_LOGS: dict[str, Callable[[Path], Interactions]] = {
    "ml-100k": movielens.read_ml_100k,
    "ml-latest-small": movielens.read_ml_latest_small,
    "online-retail": readers.read_online_retail,
    "lastfm-hetrec2011-2k": readers.read_lastfm,
}
_FRAMES: dict[str, Callable[[Path], pd.DataFrame]] = {
    "online-retail": readers.read_retail_frame,
    "lastfm-hetrec2011-2k": readers.read_lastfm_tags,
    "ml-latest-small": movielens.read_ml_tags,
}
_SPLITS: dict[str, Callable[[Path], Split]] = {
    "ncf-ml-1m": movielens.read_ncf_ml_1m,
    "adressa-macr": readers.read_adressa_macr,
    "citeulike-derrd": readers.read_citeulike_derrd,
}


def load_dataset(
    name: str,
    *,
    data_home: Folder = None,
    fallback: Fallback = None,
    preset: Preset = "video",
    seed: int = 0,
    progress: bool = True,
) -> Interactions:
    """Return all rows of a data set.

    Files are looked for in ``<data home>/<name>/``, plain or gzipped. Those that are missing are
    downloaded there; a data home that has them all is only read. Of a data set that was published
    as a split, these are the rows of its parts in one; :func:`load_split` keeps them apart.

    Args:
        name: a name of ``DATASETS``, or "synthetic".
        data_home: folder of data sets; default ``RECSYS_DATA_HOME``, else the user's cache.
        fallback: "synthetic" gives generated data of the same kind, with a warning, where the
            files cannot be had; None raises. A corrupt file raises in any case.
        preset: domain of "synthetic": "e-commerce", "news", "video" or "music".
        seed: of generated data.
        progress: show a bar while downloading.

    Raises:
        ValueError: the name, the fallback or the preset is unknown.
        DownloadError: the files are not there and cannot be fetched; says what to put where.
        CorruptFileError: a file is not the published one; says what differs.

    Example:
        >>> load_dataset("synthetic", preset="news").is_synthetic
        True
    """
    if name == "synthetic":
        return make_synthetic(preset, seed=seed)
    info = DATASETS[check_choice("name", name, [*DATASETS, "synthetic"])]
    files = [file for file in info.files if not file.endswith((".base", ".test"))]
    read = _LOGS.get(name) or (lambda folder: _SPLITS[name](folder).all_rows())
    return _load(info, files, read, lambda: _stand_in(info, seed), data_home, fallback, progress)


def load_split(
    name: str,
    *,
    fold: int = 1,
    data_home: Folder = None,
    fallback: Fallback = None,
    seed: int = 0,
    progress: bool = True,
) -> Split:
    """Return the split with which a data set was published, for comparison with published figures.

    Args:
        name: "ncf-ml-1m", "ml-100k", "adressa-macr" or "citeulike-derrd".
        fold: number of the split, from 1. MovieLens 100k has five, u1 to u5; each of its rows is in
            exactly one test part. The others have one.
        data_home: see :func:`load_dataset`.
        fallback: see :func:`load_dataset`.
        seed: of generated data.
        progress: show a bar while downloading.

    Raises:
        ValueError: the name or the fallback is unknown, or there is no such fold.
        DownloadError: the files are not there and cannot be fetched; says what to put where.
        CorruptFileError: a file is not the published one; says what differs.

    Example:
        >>> load_split("ml-latest-small")
        Traceback (most recent call last):
        ValueError: name is 'ml-latest-small': expected one of ncf-ml-1m, ml-100k, adressa-macr,
        citeulike-derrd
    """
    info = DATASETS[check_choice("name", name, [n for n in DATASETS if DATASETS[n].num_splits])]
    fold = check_number("fold", fold, 1, info.num_splits, integer=True)
    files, read = list(info.files), _SPLITS.get(name)
    if read is None:
        files = ["u.item", f"u{fold}.base", f"u{fold}.test"]
        read = functools.partial(movielens.read_ml_100k_fold, fold=fold)
    make_up = functools.partial(_stand_in_split, info, fold, seed)
    return _load(info, files, read, make_up, data_home, fallback, progress)


def load_frame(
    name: str = "online-retail",
    *,
    data_home: Folder = None,
    fallback: Fallback = None,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Return raw rows as a data frame: what :func:`load_dataset` has no room for.

    Args:
        name: "online-retail" (all invoice lines, with price, country and basket),
            "lastfm-hetrec2011-2k" or "ml-latest-small" (who gave which tag to what, and when).
        data_home: see :func:`load_dataset`.
        fallback: see :func:`load_dataset`.
        seed: of generated data.
        progress: show a bar while downloading.

    Returns:
        Invoice lines: see :func:`recsys_lib.data.readers.read_retail_frame`. Tags: columns
        ``user``, ``item`` (original ids, as in the vocabularies of ``load_dataset``), ``tag``
        (text), ``time``; only of items that the data set has.

    Raises:
        ValueError: the name is another one.
        DownloadError: the files are not there and cannot be fetched.
    """
    info = DATASETS[check_choice("name", name, list(_FRAMES))]
    make_up: Callable[[], pd.DataFrame] = functools.partial(_stand_in_tags, info, seed)
    if name == "online-retail":
        make_up = functools.partial(_stand_in_frame, seed)
    return _load(info, list(info.files), _FRAMES[name], make_up, data_home, fallback, progress)


def _load(
    info: DatasetInfo,
    files: Sequence[str],
    read: Callable[[Path], _T],
    make_up: Callable[[], _T],
    data_home: Folder,
    fallback: Fallback,
    progress: bool,
) -> _T:
    check_choice("fallback", "synthetic" if fallback is None else fallback, ["synthetic"])
    folder = home_of(data_home) / info.name
    remove_leftovers(folder)
    missing = [file for file in files if not path_of(folder, file).is_file()]
    if missing:
        try:
            obtain(info, folder, missing, progress=progress)
        except DownloadError as error:
            if fallback is not None:
                warnings.warn(
                    f"{info.name} is not to be had ({error}). SYNTHETIC data takes its place: "
                    "numbers differ from those in the book",
                    UserWarning,
                    stacklevel=3,
                )
                return make_up()
            raise DownloadError(
                f"{info.name} is not to be had: {error}\nPut {', '.join(missing)} (plain or .gz) "
                f"into {folder} by hand, from {info.source}; or name a folder that has "
                f"{info.name}/ in RECSYS_DATA_HOME, or a mirror in RECSYS_DATA_MIRROR; or pass "
                'fallback="synthetic"',
                status=error.status,
            ) from error
    for file in files:
        check_file(path_of(folder, file), info.files[file])
    return read(folder)


def _generated(info: DatasetInfo, seed: int) -> Interactions:
    config = PRESETS.get(info.domain, PRESETS["video"])
    return make_synthetic(config, seed=seed, name=f"synthetic (for {info.name})")


def _stand_in(info: DatasetInfo, seed: int) -> Interactions:
    """Generate rows with the columns of the data set."""
    if info.name == "online-retail":
        purchases = readers.purchases_of(_stand_in_frame(seed), report=False)
        return replace(purchases, name=f"synthetic (for {info.name})", is_synthetic=True)
    return _with_columns(_generated(info, seed), info.columns)


def _with_columns(data: Interactions, columns: Sequence[str]) -> Interactions:
    """Drop the columns that are not named; number users and items from 1 where items have names."""
    optional = ("ratings", "timestamps", "item_names", "item_texts")
    changed: dict[str, Any] = {column: None for column in optional if column not in columns}
    if "item_names" in columns:
        changed["user_vocabulary"] = np.arange(1, data.num_users + 1)
        changed["item_vocabulary"] = np.arange(1, data.num_items + 1)
    return replace(data, **changed)


def _stand_in_split(info: DatasetInfo, fold: int, seed: int) -> Split:
    """Split by the time that the generator knows, then forget what the data set does not have."""
    whole, validation = _generated(info, seed), None
    if info.name == "ml-100k":
        train, test = list(whole.split_folds(5, seed=seed))[fold - 1]
    elif info.name == "adressa-macr":
        train, test = whole.split_stratified(test_fraction=0.1, seed=seed)
    else:
        train, test = whole.split_leave_one_out()
    if info.name == "citeulike-derrd":
        train, held_out = train.split_leave_one_out()
        validation = _with_columns(held_out, info.columns)
    negatives = sample_negatives(train, test, 99, seed) if info.name == "ncf-ml-1m" else None
    train, test = (_with_columns(part, info.columns) for part in (train, test))
    return Split(train, test, negatives, validation, name=whole.name)


def _stand_in_frame(seed: int) -> pd.DataFrame:
    """Generate invoice lines with the columns of Online Retail; all are purchases."""
    data = make_synthetic("e-commerce", seed=seed)
    assert data.ratings is not None and data.timestamps is not None and data.item_names is not None
    rng = np.random.default_rng(seed)
    prices = np.round(rng.lognormal(0.9, 0.8, data.num_items), 2)
    kingdoms = ["United Kingdom", "Germany", "France"]
    countries = rng.choice(kingdoms, data.num_users, p=[0.9, 0.05, 0.05])
    visits = np.stack([data.timestamps, data.user_ids], axis=1)
    baskets = np.unique(visits, axis=0, return_inverse=True)[1].reshape(-1)
    names = np.array([name.upper() for name in data.item_names], object)
    frame = pd.DataFrame(
        {
            "InvoiceNo": (536_365 + baskets).astype(str),
            "StockCode": (20_000 + data.item_ids).astype(str),
            "Description": names[data.item_ids],
            "Quantity": data.ratings.astype(np.int64),
            "InvoiceDate": data.timestamps.astype("datetime64[s]"),
            "UnitPrice": prices[data.item_ids],
            "CustomerID": pd.Series(12_346 + data.user_ids).astype("Int64"),
            "Country": countries[data.user_ids],
        }
    )
    frame.attrs["is_synthetic"] = True
    return frame


def _stand_in_tags(info: DatasetInfo, seed: int) -> pd.DataFrame:
    """Let generated users tag what they met with the words of its text."""
    data = _generated(info, seed)
    assert data.item_names is not None and data.item_texts is not None
    pairs = zip(data.item_names, data.item_texts, strict=True)
    words = [text.removeprefix(name).split() for name, text in pairs]
    rows: dict[str, Any] = {"user": 1 + data.user_ids, "item": 1 + data.item_ids}
    rows["tag"] = [words[item] for item in data.item_ids]
    rows["time"] = pd.to_datetime(data.timestamps, unit="s")
    frame = pd.DataFrame(rows).explode("tag").dropna(subset="tag").reset_index(drop=True)
    frame.attrs["is_synthetic"] = True
    return frame
