"""Load a data set by name: from the data home, from its official address, or made up."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, overload

from recsys_lib.data import movielens, readers, retail
from recsys_lib.data.errors import DownloadError
from recsys_lib.data.files import data_home as home_of
from recsys_lib.data.files import find_file
from recsys_lib.data.info import DATASETS, DatasetInfo
from recsys_lib.data.interactions import Interactions
from recsys_lib.data.sources import obtain
from recsys_lib.data.splits import Split
from recsys_lib.data.standins import stand_in, stand_in_folds, stand_in_frame
from recsys_lib.data.synthetic import Preset, make_synthetic

if TYPE_CHECKING:
    import pandas as pd

SplitName = Literal["ncf-ml-1m", "adressa-macr", "citeulike-derrd"]
InteractionsName = Literal[
    "ml-100k", "ml-latest-small", "online-retail", "lastfm-hetrec2011-2k", "synthetic"
]
Folder = str | os.PathLike[str] | None
Fallback = Literal["synthetic"] | None
_T = TypeVar("_T")

_READERS: Mapping[str, Callable[[Path], Interactions | Split]] = {
    "ncf-ml-1m": movielens.read_ncf_ml_1m,
    "ml-100k": movielens.read_ml_100k,
    "ml-latest-small": movielens.read_ml_latest_small,
    "online-retail": retail.read_online_retail,
    "adressa-macr": readers.read_adressa_macr,
    "lastfm-hetrec2011-2k": readers.read_lastfm,
    "citeulike-derrd": readers.read_citeulike_derrd,
}
_FOLD_FILES = ("u.item", *(f"u{fold}.{part}" for fold in range(1, 6) for part in ("base", "test")))


@overload
def load_dataset(
    name: SplitName,
    *,
    data_home: Folder = None,
    fallback: Fallback = None,
    preset: Preset = "video",
    seed: int = 0,
    progress: bool = True,
) -> Split: ...


@overload
def load_dataset(
    name: InteractionsName,
    *,
    data_home: Folder = None,
    fallback: Fallback = None,
    preset: Preset = "video",
    seed: int = 0,
    progress: bool = True,
) -> Interactions: ...


@overload
def load_dataset(
    name: str,
    *,
    data_home: Folder = None,
    fallback: Fallback = None,
    preset: Preset = "video",
    seed: int = 0,
    progress: bool = True,
) -> Interactions | Split: ...


def load_dataset(
    name: str,
    *,
    data_home: Folder = None,
    fallback: Fallback = None,
    preset: Preset = "video",
    seed: int = 0,
    progress: bool = True,
) -> Interactions | Split:
    """Load a data set by name.

    Files are looked for in ``<data home>/<name>/``, plain or gzipped. Those that are missing are
    downloaded there; a data home that has them all is only read.

    Args:
        name: a name of ``DATASETS``, or "synthetic".
        data_home: folder of data sets; default ``RECSYS_DATA_HOME``, else the user's cache.
        fallback: "synthetic" gives generated data of the same kind, with a warning, where the
            files cannot be had; None raises. A corrupt file raises in any case.
        preset: domain of "synthetic": "e-commerce", "news", "video" or "music".
        seed: of generated data.
        progress: show a bar while downloading.

    Returns:
        :class:`Split` for "ncf-ml-1m", "adressa-macr" and "citeulike-derrd", else
        :class:`Interactions`.

    Raises:
        ValueError: the name, the fallback or the preset is unknown.
        DownloadError: the files are not there and cannot be fetched; says what to put where.
        CorruptFileError: a file is damaged; names the file and the line.

    Example:
        >>> load_dataset("synthetic", preset="news").is_synthetic
        True
    """
    if fallback not in (None, "synthetic"):
        raise ValueError(f"fallback is {fallback!r}: expected None or 'synthetic'")
    if name == "synthetic":
        return make_synthetic(preset, seed=seed)
    if name not in DATASETS:
        raise ValueError(f"name is {name!r}: expected one of {', '.join([*DATASETS, 'synthetic'])}")
    info = DATASETS[name]
    return _read(
        info,
        info.files,
        _READERS[name],
        data_home,
        progress,
        None if fallback is None else lambda: stand_in(info, seed=seed),
    )


def load_folds(
    name: Literal["ml-100k"] = "ml-100k",
    *,
    data_home: Folder = None,
    fallback: Fallback = None,
    seed: int = 0,
    progress: bool = True,
) -> list[Split]:
    """Load the five splits u1 .. u5 that come with MovieLens 100k.

    Args:
        name: "ml-100k".
        data_home: see :func:`load_dataset`.
        fallback: see :func:`load_dataset`.
        seed: of generated data.
        progress: show a bar while downloading.

    Returns:
        Five splits; each row of the data is in exactly one test part.

    Raises:
        ValueError: the name is another one.
        DownloadError: the files are not there and cannot be fetched.
    """
    if name != "ml-100k":
        raise ValueError(f"name is {name!r}: expected 'ml-100k', the one with folds of its own")
    return _read(
        DATASETS[name],
        _FOLD_FILES,
        movielens.read_ml_100k_folds,
        data_home,
        progress,
        None if fallback is None else lambda: stand_in_folds(seed=seed),
    )


def load_frame(
    name: Literal["online-retail"] = "online-retail",
    *,
    data_home: Folder = None,
    fallback: Fallback = None,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Load the raw rows as a data frame: price, country and baskets of Online Retail.

    Args:
        name: "online-retail".
        data_home: see :func:`load_dataset`.
        fallback: see :func:`load_dataset`.
        seed: of generated data.
        progress: show a bar while downloading.

    Returns:
        See :func:`recsys_lib.data.retail.read_retail_frame`.

    Raises:
        ValueError: the name is another one.
        DownloadError: the files are not there and cannot be fetched.
    """
    if name != "online-retail":
        raise ValueError(f"name is {name!r}: expected 'online-retail'")
    info = DATASETS[name]
    return _read(
        info,
        info.files,
        retail.read_retail_frame,
        data_home,
        progress,
        None if fallback is None else lambda: stand_in_frame(seed=seed),
    )


def _read(
    info: DatasetInfo,
    files: tuple[str, ...],
    reader: Callable[[Path], _T],
    data_home: Folder,
    progress: bool,
    made_up: Callable[[], _T] | None,
) -> _T:
    folder = home_of(data_home) / info.name
    missing = [file for file in files if find_file(folder, file) is None]
    if missing:
        try:
            obtain(info.name, folder, missing, progress=progress)
        except DownloadError as error:
            if made_up is not None:
                warnings.warn(
                    f"{info.name} is not to be had ({error}). SYNTHETIC data takes its place: "
                    "numbers differ from those in the book",
                    UserWarning,
                    stacklevel=3,
                )
                return made_up()
            raise DownloadError(
                f"{info.name} is not to be had: {error}\nPut {', '.join(missing)} (plain or .gz) "
                f"into {folder} by hand, from {info.source}; or name a folder that has "
                f"{info.name}/ in RECSYS_DATA_HOME, or a mirror in RECSYS_DATA_MIRROR; or pass "
                'fallback="synthetic"',
                status=error.status,
            ) from error
    return reader(folder)
