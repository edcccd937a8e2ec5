"""Readers of clicks on news, listening counts and libraries of papers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys_lib.data.errors import CorruptFileError
from recsys_lib.data.files import open_text, path_of
from recsys_lib.data.interactions import Interactions
from recsys_lib.data.splits import Split
from recsys_lib.data.tables import convert, positions, read_columns, read_numbers


def read_adressa_macr(folder: Path) -> Split:
    """Read lines of a user and the articles they clicked."""
    parts = [_read_lists(path_of(folder, name)) for name in ("train.txt", "test.txt")]
    users, items = (max(int(part[:, c].max()) for part in parts) + 1 for c in (0, 1))
    train, test = (
        Interactions(
            user_ids=part[:, 0],
            item_ids=part[:, 1],
            num_users=users,
            num_items=items,
            name="adressa-macr",
        )
        for part in parts
    )
    return Split(train, test, name="adressa-macr")


def read_citeulike_derrd(folder: Path) -> Split:
    """Read pairs of user and paper.

    The authors count 5,220 users and 25,182 papers, one more of each than occur; so do we.
    """
    names = ("train.tsv", "valid.tsv", "test.tsv")
    parts = [read_numbers(path_of(folder, name), ("user", "item")) for name in names]
    users, items = (
        max(count, *(int(part[:, column].max()) + 1 for part in parts))
        for column, count in enumerate((5_220, 25_182))
    )
    train, validation, test = (
        Interactions(
            user_ids=part[:, 0],
            item_ids=part[:, 1],
            num_users=users,
            num_items=items,
            name="citeulike-derrd",
        )
        for part in parts
    )
    return Split(train, test, validation=validation, name="citeulike-derrd")


def read_lastfm(folder: Path) -> Interactions:
    """Read listening counts; texts are the artist's name and its five most frequent tags."""
    path = path_of(folder, "user_artists.dat")
    table = read_numbers(path, ("userID", "artistID", "weight"), header=True)
    artists_path = path_of(folder, "artists.dat")
    columns = ("id", "name", "url", "pictureURL")
    artists, names, _, _ = read_columns(artists_path, columns, delimiter="\t", quoted=False)
    artist_ids = convert(artists_path, "id", artists, np.int64)
    order = np.argsort(artist_ids)
    vocabulary = artist_ids[order]
    top_tags = _lastfm_tags(folder, vocabulary)
    user_vocabulary, user_ids = np.unique(table[:, 0], return_inverse=True)
    item_names = [names[row] for row in order]
    return Interactions(
        user_ids=user_ids,
        item_ids=positions(path, "artistID", table[:, 1], vocabulary),
        ratings=table[:, 2].astype(np.float32),
        num_users=len(user_vocabulary),
        num_items=len(vocabulary),
        user_vocabulary=user_vocabulary,
        item_vocabulary=vocabulary,
        item_names=tuple(item_names),
        item_texts=tuple(
            " ".join([name, *tags]) for name, tags in zip(item_names, top_tags, strict=True)
        ),
        name="lastfm-hetrec2011-2k",
    )


def _lastfm_tags(folder: Path, vocabulary: NDArray[np.int64], most: int = 5) -> list[list[str]]:
    """List each artist's tags, the most frequent first."""
    path = path_of(folder, "tags.dat")
    tag_ids, values = read_columns(path, ("tagID", "tagValue"), delimiter="\t", quoted=False)
    value_of = dict(zip(convert(path, "tagID", tag_ids, np.int64).tolist(), values, strict=True))
    path = path_of(folder, "user_taggedartists.dat")
    columns = ("userID", "artistID", "tagID", "day", "month", "year")
    table = read_numbers(path, columns, header=True)
    # Some tagged artists are in nobody's listening list and not in artists.dat: left out.
    known = table[np.isin(table[:, 1], vocabulary)]
    pairs, counts = np.unique(known[:, 1:3], axis=0, return_counts=True)
    tags: list[list[str]] = [[] for _ in vocabulary]
    items = positions(path, "artistID", pairs[:, 0], vocabulary)
    for row in np.lexsort((pairs[:, 1], -counts)):
        if len(tags[items[row]]) < most and int(pairs[row, 1]) in value_of:
            tags[items[row]].append(value_of[int(pairs[row, 1])])
    return tags


def _read_lists(path: Path) -> NDArray[np.int64]:
    """Read lines of ``user item item ...`` as pairs (n, 2)."""
    pairs: list[tuple[int, int]] = []
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            values = line.split()
            if not all(value.isdecimal() for value in values):
                raise CorruptFileError(
                    f"{path}, line {number}: {line[:50].strip()!r} came: expected a user id and "
                    "item ids, all whole numbers"
                )
            pairs += [(int(values[0]), int(item)) for item in values[1:]]
    if not pairs:
        raise CorruptFileError(f"{path} holds no clicks: expected lines of a user and its items")
    return np.array(pairs, np.int64)
