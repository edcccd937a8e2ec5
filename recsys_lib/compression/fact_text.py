"""The student of a sentence encoder for new texts: facts as numbers, beside the hashed words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.compression.hashed_text import (
    HashedText,
    HashedTextEncoder,
    TextStudent,
    check_pairs,
    check_texts,
    hash_matrix,
    round_table,
)
from recsys_lib.compression.quantization import UniformQuantization, quantize_uniform
from recsys_lib.models.checks import check_number
from recsys_lib.models.text_baselines import year_nearness

_DATED = re.compile(r"\((\d{4})[^)]*\)")
_YEARS = np.arange(1900, 2036)
_FINE, _COARSE = range(1900, 2036, 4), range(1900, 2036, 10)


@dataclass(frozen=True)
class FactText:
    """How the student is built and fitted.

    Args:
        words: of the table of hashed words; its ``l2`` holds for the facts as well.
        word_weight: variance of the words against that of the facts, above 0: the penalty of a
            word's row is ``words.l2 / word_weight``.
        min_count: a word after the year is a genre if so many texts have it there.

    Raises:
        TypeError, ValueError: an argument out of range.
    """

    words: HashedText = field(default_factory=lambda: HashedText(l2=1.0))
    word_weight: float = 1.0
    min_count: int = 10

    def __post_init__(self) -> None:
        if not isinstance(self.words, HashedText):
            raise TypeError(f"words is {type(self.words).__name__}: expected HashedText")
        check_number("word_weight", self.word_weight, 0, include_low=False)
        check_number("min_count", self.min_count, 1, integer=True)


def read_facts(text: str) -> tuple[int, list[str]]:
    """Give the year of a text, 0 if it names none, and the words after it.

    Example:
        >>> read_facts("Heat (1995) Action Crime")
        (1995, ['Action', 'Crime'])
    """
    found = _DATED.search(text)
    return (int(found[1]), text[found.end() :].split()) if found else (0, [])


def fact_features(texts: Sequence[str], genres: Sequence[str]) -> NDArray[np.float32]:
    """Give (n, 34 + g + 14 g) features of n texts for g genres.

    Nearness to every fourth year; each genre, 0 or 1; and nearness to every tenth year for each
    genre, over the square root of the number of genres. Nearness is ``exp(-(distance / width)^2)``
    with 4 and 8 years as widths, so that neighbouring years share what is learned of them.

    Raises:
        TypeError, ValueError: not a list of texts, or an empty one.

    Example:
        >>> fact_features(["Heat (1995) Action Crime"], ["Crime", "Drama"]).shape
        (1, 64)
    """
    check_texts(texts)
    found = [read_facts(text) for text in texts]
    near, wide = _nearness(np.array([year for year, _ in found]))
    has = np.array([[genre in words for genre in genres] for _, words in found], np.float32)
    has = has.reshape(len(texts), len(genres))
    shared = has / np.sqrt(np.maximum(has.sum(axis=1, keepdims=True), 1))
    crossed = (shared[:, :, None] * wide[:, None]).reshape(len(texts), -1)
    return np.hstack([near, has, crossed]).astype(np.float32)


def _nearness(years: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return year_nearness(years, _FINE, 4), year_nearness(years, _COARSE, 8)


class FactTextEncoder(TextStudent):
    """Texts to vectors: a row for the year, rows for its genres in that year, rows for words.

    Args:
        words: the table of hashed words.
        facts: (34 + 15 g, d), the weights of :func:`fact_features`.
        genres: g words.
        nbytes: what is stored, in bytes.

    Attributes:
        nbytes, embedding_dim: sizes.
        genres: as given.
    """

    def __init__(
        self,
        words: HashedTextEncoder,
        facts: NDArray[np.float32],
        genres: Sequence[str],
        nbytes: int,
    ) -> None:
        self.nbytes, self.embedding_dim, self.genres = nbytes, words.embedding_dim, tuple(genres)
        self._words, self._row = words, {genre: n for n, genre in enumerate(genres)}
        near, wide = _nearness(np.append(_YEARS, 0))  # the last row: no year
        fine, count = len(_FINE), len(genres)
        self._year = (near @ facts[:fine]).astype(np.float32)  # (y, d)
        self._genre = facts[fine : fine + count]  # (g, d)
        crossed = facts[fine + count :].reshape(count, len(_COARSE), facts.shape[1])
        self._crossed = np.einsum("yc,gcd->ygd", wide, crossed).astype(np.float32)

    def encode_one(self, text: str) -> NDArray[np.float32]:
        """Give the (d,) vector of one text."""
        year, words = read_facts(text)
        at = year - _YEARS[0] if _YEARS[0] <= year <= _YEARS[-1] else len(_YEARS)
        vector = self._words.encode_one(text) + self._year[at]
        rows = list({self._row[word] for word in words if word in self._row})
        if rows:
            vector += self._genre[rows].sum(axis=0)
            vector += self._crossed[at, rows].sum(axis=0) * np.float32(len(rows) ** -0.5)
        return vector


def fit_fact_text(
    texts: Sequence[str], vectors: ArrayLike, config: FactText | None = None
) -> FactTextEncoder:
    """Distil an encoder into facts and words: one ridge regression of its vectors on both.

    A table of hashed words knows 1994 and 1996 as two words that have nothing to do with each
    other. Here the year is a number and a genre is weighted by its period (:func:`fact_features`),
    so that a title of new words still gets what the teacher thinks of such films. With F the facts
    and H the words of :func:`recsys_lib.compression.hashed_text.fit_hashed_text`, the solution is
    ``X' (X X' + l2 I)^-1 Y`` with ``X = [F, sqrt(word_weight) H]``, centred Y. Both parts are
    rounded to ``words.bits`` bits, each row with a scale of its own.

    Args:
        texts: n texts of the form "Title (year) Genre Genre"; other texts have no facts.
        vectors: (n, d), what the teacher gives for them.
        config: how.

    Raises:
        TypeError: not a list of texts.
        ValueError: another number of vectors, or NaN.

    Source:
        Hinton, Vinyals & Dean, *Distilling the Knowledge in a Neural Network*, 2015; products of
        features beside hashed words: Cheng et al., *Wide & Deep Learning*, DLRS 2016.

    Example:
        >>> texts = [f"Word{n} ({1960 + n}) Drama" for n in range(60)]
        >>> teacher = np.arange(60.0)[:, None] / 60  # the later, the larger
        >>> student = fit_fact_text(texts, teacher)
        >>> bool(student.encode_one("New (1965) Drama") < student.encode_one("New (2015) Drama"))
        True
    """
    config = FactText() if config is None else config
    y = check_pairs(texts, vectors)
    counts = Counter(word for text in texts for word in set(read_facts(text)[1]))
    genres = sorted(word for word, count in counts.items() if count >= config.min_count)
    hashed = hash_matrix(texts, config.words.num_buckets)
    facts, bias = fact_features(texts, genres), y.mean(axis=0)
    gram = facts @ facts.T + config.word_weight * (hashed @ hashed.T).toarray()
    dual = np.linalg.solve(gram + config.words.l2 * np.eye(len(texts)), y - bias)
    words = round_table(config.word_weight * (hashed.T @ dual), bias, config.words.bits)
    stored = quantize_uniform(
        (facts.T @ dual).astype(np.float32),
        UniformQuantization(config.words.bits, "row", symmetric=True),
    )
    nbytes = words.nbytes + stored.nbytes + len(" ".join(genres).encode())
    return FactTextEncoder(words, stored.decode(), genres, nbytes)
