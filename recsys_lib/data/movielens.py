"""Readers of the three MovieLens data sets, and of the genres in their texts."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys_lib.data.files import open_text, path_of, read_columns, read_numbers
from recsys_lib.data.interactions import Interactions
from recsys_lib.data.splits import Split

# The columns of ml-100k's u.item, in their order; and what ml-latest-small and the generator write.
_FLAGS = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)  # fmt: skip
GENRES = (
    "Action", "Adventure", "Animation", "Children", "Comedy", "Crime", "Documentary", "Drama",
    "Fantasy", "Film-Noir", "Horror", "IMAX", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western", "Science Fiction",
)  # fmt: skip


def read_ncf_ml_1m(folder: Path) -> Split:
    """Read the split of He et al. (2017).

    The training file is in use with its times and without; so that results do not depend on which
    one was found, times are left out.
    """
    name = "ncf-ml-1m"
    train, test = (read_numbers(path_of(folder, f"ml-1m.{p}.rating")) for p in ("train", "test"))
    with open_text(path_of(folder, "ml-1m.test.negative")) as file:  # "(user,item)", then items
        negatives = np.array([line.split()[1:] for line in file]).astype(np.int64)
    num_users = int(max(train[:, 0].max(), test[:, 0].max())) + 1
    num_items = int(max(train[:, 1].max(), test[:, 1].max(), negatives.max())) + 1
    parts = [
        Interactions(t[:, 0], t[:, 1], t[:, 2], None, num_users, num_items, name=name)
        for t in (train, test)
    ]
    return Split(parts[0], parts[1], negatives, name=name)


def read_ml_100k(folder: Path, file: str = "u.data") -> Interactions:
    """Read MovieLens 100k, or one of its parts (``u1.base`` ...)."""
    table = read_numbers(path_of(folder, file))
    path = path_of(folder, "u.item")
    names = ["movie id", "title", "release date", "video release date", "address", *_FLAGS]
    items = read_columns(path, names, delimiter="|", header=False, encoding="latin-1", quoted=False)
    flags = np.array(items[5:]).T == "1"
    texts = [
        " ".join([title, *(genre for genre, is_set in zip(_FLAGS, row, strict=True) if is_set)])
        for title, row in zip(items[1], flags, strict=True)
    ]
    return Interactions(
        user_ids=table[:, 0] - 1,
        item_ids=table[:, 1] - 1,
        ratings=table[:, 2].astype(np.float32),
        timestamps=table[:, 3],
        num_users=943,
        num_items=len(texts),
        user_vocabulary=np.arange(1, 944),
        item_vocabulary=np.arange(1, len(texts) + 1),
        item_names=tuple(items[1]),
        item_texts=tuple(texts),
        name="ml-100k",
    )


def read_ml_100k_fold(folder: Path, fold: int) -> Split:
    """Read one of the five splits u1 .. u5 that come with the data."""
    train, test = (read_ml_100k(folder, f"u{fold}.{part}") for part in ("base", "test"))
    return Split(train, test, name=f"ml-100k u{fold}")


def read_ml_latest_small(folder: Path) -> Interactions:
    """Read MovieLens latest-small; the catalogue is all of movies.csv, rated or not."""
    path = path_of(folder, "ratings.csv")
    table = read_numbers(path, delimiter=",", header=True, dtype=np.float64)
    path = path_of(folder, "movies.csv")
    movies, titles, genres = read_columns(path, ("movieId", "title", "genres"))
    movie_ids = np.array(movies).astype(np.int64)
    path = path_of(folder, "tags.csv")
    _, tagged, tags, _ = read_columns(path, ("userId", "movieId", "tag", "timestamp"))
    order = np.argsort(movie_ids)
    vocabulary = movie_ids[order]
    words: list[dict[str, None]] = [{} for _ in vocabulary]  # distinct tags, in order
    items = np.searchsorted(vocabulary, np.array(tagged).astype(np.int64))
    for item, tag in zip(items, tags, strict=True):
        words[item][tag] = None
    texts = [
        " ".join([titles[row], *genres[row].replace("(no genres listed)", "").split("|"), *tags_of])
        for row, tags_of in zip(order, words, strict=True)
    ]
    user_vocabulary, user_ids = np.unique(table[:, 0].astype(np.int64), return_inverse=True)
    return Interactions(
        user_ids=user_ids,
        item_ids=np.searchsorted(vocabulary, table[:, 1]),
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


def read_ml_tags(folder: Path) -> pd.DataFrame:
    """Read who gave which film which tag, and when."""
    path = path_of(folder, "tags.csv")
    columns = read_columns(path, ("userId", "movieId", "tag", "timestamp"))
    user, item, _, time = (np.array(values) for values in columns)
    rows = {"user": user.astype(np.int64), "item": item.astype(np.int64), "tag": columns[2]}
    return pd.DataFrame(rows | {"time": pd.to_datetime(time.astype(np.int64), unit="s")})


def item_genres(interactions: Interactions) -> NDArray[np.float32]:
    """Return the genres of films, read from their texts: title, then genres, then tags.

    Args:
        interactions: with ``item_names`` and ``item_texts``.

    Returns:
        (num_items, len(GENRES)) of 0 and 1.

    Raises:
        ValueError: names or texts are missing.

    Example:
        >>> film = Interactions([0], [0], item_names=("Heat (1995)",),
        ...                     item_texts=("Heat (1995) Action Crime tense heist",))
        >>> item_genres(film).sum()
        np.float32(2.0)
    """
    table = np.zeros((interactions.num_items, len(GENRES)), np.float32)
    for row, (_, genres, _) in enumerate(_texts_in_parts(interactions)):
        table[row, genres] = 1
    return table


def texts_without_tags(interactions: Interactions) -> list[str]:
    """Return title and genres: what is known of a film on its first day.

    Tags are written by people who have seen the film. In a test of cold items they tell a model
    about the very interactions that it is to predict.

    Args, Raises: as for :func:`item_genres`.

    Example:
        >>> film = Interactions([0], [0], item_names=("Heat (1995)",),
        ...                     item_texts=("Heat (1995) Action Crime tense heist",))
        >>> texts_without_tags(film)
        ['Heat (1995) Action Crime']
    """
    parts = _texts_in_parts(interactions)
    return [text[: len(text) - len(tags)].strip() for text, _, tags in parts]


def _texts_in_parts(interactions: Interactions) -> list[tuple[str, list[int], str]]:
    """Return (text, numbers of the genres, tags) of each item."""
    names, texts = interactions.item_names, interactions.item_texts
    if names is None or texts is None:
        raise ValueError("interactions has no item_names or no item_texts: expected both")
    # MovieLens writes genres with a capital, and people their tags mostly without one.
    genres = [genre.lower() if interactions.is_synthetic else genre for genre in GENRES]
    pattern = re.compile(rf"\s*({'|'.join(map(re.escape, genres))})(?!\S)")
    parts = []
    for name, text in zip(names, texts, strict=True):
        found: list[int] = []
        at = len(name)
        while (match := pattern.match(text, at)) and genres.index(match[1]) not in found:
            found.append(genres.index(match[1]))
            at = match.end()
        parts.append((text, found, text[at:]))
    return parts
