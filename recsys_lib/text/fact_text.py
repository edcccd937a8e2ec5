"""The student of a sentence encoder for new texts: year as a number, words crossed with facts."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations, product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_number
from recsys_lib.compression.quantization import UniformQuantization
from recsys_lib.text.baselines import year_nearness
from recsys_lib.text.hashed_text import (
    HashedText,
    HashedTextEncoder,
    TextStudent,
    bucket_matrix,
    check_pairs,
    hash_words,
    round_table,
    words_of,
)

_DATED = re.compile(r"\((\d{4})[^)]*\)")
_YEARS = np.arange(1900, 2036)


@dataclass(frozen=True)
class FactText:
    """How the student is built and fitted.

    Args:
        words: of the table of hashed words and crosses; its ``l2`` holds for the year as well.
        word_weight: variance of the words against that of the year, above 0: the penalty of a
            word's row is ``words.l2 / word_weight``.
        embedding_dim: d, length of a vector, at most the number of targets, which it is if None.

    Raises:
        TypeError, ValueError: an argument out of range.
    """

    words: HashedText = field(default_factory=lambda: HashedText(l2=1.0))
    word_weight: float = 3.0
    embedding_dim: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.words, HashedText):
            raise TypeError(f"words is {type(self.words).__name__}: expected HashedText")
        check_number("word_weight", self.word_weight, 0, include_low=False)
        if self.embedding_dim is not None:
            check_number("embedding_dim", self.embedding_dim, 1, integer=True)


def read_facts(text: str) -> tuple[str, int, list[str]]:
    """Cut a text into its title, its year and the words after it; without a year it is all title.

    Example:
        >>> read_facts("Heat (1995) Action Crime")
        ('Heat ', 1995, ['Action', 'Crime'])
        >>> read_facts("Heat")
        ('Heat', 0, [])
    """
    found = _DATED.search(text)
    if not found:
        return text, 0, []
    return text[: found.start()], int(found[1]), text[found.end() :].split()


def hash_facts(text: str, num_buckets: int) -> list[int]:
    """Give the buckets of a text: words, beginnings, neighbours, and crosses with its facts.

    Facts are the decade and the words after the year, for a film its genres. A cross stands for
    two things together: a word of the title and a fact, or two facts. So "comedy" has a row for
    each decade, and "star" one for each genre.

    Args:
        text: any; one without a year has no facts.
        num_buckets: number of buckets.

    Source:
        Cheng et al., *Wide & Deep Learning for Recommender Systems*, DLRS 2016, equation 1 (the
        cross-product transformation); hashed: Weinberger et al., ICML 2009.

    Example:
        >>> len(hash_facts("Heat (1995) Crime", 1000))  # 3 words, 3 beginnings, 3 crosses
        9
    """
    title, year, after = read_facts(text.lower())
    words, genres = words_of(title), [word.encode() for word in dict.fromkeys(after)]
    dated = [str(year).encode()] if year else []
    found = hash_words([*words, *genres, *dated], words, num_buckets)
    facts = [*genres, *(date[:3] for date in dated)]  # three digits: the decade
    crossed = [*product(words, facts), *combinations(facts, 2)]
    crc = zlib.crc32
    return found + [crc(fact, crc(word, 3)) % num_buckets for word, fact in crossed]


def near_years(years: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give the (n, 34) nearness of n years to every fourth year from 1900; 0 is far from all.

    Nearness is ``exp(-(distance / 4)^2)``: neighbouring years share what is learned of them.

    Example:
        >>> near_years(np.array([1904]))[0, :3].round(3)
        array([0.368, 1.   , 0.368])
    """
    return year_nearness(years, range(1900, 2036, 4), 4)


