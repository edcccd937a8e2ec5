"""The tiny student of a sentence encoder: a table of hashed words, and an average of its rows."""

from __future__ import annotations

import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_bits, check_number
from recsys_lib.compression.quantization import UniformQuantization
from recsys_lib.text.rating import check_vectors

_WORD = re.compile(r"\w+")
_PREFIX = 3  # of a year this is the decade, of a word its beginning


@dataclass(frozen=True)
class HashedText:
    """How the student is built and fitted.

    Args:
        num_buckets: rows of the table; words that fall into the same one share it.
        l2: penalty of the ridge regression, above 0.
        bits: of a stored number, 2 to 8; each row has a scale of its own in float16.

    Raises:
        TypeError, ValueError: an argument out of range.
    """

    num_buckets: int = 2**14
    l2: float = 0.1
    bits: int = 8

    def __post_init__(self) -> None:
        check_number("num_buckets", self.num_buckets, 1, integer=True)
        check_number("l2", self.l2, 0, include_low=False)
        check_bits(self.bits)


def hash_text(text: str, num_buckets: int) -> list[int]:
    """Give the buckets of a text: its words, their first three characters, pairs of neighbours.

    Args:
        text: any.
        num_buckets: number of buckets.

    Source:
        Weinberger et al., *Feature Hashing for Large Scale Multitask Learning*, ICML 2009.

    Example:
        >>> len(hash_text("Heat (1995) Crime", 1000))  # 3 words, 3 beginnings, 2 pairs
        8
    """
    words = words_of(text)
    return hash_words(words, words, num_buckets)


def words_of(text: str) -> list[bytes]:
    """Cut a text into its words, in lower case."""
    return [word.encode() for word in _WORD.findall(text.lower())]


def hash_words(words: list[bytes], sequence: list[bytes], num_buckets: int) -> list[int]:
    """Give the buckets of words, of their first three bytes, and of neighbours in a sequence."""
    crc = zlib.crc32
    found = [crc(word) % num_buckets for word in words]
    found += [crc(word[:_PREFIX], 1) % num_buckets for word in words]
    return found + [crc(b, crc(a, 2)) % num_buckets for a, b in pairwise(sequence)]


class TextStudent(ABC):
    """What students of a text encoder share."""

    @abstractmethod
    def encode_one(self, text: str) -> NDArray[np.float32]:
        """Give the (d,) vector of one text."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Give the (n, d) vectors of n texts.

        Raises:
            TypeError: not a list of texts.
        """
        check_texts(texts)
        return np.stack([self.encode_one(text) for text in texts])


class HashedTextEncoder(TextStudent):
    """Texts to vectors by a few rows of one table.

    Args:
        codes: (num_buckets, d) uint8.
        scale: (num_buckets,) float16; a row is ``scale * (codes - zero_point)``.
        zero_point: the code of 0.
        bias: (d,) float32, added to each text's mean.
        nbytes: what is stored, in bytes.

    Attributes:
        nbytes, num_buckets, embedding_dim: sizes.
    """

    def __init__(
        self,
        codes: NDArray[np.uint8],
        scale: NDArray[np.float16],
        zero_point: int,
        bias: NDArray[np.float32],
        nbytes: int,
    ) -> None:
        self._codes, self._scale = codes, scale.astype(np.float32)
        self._zero_point, self._bias = np.float32(zero_point), bias
        self.nbytes = nbytes
        self.num_buckets, self.embedding_dim = codes.shape

    def encode_one(self, text: str) -> NDArray[np.float32]:
        """Give the (d,) vector of one text."""
        return self.average(hash_text(text, self.num_buckets))

    def average(self, rows: list[int]) -> NDArray[np.float32]:
        """Give the (d,) sum of r rows over the root of r, plus the bias, in few steps."""
        if not rows:
            return self._bias.copy()
        weights = self._scale[rows]  # (r,)
        total = weights @ self._codes[rows].astype(np.float32)  # (d,)
        total -= self._zero_point * weights.sum()
        return total / np.float32(len(rows) ** 0.5) + self._bias


def fit_hashed_text(
    texts: Sequence[str], vectors: ArrayLike, config: HashedText | None = None
) -> HashedTextEncoder:
    """Distil an encoder into a table: ridge regression of its vectors on the texts' buckets.

    A text with buckets ``b_1 .. b_r`` gets ``bias + sum_j T[b_j] / sqrt(r)``, with the bias the
    mean of all vectors. The table T minimises the squared error to the vectors plus
    ``l2 |T|^2``, exactly: it is ``X' (X X' + l2 I)^-1 Y``, a system as large as there are texts.
    Rows are then rounded to ``bits`` bits.

    Args:
        texts: n texts.
        vectors: (n, d), what the teacher gives for them.
        config: how.

    Raises:
        TypeError: not a list of texts.
        ValueError: another number of vectors, or NaN.

    Source:
        Hinton, Vinyals & Dean, *Distilling the Knowledge in a Neural Network*, 2015 (the teacher's
        outputs as targets); averaged rows of hashed words and pairs: Joulin et al., *Bag of Tricks
        for Efficient Text Classification*, EACL 2017.

    Example:
        >>> teacher = np.float32([[1, 0], [0, 1]])
        >>> student = fit_hashed_text(["space war", "first love"], teacher, HashedText(64, l2=1e-3))
        >>> student.encode(["space war", "love"]).round(1)
        array([[1. , 0. ],
               [0.2, 0.8]], dtype=float32)
    """
    config = HashedText() if config is None else config
    y = check_pairs(texts, vectors)
    x = bucket_matrix([hash_text(text, config.num_buckets) for text in texts], config.num_buckets)
    bias = y.mean(axis=0)
    gram = (x @ x.T).toarray() + config.l2 * np.eye(len(texts))
    return round_table(x.T @ np.linalg.solve(gram, y - bias), bias, config.bits)


def bucket_matrix(found: Sequence[Sequence[int]], num_buckets: int) -> Any:
    """Give the sparse (n, num_buckets) matrix of n texts' buckets, ``1 / sqrt(r)`` for each."""
    import scipy.sparse

    rows = np.repeat(np.arange(len(found)), [len(some) for some in found])
    values = np.concatenate([np.full(len(some), max(len(some), 1) ** -0.5) for some in found])
    shape = (len(found), num_buckets)
    return scipy.sparse.coo_matrix((values, (rows, np.concatenate(found))), shape).tocsr()


def round_table(table: NDArray[Any], bias: NDArray[np.float32], bits: int) -> HashedTextEncoder:
    """Round a (num_buckets, d) table to ``bits`` bits, each row with a scale of its own."""
    stored = UniformQuantization(bits, "row", symmetric=True).encode(table.astype(np.float32))
    return HashedTextEncoder(
        stored.codes, stored.scale.ravel(), 2 ** (bits - 1) - 1, bias, stored.nbytes + bias.nbytes
    )


def check_texts(texts: Sequence[str]) -> None:
    """Refuse what is not a list of texts, and an empty one."""
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise TypeError("texts: expected a list of str")
    if not len(texts):
        raise ValueError("texts is empty: expected at least one text")


def check_pairs(texts: Sequence[str], vectors: ArrayLike, name: str = "vectors") -> NDArray[Any]:
    """Give the (n, d) vectors of n texts; refuse another number, NaN, and what are no texts."""
    check_texts(texts)
    found = check_vectors(name, vectors)
    if len(found) != len(texts):
        raise ValueError(f"{name} has {len(found)} rows: expected {len(texts)}, one a text")
    return found
