"""The tiny student of a sentence encoder: a table of hashed words, and an average of its rows."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise, product
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_number, store_numbers
from recsys_lib.compression.quantization import UniformQuantization
from recsys_lib.text.encoder import check_texts
from recsys_lib.text.rating import check_vectors

_WORD = re.compile(r"\w+")
_PREFIX = 3  # bytes: the beginning of a word


@dataclass(frozen=True)
class TextFacts:
    """What is known of a text beside the order of its words.

    Args:
        title: read as words, in their order.
        facts: further words, and what the words of the title are crossed with for each of them:
            itself ("crime"), or something coarser (the decade for a year).
        number: a quantity of the text, such as its year; None where it has none.
    """

    title: str
    facts: Mapping[str, str] = field(default_factory=dict)
    number: float | None = None


Reader = Callable[[str], TextFacts] | None


@dataclass(frozen=True)
class HashedText:
    """How the student is built and fitted.

    Args:
        num_buckets: rows of the table; words that fall into the same one share it.
        l2: penalty of the ridge regression, above 0.
        bits: of a stored number, 2 to 8; each row has a scale of its own in float16.
        read: how a text is taken apart; None reads it as words and nothing else.
        centres: evenly spaced values, two or more; a text's number gets one row of weights for its
            nearness to each, ``exp(-(distance / spacing)^2)``, so that numbers that are near share
            what is learned of them. Empty where numbers do not count.
        word_weight: variance of the words against that of the number, above 0: the penalty of a
            word's row is ``l2 / word_weight``.
        embedding_dim: d, length of a vector, at most the number of targets; None for all of them.

    Raises:
        TypeError, ValueError: an argument out of range.
    """

    num_buckets: int = 2**14
    l2: float = 0.1
    bits: int = 8
    read: Reader = None
    centres: Sequence[float] = ()
    word_weight: float = 1.0
    embedding_dim: int | None = None

    def __post_init__(self) -> None:
        given = () if self.embedding_dim is None else ("embedding_dim",)
        store_numbers(self, 1, "num_buckets", *given, integer=True)
        store_numbers(self, 2, "bits", high=8, integer=True)
        store_numbers(self, 0, "l2", "word_weight", include_low=False)
        if len(self.centres) == 1:
            raise ValueError(f"centres is {self.centres}: expected none, or two or more")


def hash_text(text: str, num_buckets: int, read: Reader = None) -> list[int]:
    """Return the buckets of a text: words, beginnings, pairs of neighbours, crosses with facts.

    A cross stands for two things together: a word of the title and a fact, or two facts. So
    "comedy" has a row for each decade, and "star" one for each genre.

    Args:
        text: any.
        num_buckets: number of buckets.
        read: how it is taken apart; None for words alone.

    Source:
        Weinberger et al., *Feature Hashing for Large Scale Multitask Learning*, ICML 2009; Cheng
        et al., *Wide & Deep Learning for Recommender Systems*, DLRS 2016, equation 1 (the
        cross-product transformation).

    Example:
        >>> len(hash_text("Heat (1995) Crime", 1000))  # 3 words, 3 beginnings, 2 pairs
        8
        >>> def read(text):
        ...     return TextFacts("Heat", {"crime": "crime", "1995": "199"}, 1995)
        >>> len(hash_text("Heat (1995) Crime", 1000, read))  # 3, 3, no pair, 3 crosses
        9
    """
    return _hash(_read(text, read), num_buckets)


def _read(text: str, read: Reader) -> TextFacts:
    return TextFacts(text) if read is None else read(text)


def _hash(facts: TextFacts, num_buckets: int) -> list[int]:
    crc = zlib.crc32
    title = [word.encode() for word in _WORD.findall(facts.title.lower())]
    lower = {word.lower().encode(): fact.lower().encode() for word, fact in facts.facts.items()}
    words, crossed_with = [*title, *lower], list(lower.values())
    found = [crc(word) for word in words]
    found += [crc(word[:_PREFIX], 1) for word in words]
    found += [crc(second, crc(first, 2)) for first, second in pairwise(title)]
    crosses = [*product(title, crossed_with), *combinations(crossed_with, 2)]
    found += [crc(second, crc(first, 3)) for first, second in crosses]
    return [bucket % num_buckets for bucket in found]


class HashedTextEncoder:
    """Texts to vectors: a few rows of one table over their root, and the rows of a number.

    Args:
        config: how texts are read.
        table: (num_buckets, d) of words, rounded by row.
        numbers: (number of centres, d) of nearness, rounded by row; None where there are none.
        bias: (d,) float32, added to each text's vector.
        axes: (c, d), see ``axes`` below.

    Attributes:
        axes: (c, d) orthonormal columns; ``encode(texts) @ axes.T`` is near the targets.
        nbytes: what is stored, in bytes, ``axes`` not included.
        embedding_dim: length of a vector.
    """

    def __init__(self, config: HashedText, table: Any, numbers: Any, bias: Any, axes: Any) -> None:
        self.config, self.axes, self.embedding_dim = config, axes, len(bias)
        self.nbytes = bias.nbytes + table.nbytes + (0 if numbers is None else numbers.nbytes)
        self._codes, self._scale = table.codes, table.scale.ravel().astype(np.float32)
        self._zero_point, self._bias = np.float32(2 ** (config.bits - 1) - 1), bias
        if numbers is not None:
            self._numbers = numbers.decode()
            self._centres = np.asarray(config.centres, np.float32)

    def encode_one(self, text: str) -> NDArray[np.float32]:
        """Return the (d,) vector of one text, in few steps."""
        facts = _read(text, self.config.read)
        rows = _hash(facts, len(self._codes))
        vector = self._bias.copy()
        if rows:
            weights = self._scale[rows]  # (r,)
            total = weights @ self._codes[rows].astype(np.float32)  # (d,)
            total -= self._zero_point * weights.sum()
            vector += total / np.float32(len(rows) ** 0.5)
        if len(self.config.centres) and facts.number is not None:
            distance = (facts.number - self._centres) / (self._centres[1] - self._centres[0])
            vector += np.exp(-(distance**2)) @ self._numbers
        return vector

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the (n, d) vectors of n texts.

        Raises:
            TypeError: not a list of texts.
        """
        return np.stack([self.encode_one(text) for text in check_texts(texts)])


