"""Items that nobody has met yet: a split by items, and the texts of films in their parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.data.interactions import Interactions

GENRES = (
    "Action", "Adventure", "Animation", "Children", "Comedy", "Crime", "Documentary", "Drama",
    "Fantasy", "Film-Noir", "Horror", "IMAX", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western", "Science Fiction",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class ColdItemSplit:
    """Three parts with the same users and without a common item.

    Args:
        train: what a model may learn from.
        validation: items to choose settings with.
        test: items to judge with.

    In each part items are numbered from 0; names, texts and vocabulary are those of its items.
    """

    train: Interactions
    validation: Interactions
    test: Interactions

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.train.name

    @property
    def is_synthetic(self) -> bool:
        """True when the rows come from the generator and not from people."""
        return self.train.is_synthetic


def split_cold_items(
    interactions: Interactions,
    *,
    test_fraction: float = 0.2,
    validation_fraction: float = 0.1,
    min_interactions: int = 5,
    seed: int = 0,
) -> ColdItemSplit:
    """Hold whole items out of training, with all that happened to them.

    Args:
        interactions: the whole log.
        test_fraction: share of the items, in (0, 1).
        validation_fraction: likewise; together they are below 1.
        min_interactions: items with fewer rows are left out of all parts.
        seed: of the draw.

    Raises:
        ValueError: a fraction out of range, or a part without items.

    Source:
        Schein et al., *Methods and Metrics for Cold-Start Recommendations*, SIGIR 2002.

    Example:
        >>> log = Interactions(user_ids=[0, 1, 0, 1, 0, 1], item_ids=[0, 0, 1, 1, 2, 2])
        >>> split = split_cold_items(log, test_fraction=0.34, validation_fraction=0.33,
        ...                          min_interactions=2)
        >>> split.train.num_items, split.validation.num_items, split.test.num_items
        (1, 1, 1)
    """
    fractions = {"test_fraction": test_fraction, "validation_fraction": validation_fraction}
    for name, value in fractions.items():
        if not 0 < value < 1:
            raise ValueError(f"{name} is {value}: expected a number in (0, 1)")
    if test_fraction + validation_fraction >= 1:
        raise ValueError(
            f"test_fraction and validation_fraction add up to {test_fraction + validation_fraction}"
            ": expected less than 1"
        )
    counts = np.bincount(interactions.item_ids, minlength=interactions.num_items)
    items = np.random.default_rng(seed).permutation(np.flatnonzero(counts >= min_interactions))
    num_test, num_validation = (round(share * len(items)) for share in fractions.values())
    test, validation, train = np.split(items, [num_test, num_test + num_validation])
    for name, part in (("test", test), ("validation", validation), ("train", train)):
        if not len(part):
            raise ValueError(
                f"{len(items)} items have {min_interactions} interactions or more: expected enough "
                f"for one in {name}"
            )
    return ColdItemSplit(*(_part(interactions, np.sort(p)) for p in (train, validation, test)))


def item_genres(interactions: Interactions) -> NDArray[np.float32]:
    """Read the genres of films from their texts: title, then genres, then tags.

    Args:
        interactions: with ``item_names`` and ``item_texts``.

    Returns:
        (num_items, len(GENRES)) of 0 and 1.

    Raises:
        ValueError: names or texts are missing.

    Example:
        >>> item_genres(_TOY_FILM).sum()
        np.float32(2.0)
    """
    table = np.zeros((interactions.num_items, len(GENRES)), np.float32)
    for row, (_, genres, _) in enumerate(_texts_in_parts(interactions)):
        table[row, genres] = 1
    return table


def texts_without_tags(interactions: Interactions) -> list[str]:
    """Give title and genres: what is known of a film on its first day.

    Tags are written by people who have seen the film. In a test of cold items they tell a model
    about the very interactions that it is to predict.

    Args, Raises: as for :func:`item_genres`.

    Example:
        >>> texts_without_tags(_TOY_FILM)
        ['Heat (1995) Action Crime']
    """
    parts = _texts_in_parts(interactions)
    return [text[: len(text) - len(tags)].strip() for text, _, tags in parts]


def _texts_in_parts(interactions: Interactions) -> list[tuple[str, list[int], str]]:
    """Give (text, numbers of the genres, tags) of each item."""
    names, texts = interactions.item_names, interactions.item_texts
    if names is None or texts is None:
        raise ValueError("interactions has no item_names or no item_texts: expected both")
    # MovieLens writes genres with a capital, and people their tags mostly without one.
    genres = [genre.lower() for genre in GENRES] if interactions.is_synthetic else GENRES
    return [
        (text, *_read(text[len(name) :], genres)) for name, text in zip(names, texts, strict=True)
    ]


def _read(rest: str, genres: Sequence[str]) -> tuple[list[int], str]:
    found: list[int] = []
    while True:
        rest = rest.lstrip()
        for number, genre in enumerate(genres):
            ends = rest[len(genre) : len(genre) + 1] in ("", " ")
            if ends and number not in found and rest.startswith(genre):
                found.append(number)
                rest = rest[len(genre) :]
                break
        else:
            return found, rest


def _part(whole: Interactions, items: NDArray[np.int64]) -> Interactions:
    rows = np.flatnonzero(np.isin(whole.item_ids, items))
    kept: dict[str, Any] = {}
    for column in ("ratings", "timestamps"):
        values = getattr(whole, column)
        kept[column] = None if values is None else values[rows]
    for column in ("item_names", "item_texts"):
        texts: Sequence[str] | None = getattr(whole, column)
        kept[column] = None if texts is None else tuple(texts[i] for i in items)
    vocabulary = whole.item_vocabulary
    kept["item_vocabulary"] = items if vocabulary is None else vocabulary[items]
    return replace(
        whole,
        user_ids=whole.user_ids[rows],
        item_ids=np.searchsorted(items, whole.item_ids[rows]),
        num_items=len(items),
        **kept,
    )


_TOY_FILM = Interactions(
    np.array([0]),
    np.array([0]),
    item_names=("Heat (1995)",),
    item_texts=("Heat (1995) Action Crime tense heist",),
)
