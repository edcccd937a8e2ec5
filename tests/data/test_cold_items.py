"""Whole items held out, and the parts of a film's text."""

from __future__ import annotations

import numpy as np
import pytest

from recsys_lib.data import Interactions, load_dataset
from recsys_lib.data.cold_items import (
    GENRES,
    item_genres,
    split_cold_items,
    texts_without_tags,
)


@pytest.fixture(scope="module")
def log() -> Interactions:
    data = load_dataset("ml-latest-small", fallback="synthetic", progress=False)
    assert isinstance(data, Interactions)
    return data


def test_no_item_and_no_row_is_in_two_parts(log: Interactions) -> None:
    split = split_cold_items(log, seed=1)
    parts = (split.train, split.validation, split.test)
    items = np.concatenate([part.item_vocabulary for part in parts])
    counts = np.bincount(log.item_ids, minlength=log.num_items)
    assert log.item_vocabulary is not None
    assert len(np.unique(items)) == len(items) == (counts >= 5).sum()
    assert sum(map(len, parts)) == counts[counts >= 5].sum()
    assert [p.num_items / len(items) for p in parts] == pytest.approx([0.7, 0.1, 0.2], abs=1e-3)
    for part in parts:
        assert part.num_users == log.num_users
        assert np.bincount(part.item_ids).min() >= 5  # nothing of an item was lost
        place = np.searchsorted(log.item_vocabulary, part.item_vocabulary)
        assert part.item_names == tuple(log.item_names[i] for i in place)  # type: ignore[index]
    again = split_cold_items(log, seed=1)
    np.testing.assert_array_equal(again.test.item_vocabulary, split.test.item_vocabulary)
    other = split_cold_items(log, seed=2)
    assert not np.array_equal(other.test.item_vocabulary, split.test.item_vocabulary)


def test_genres_end_where_tags_begin() -> None:
    names = ("Heat (1995)", "War", "Up")
    texts = ("Heat (1995) Action Crime drama tense", "War Sci-Fi War Warring states", "Up")
    films = Interactions([0], [0], num_items=3, item_names=names, item_texts=texts)
    found = [[GENRES[g] for g in np.flatnonzero(row)] for row in item_genres(films)]
    assert found == [["Action", "Crime"], ["Sci-Fi", "War"], []]
    assert texts_without_tags(films) == ["Heat (1995) Action Crime", "War Sci-Fi War", "Up"]


def test_every_genre_of_real_films_is_read(log: Interactions) -> None:
    if log.is_synthetic:
        pytest.skip("the real data are not here")
    share = item_genres(log).mean(axis=0)
    assert (share[:19] > 0).all()
    assert share[GENRES.index("Drama")] == pytest.approx(4361 / 9742, abs=0.001)  # of movies.csv


def test_wrong_arguments(log: Interactions) -> None:
    with pytest.raises(ValueError, match=r"test_fraction is 1\.0: expected a number in \(0, 1\)"):
        split_cold_items(log, test_fraction=1.0)
    with pytest.raises(ValueError, match="add up to"):
        split_cold_items(log, test_fraction=0.6, validation_fraction=0.5)
    with pytest.raises(ValueError, match="expected enough for one in test"):
        split_cold_items(log, min_interactions=10**9)
    with pytest.raises(ValueError, match="no item_names or no item_texts"):
        item_genres(Interactions([0], [0]))
