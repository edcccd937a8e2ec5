"""What a text model for cold items is compared with: years and weighted words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys_lib.data import Interactions

_YEAR = re.compile(r"\((\d{4})")
_WORD = re.compile(r"\w+")


def film_years(interactions: Interactions) -> NDArray[np.int64]:
    """Read the year of release from names such as "Heat (1995)"; 0 where there is none.

    Raises:
        ValueError: there are no ``item_names``.

    Example:
        >>> film_years(Interactions([0], [0], item_names=("Heat (1995)",))).tolist()
        [1995]
    """
    if interactions.item_names is None:
        raise ValueError("interactions has no item_names: expected one for each item")
    found = [_YEAR.search(name) for name in interactions.item_names]
    return np.array([int(match.group(1)) if match else 0 for match in found])


def year_features(interactions: Interactions, *, width: float = 4.0) -> NDArray[np.float32]:
    """Give each film's nearness to every fourth year since 1900, (num_items, 32).

    A linear model can then give each period a weight of its own, with neighbours alike.

    Args:
        interactions: with ``item_names``.
        width: years after which nearness has fallen to 1/e.

    Raises:
        ValueError: there are no ``item_names``.
    """
    return year_nearness(film_years(interactions), range(1900, 2028, 4), width).astype(np.float32)


def year_nearness(
    years: NDArray[np.int64], centres: Sequence[int], width: float
) -> NDArray[np.float64]:
    """Give ``exp(-((year - centre) / width)^2)`` for n years and c centres, (n, c).

    Example:
        >>> year_nearness(np.array([1995]), [1995, 1999], 4.0).round(3).tolist()
        [[1.0, 0.368]]
    """
    return np.exp(-(((years[:, None] - np.asarray(centres)) / width) ** 2))


def tfidf_vectors(texts: Sequence[str]) -> NDArray[np.float32]:
    """Give (n, num_words) vectors: counts of words, times the logarithm of rarity, over the length.

    ``count * log(n / number of texts that have the word)``, divided by the length of the whole
    vector. Columns of words that one text alone has are then left out: they tell a linear model
    nothing about other texts, but their share of the length says how unlike others a text is.

    Raises:
        TypeError: not a list of texts.

    Source:
        Spärck Jones, *A Statistical Interpretation of Term Specificity*, 1972.

    Example:
        >>> tfidf_vectors(["space war", "space love", "love"]).shape
        (3, 2)
    """
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise TypeError("texts: expected a list of str")
    words = [Counter(_WORD.findall(text.lower())) for text in texts]
    frequency = Counter(word for counts in words for word in counts)
    column = {word: n for n, word in enumerate(w for w, f in frequency.items() if f > 1)}
    vectors = np.zeros((len(texts), max(len(column), 1)), np.float32)
    for row, counts in enumerate(words):
        weights = {w: c * np.log(len(texts) / frequency[w]) for w, c in counts.items()}
        length = np.sqrt(sum(weight**2 for weight in weights.values()))
        for word, weight in weights.items():
            if word in column:
                vectors[row, column[word]] = weight / max(length, 1e-9)
    return vectors
