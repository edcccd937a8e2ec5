"""Readers of the three MovieLens data sets."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys_lib.data.errors import CorruptFileError
from recsys_lib.data.files import open_text, path_of
from recsys_lib.data.interactions import Interactions
from recsys_lib.data.splits import Split
from recsys_lib.data.tables import convert, positions, read_columns, read_numbers

GENRES = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
_RATING = ("user", "item", "rating", "timestamp")


def read_ncf_ml_1m(folder: Path) -> Split:
    """Read the split of He et al. (2017); the train file has 3 or 4 columns."""
    train = read_numbers(path_of(folder, "ml-1m.train.rating"), _RATING, optional=1)
    test = read_numbers(path_of(folder, "ml-1m.test.rating"), _RATING, optional=1)
    negatives = _read_negatives(path_of(folder, "ml-1m.test.negative"), test)
    with_time = train.shape[1] == test.shape[1] == 4
    num_users = int(max(train[:, 0].max(), test[:, 0].max())) + 1
    num_items = int(max(train[:, 1].max(), test[:, 1].max(), negatives.max())) + 1

    def interactions(table: NDArray[np.int64]) -> Interactions:
        return Interactions(
            user_ids=table[:, 0],
            item_ids=table[:, 1],
            ratings=table[:, 2].astype(np.float32),
            timestamps=table[:, 3] if with_time else None,
            num_users=num_users,
            num_items=num_items,
            name="ncf-ml-1m",
        )

    return Split(interactions(train), interactions(test), negatives, name="ncf-ml-1m")


def _read_negatives(path: Path, test: NDArray[np.int64]) -> NDArray[np.int64]:
    """Read lines of ``(user,item)`` and the items to rank it against; (len(test), m)."""
    rows: list[list[int]] = []
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            first, *rest = line.split() or [""]
            pair = re.fullmatch(r"\((\d+),(\d+)\)", first)
            try:
                row = [int(value) for value in rest]
            except ValueError:
                row = []
            width = len(rows[0]) if rows else len(row)
            if pair is None or not row or len(row) != width:
                raise CorruptFileError(
                    f"{path}, line {number}: {line[:50].strip()!r} came: expected (user,item) and "
                    f"{width or 99} item ids"
                )
            if (
                number > len(test)
                or [int(i) for i in pair.groups()] != test[number - 1, :2].tolist()
            ):
                raise CorruptFileError(
                    f"{path}, line {number}: {first} came: expected the pair of the same line of "
                    "the test file"
                )
            rows.append(row)
    if len(rows) != len(test):
        raise CorruptFileError(f"{path} has {len(rows)} lines: expected {len(test)}, as the test")
    return np.array(rows, np.int64)


def read_ml_100k(folder: Path, file: str = "u.data") -> Interactions:
    """Read MovieLens 100k, or one of its parts (``u1.base`` ...)."""
    table = read_numbers(path_of(folder, file), _RATING)
    path = path_of(folder, "u.item")
    columns = ["movie id", "title", "release date", "video release date", "address", *GENRES]
    items = read_columns(
        path, columns, delimiter="|", header=False, encoding="latin-1", quoted=False
    )
    movie_ids = convert(path, "movie id", items[0], np.int64, header=False)
    if not np.array_equal(movie_ids, np.arange(1, len(movie_ids) + 1)):
        raise CorruptFileError(f"{path}: movie ids do not count up from 1: expected 1, 2, 3, ...")
    flags = np.array(items[5:]).T == "1"
    texts = [
        " ".join([title, *(genre for genre, is_set in zip(GENRES, row, strict=True) if is_set)])
        for title, row in zip(items[1], flags, strict=True)
    ]
    return Interactions(
        user_ids=table[:, 0] - 1,
        item_ids=table[:, 1] - 1,
        ratings=table[:, 2].astype(np.float32),
        timestamps=table[:, 3],
        num_users=943,
        num_items=len(movie_ids),
        user_vocabulary=np.arange(1, 944),
        item_vocabulary=movie_ids,
        item_names=tuple(items[1]),
        item_texts=tuple(texts),
        name="ml-100k",
    )


def read_ml_100k_folds(folder: Path) -> list[Split]:
    """Read the five splits u1 .. u5 that come with the data."""
    return [
        Split(
            read_ml_100k(folder, f"u{fold}.base"),
            read_ml_100k(folder, f"u{fold}.test"),
            name=f"ml-100k u{fold}",
        )
        for fold in range(1, 6)
    ]


def read_ml_latest_small(folder: Path) -> Interactions:
    """Read MovieLens latest-small; the catalogue is all of movies.csv, rated or not."""
    path = path_of(folder, "ratings.csv")
    names = ("userId", "movieId", "rating", "timestamp")
    table = read_numbers(path, names, delimiter=",", header=True, dtype=np.float64)
    path = path_of(folder, "movies.csv")
    movies, titles, genres = read_columns(path, ("movieId", "title", "genres"))
    movie_ids = convert(path, "movieId", movies, np.int64)
    path = path_of(folder, "tags.csv")
    _, tagged, tags, _ = read_columns(path, ("userId", "movieId", "tag", "timestamp"))
    order = np.argsort(movie_ids)
    vocabulary = movie_ids[order]
    words: list[dict[str, None]] = [{} for _ in vocabulary]  # distinct tags, in order
    for item, tag in zip(
        positions(path, "movieId", convert(path, "movieId", tagged, np.int64), vocabulary),
        tags,
        strict=True,
    ):
        words[item][tag] = None
    texts = [
        " ".join([titles[row], *genres[row].replace("(no genres listed)", "").split("|"), *tags_of])
        for row, tags_of in zip(order, words, strict=True)
    ]
    user_vocabulary, user_ids = np.unique(table[:, 0].astype(np.int64), return_inverse=True)
    path = path_of(folder, "ratings.csv")
    return Interactions(
        user_ids=user_ids,
        item_ids=positions(path, "movieId", table[:, 1].astype(np.int64), vocabulary),
        ratings=table[:, 2].astype(np.float32),
        timestamps=table[:, 3].astype(np.int64),
        num_users=len(user_vocabulary),
        num_items=len(vocabulary),
        user_vocabulary=user_vocabulary,
        item_vocabulary=vocabulary,
        item_names=tuple(titles[row] for row in order),
        item_texts=tuple(text.strip() for text in texts),
        name="ml-latest-small",
    )