def fit_hashed_text(
    texts: Sequence[str], targets: ArrayLike, config: HashedText | None = None
) -> HashedTextEncoder:
    """Distil an encoder into a table: ridge regression of its vectors on the texts' buckets.

    A text with buckets ``b_1 .. b_r`` gets ``bias + sum_j T[b_j] / sqrt(r)``, with the bias the
    mean of all targets, and ``near(number) @ W`` more where numbers count. With H the first
    features, ``1 / sqrt(r)`` for each of r buckets, and F the nearness of numbers, the tables are
    the exact ridge regression ``X' (X X' + l2 I)^-1 Y`` with ``X = [F, sqrt(word_weight) H]`` and
    centred Y, a system as large as there are texts. With ``embedding_dim``, the first d right
    singular vectors of what it predicts are the axes, and the rest is left out. Rows are then
    rounded to ``bits`` bits, each with a scale of its own.

    Args:
        texts: n texts.
        targets: (n, c), what the teacher gives for them: vectors, or its scores for c users, which
            may be mixed with the users' ratings (soft and hard labels).
        config: how.

    Raises:
        TypeError: not a list of texts.
        ValueError: another number of targets, NaN, or more dimensions than targets.

    Source:
        Hinton, Vinyals & Dean, *Distilling the Knowledge in a Neural Network*, 2015, section 2 (the
        teacher's outputs as targets, soft and hard); averaged rows of hashed words and pairs:
        Joulin et al., *Bag of Tricks for Efficient Text Classification*, EACL 2017; reduced rank:
        Izenman, *Reduced-rank regression for the multivariate linear model*, 1975.

    Example:
        >>> teacher = np.float32([[1, 0], [0, 1]])
        >>> student = fit_hashed_text(["space war", "first love"], teacher, HashedText(64, l2=1e-3))
        >>> student.encode(["space war", "love"]).round(1)
        array([[1. , 0. ],
               [0.2, 0.8]], dtype=float32)
    """
    config = HashedText() if config is None else config
    parts = [_read(text, config.read) for text in check_texts(texts)]
    y = check_vectors("targets", targets, len(parts))
    most = y.shape[1]
    dim = check_number("embedding_dim", config.embedding_dim or most, 1, most, integer=True)
    hashed = _bucket_matrix([_hash(part, config.num_buckets) for part in parts], config.num_buckets)
    numbers = near([part.number for part in parts], config.centres)
    gram = numbers @ numbers.T + config.word_weight * (hashed @ hashed.T).toarray()
    bias, axes = y.mean(axis=0), np.eye(most, dtype=np.float32)
    dual = np.linalg.solve(gram + config.l2 * np.eye(len(y)), y - bias)
    if config.embedding_dim is not None:
        fitted = (gram @ dual + bias).astype(np.float64)
        axes = np.linalg.eigh(fitted.T @ fitted)[1][:, ::-1][:, :dim].astype(np.float32)
        dual, bias = dual @ axes, bias @ axes  # (n, d)
    table = _round_rows(config.word_weight * (hashed.T @ dual), config.bits)
    stored = _round_rows(numbers.T @ dual, config.bits) if len(config.centres) else None
    return HashedTextEncoder(config, table, stored, bias, axes)


def near(numbers: Sequence[float | None], centres: Sequence[float]) -> NDArray[np.float64]:
    """Return the (n, c) nearness of n numbers to c centres; None is far from all.

    Example:
        >>> near([1904, None], range(1900, 2036, 4))[:, :3].round(3)
        array([[0.368, 1.   , 0.368],
               [0.   , 0.   , 0.   ]])
    """
    values = np.array([np.inf if number is None else number for number in numbers], np.float64)
    spacing = centres[1] - centres[0] if len(centres) else 1
    return np.exp(-(((values[:, None] - np.asarray(centres, np.float64)) / spacing) ** 2))


def _bucket_matrix(found: Sequence[Sequence[int]], num_buckets: int) -> Any:
    """The sparse (n, num_buckets) matrix of n texts' buckets, ``1 / sqrt(r)`` for each of r."""
    rows = np.repeat(np.arange(len(found)), [len(some) for some in found])
    values = np.concatenate([np.full(len(some), max(len(some), 1) ** -0.5) for some in found])
    shape = (len(found), num_buckets)
    return scipy.sparse.coo_matrix((values, (rows, np.concatenate(found))), shape).tocsr()


def _round_rows(table: NDArray[Any], bits: int) -> Any:
    """A table in ``bits`` bits, each row with a scale of its own."""
    return UniformQuantization(bits, "row", symmetric=True).encode(table.astype(np.float32))