class FactTextEncoder(TextStudent):
    """Texts to vectors: a row for the year, and rows of words and crosses over the root.

    Args:
        words: the table of hashed words and crosses.
        years: (34, d), the weights of :func:`near_years`.
        axes: (c, d), see ``axes`` below.
        nbytes: what is stored, in bytes, ``axes`` not included.

    Attributes:
        axes: (c, d) orthonormal columns; ``encode(texts) @ axes.T`` is near the targets.
        nbytes, embedding_dim: sizes.
    """

    def __init__(
        self,
        words: HashedTextEncoder,
        years: NDArray[np.float32],
        axes: NDArray[np.float32],
        nbytes: int,
    ) -> None:
        self.axes, self.nbytes, self.embedding_dim = axes, nbytes, words.embedding_dim
        self._words = words
        self._year = (near_years(_YEARS) @ years).astype(np.float32)  # (y, d)

    def encode_one(self, text: str) -> NDArray[np.float32]:
        """Give the (d,) vector of one text."""
        vector = self._words.average(hash_facts(text, self._words.num_buckets))
        at = read_facts(text)[1] - int(_YEARS[0])
        return vector + self._year[at] if 0 <= at < len(self._year) else vector


def fit_fact_text(
    texts: Sequence[str], targets: ArrayLike, config: FactText | None = None
) -> FactTextEncoder:
    """Distil an encoder into year, words and crosses: one ridge regression, then its best low rank.

    A table of hashed words knows 1994 and 1996 as two words that have nothing to do with each
    other, and has one row for "comedy", be it of 1940 or of 2015. Here the year is a number
    (:func:`near_years`), and words are crossed with genres and decade (:func:`hash_facts`). With F
    the first and H the second, ``1 / sqrt(r)`` for each of r buckets, the solution is
    ``X' (X X' + l2 I)^-1 Y`` with ``X = [F, sqrt(word_weight) H]``, centred Y. The first d right
    singular vectors of what it predicts are the axes; the rest is left out. Both parts are rounded
    to ``words.bits`` bits, each row with a scale of its own.

    Args:
        texts: n texts of the form "Title (year) Genre Genre"; other texts have no facts.
        targets: (n, c), what the teacher gives for them: vectors, or its scores for c users, which
            may be mixed with the users' ratings (soft and hard labels).
        config: how.

    Raises:
        TypeError: not a list of texts.
        ValueError: another number of targets, NaN, or more dimensions than targets.

    Source:
        Hinton, Vinyals & Dean, *Distilling the Knowledge in a Neural Network*, 2015, section 2
        (soft and hard labels); reduced rank: Izenman, *Reduced-rank regression for the
        multivariate linear model*, 1975.

    Example:
        >>> texts = [f"Word{n} ({1960 + n}) Drama" for n in range(60)]
        >>> teacher = np.arange(60.0)[:, None] / 60  # the later, the larger
        >>> student = fit_fact_text(texts, teacher)
        >>> old, new = student.encode(["New (1965) Drama", "New (2015) Drama"]) @ student.axes.T
        >>> bool(old < new)
        True
    """
    config = FactText() if config is None else config
    y = check_pairs(texts, targets, "targets")
    dim = y.shape[1] if config.embedding_dim is None else config.embedding_dim
    if dim > y.shape[1]:
        raise ValueError(
            f"embedding_dim is {dim}: expected at most {y.shape[1]}, the number of targets"
        )
    num_buckets, bits = config.words.num_buckets, config.words.bits
    hashed = bucket_matrix([hash_facts(text, num_buckets) for text in texts], num_buckets)
    years = near_years(np.array([read_facts(text)[1] for text in texts]))
    gram = years @ years.T + config.word_weight * (hashed @ hashed.T).toarray()
    bias = y.mean(axis=0)
    dual = np.linalg.solve(gram + config.words.l2 * np.eye(len(texts)), y - bias)
    fitted = (gram @ dual + bias).astype(np.float64)
    axes = np.linalg.eigh(fitted.T @ fitted)[1][:, ::-1][:, :dim].astype(np.float32)
    dual = dual @ axes  # (n, d)
    words = round_table(config.word_weight * (hashed.T @ dual), bias @ axes, bits)
    stored = UniformQuantization(bits, "row", symmetric=True).encode(
        (years.T @ dual).astype(np.float32)
    )
    return FactTextEncoder(words, stored.decode(), axes, words.nbytes + stored.nbytes)
