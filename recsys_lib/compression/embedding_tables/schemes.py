"""The schemes: rows that share parts, rows of few bits, and short rows for rare ids."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_number, store_numbers
from recsys_lib.compression.embedding_tables.base import Counts, Normal, Parts, TableScheme
from recsys_lib.compression.quantization import uniform
from recsys_lib.compression.tensors import EncodedTensor

Floats = NDArray[np.float32]
_PRIME = 2_147_483_647  # 2^31 - 1


@dataclass(frozen=True)
class Hashing(TableScheme):
    """The hashing trick: id ``i`` uses row ``((a i + b) mod p) mod num_buckets``.

    Ids that fall into the same bucket get the same vector; of a trained table it is the mean of
    their rows, weighted by counts where these are given.

    Args:
        num_buckets: rows that are stored.
        seed: of a and b. On average over seeds ids collide as rarely as by chance; a single seed
            can be unlucky for a number of buckets.

    Raises:
        TypeError, ValueError: not a whole number, or below 1 (seed: below 0).

    Source:
        Weinberger et al., *Feature Hashing for Large Scale Multitask Learning*, ICML 2009,
        0902.2206; the hash is that of Carter & Wegman, 1979.

    Example:
        >>> parts = {"rows": np.float32([[0], [1]])}
        >>> Hashing(num_buckets=2).lookup(np, parts, np.arange(4)).ravel().tolist()
        [1.0, 0.0, 1.0, 0.0]
    """

    num_buckets: int
    seed: int = 0
    name = "hashing"

    def __post_init__(self) -> None:
        store_numbers(self, 1, "num_buckets", integer=True)
        store_numbers(self, 0, "seed", integer=True)

    def _start(self, normal: Normal, rows: int, dim: int, std: float, counts: Counts) -> Parts:
        return {"rows": normal(std, self.num_buckets, dim)}

    def _approximate(self, table: Floats, counts: Counts) -> Parts:
        mass = np.ones(len(table)) if counts is None else counts + 1e-9
        buckets = self.bucket(np, np.arange(len(table)))
        total = np.maximum(np.bincount(buckets, mass, self.num_buckets), 1e-30)
        sums = [np.bincount(buckets, mass * column, self.num_buckets) for column in table.T]
        return {"rows": (np.stack(sums, axis=1) / total[:, None]).astype(np.float32)}

    def lookup(self, xp: Any, parts: Parts, ids: Any) -> Any:
        """Return the rows of the buckets."""
        return xp.take(parts["rows"], self.bucket(xp, ids), axis=0)

    def bucket(self, xp: Any, ids: Any) -> Any:
        """Return the bucket of each id, (n,) to (n,)."""
        a, b = (int(x) for x in np.random.default_rng(self.seed).integers(1, _PRIME, 2))
        wide = xp.array(ids, dtype="int64")  # a product of two numbers below 2^31 fits
        return (wide * a + b) % _PRIME % self.num_buckets


@dataclass(frozen=True)
class QuotientRemainder(TableScheme):
    """Two small tables: id ``i`` combines row ``i // m`` of one with row ``i % m`` of the other.

    Quotient and remainder together tell ids apart, so that every id has a vector of its own,
    though no number of its own. To a trained table both are fitted in turns by least squares.

    Args:
        num_remainders: m, rows of the second table; the first has ``ceil(rows / m)``.

    Raises:
        TypeError, ValueError: an argument out of range.

    Source:
        Shi et al., *Compositional Embeddings Using Complementary Partitions*, KDD 2020,
        1909.02107, section 3.

    Example:
        >>> parts = {"quotients": np.float32([[1], [2]]), "remainders": np.float32([[3], [5]])}
        >>> QuotientRemainder(2).lookup(np, parts, np.arange(4)).ravel().tolist()
        [3.0, 5.0, 6.0, 10.0]
    """

    num_remainders: int
    name = "quotient_remainder"

    def __post_init__(self) -> None:
        store_numbers(self, 1, "num_remainders", integer=True)

    def _start(self, normal: Normal, rows: int, dim: int, std: float, counts: Counts) -> Parts:
        sizes = {"quotients": -(-rows // self.num_remainders), "remainders": self.num_remainders}
        return {name: normal(std**0.5, size, dim) for name, size in sizes.items()}

    def _approximate(self, table: Floats, counts: Counts) -> Parts:
        num_rows, dim = table.shape
        missing = ((0, -num_rows % self.num_remainders), (0, 0))
        grid = np.pad(table.astype(np.float64), missing).reshape(-1, self.num_remainders, dim)
        known = np.pad(np.ones((num_rows, 1)), missing).reshape(-1, self.num_remainders, 1)
        longest = (grid**2).sum(axis=1).argmax(axis=0)  # (d,) a row that is not nearly zero
        remainders = np.take_along_axis(grid, longest[None, None], axis=0)  # (1, m, d)
        for _ in range(20):
            quotients = _ratio(grid * remainders, known * remainders**2, 1)
            remainders = _ratio(grid * quotients, known * quotients**2, 0)
        parts = {"quotients": quotients[:, 0], "remainders": remainders[0]}
        return {name: part.astype(np.float32) for name, part in parts.items()}

    def lookup(self, xp: Any, parts: Parts, ids: Any) -> Any:
        """Return the products of both rows, number by number."""
        quotients = xp.take(parts["quotients"], ids // self.num_remainders, axis=0)
        remainders = xp.take(parts["remainders"], ids % self.num_remainders, axis=0)
        return quotients * remainders


def _ratio(above: NDArray[Any], below: NDArray[Any], axis: int) -> NDArray[np.float64]:
    total = np.maximum(below.sum(axis=axis, keepdims=True), 1e-300)
    return above.sum(axis=axis, keepdims=True) / total


@dataclass(frozen=True)
class LowRank(TableScheme):
    """Short rows, and one matrix that stretches them all: ``left[i] @ right``.

    Of a trained table these are the singular vectors with the largest singular values.

    Args:
        rank: length of the short rows.

    Raises:
        TypeError, ValueError: not a whole number, or below 1; or more than the table's columns.

    Source:
        Eckart & Young, *The Approximation of One Matrix by Another of Lower Rank*, 1936.

    Example:
        >>> table = np.outer([1.0, 2, 3], [1.0, 0]).astype(np.float32)
        >>> parts = LowRank(1).approximate(table)
        >>> LowRank(1).lookup(np, parts, np.array([2])).round(3).tolist()
        [[3.0, 0.0]]
    """

    rank: int
    name = "low_rank"

    def __post_init__(self) -> None:
        store_numbers(self, 1, "rank", integer=True)

    def _start(self, normal: Normal, rows: int, dim: int, std: float, counts: Counts) -> Parts:
        check_number("rank", self.rank, 1, dim)
        left = normal(std, rows, self.rank)
        return {"left": left, "right": normal(self.rank**-0.5, self.rank, dim)}  # keeps lengths

    def _approximate(self, table: Floats, counts: Counts) -> Parts:
        check_number("rank", self.rank, 1, table.shape[1])
        return dict(zip(("left", "right"), _truncate(table, self.rank), strict=True))

    def lookup(self, xp: Any, parts: Parts, ids: Any) -> Any:
        """Return the short rows times the matrix that makes them long."""
        return xp.matmul(xp.take(parts["left"], ids, axis=0), parts["right"])


def _truncate(table: Floats, rank: int) -> tuple[Floats, Floats]:
    """Return the best factors (rows, rank) and (rank, d) of a table; missing ones are zeros."""
    left, values, right = np.linalg.svd(table, full_matrices=False)
    missing = max(rank - len(values), 0)
    scaled = np.pad(left[:, :rank] * values[:rank], ((0, 0), (0, missing)))
    return scaled.astype(np.float32), np.pad(right[:rank], ((0, missing), (0, 0)))


@dataclass(frozen=True)
class RowwiseBits(TableScheme):
    """Every row rounded to a few bits between its own lowest and highest number.

    In training the table stays in float32; what is looked up is rounded, and the gradient passes
    as if it were not (straight through). Stored are the whole numbers.

    Args:
        bits: of a number, 2 to 8.

    Raises:
        TypeError, ValueError: bits out of range.

    Source:
        Guan et al., *Post-Training 4-bit Quantization on Embedding Tables*, 2019, 1911.02079;
        Bengio, Léonard & Courville, 2013, 1308.3432 (straight-through gradient).

    Example:
        >>> parts = {"rows": np.float32([[0, 0.9, 2.2, 3]])}
        >>> RowwiseBits(bits=2).lookup(np, parts, np.array([0])).tolist()
        [[0.0, 1.0, 2.0, 3.0]]
    """

    bits: int = 4
    name = "rowwise_bits"

    def __post_init__(self) -> None:
        store_numbers(self, 2, "bits", high=8, integer=True)

    def _start(self, normal: Normal, rows: int, dim: int, std: float, counts: Counts) -> Parts:
        return {"rows": normal(std, rows, dim)}

    def _approximate(self, table: Floats, counts: Counts) -> Parts:
        return {"rows": table.copy()}

    def lookup(self, xp: Any, parts: Parts, ids: Any) -> Any:
        """Return the rows, rounded; scales are rounded to float16 as they are when stored."""
        rows = xp.take(parts["rows"], ids, axis=0)
        pass_through = getattr(xp, "stop_gradient", lambda values: values)
        exact = pass_through(rows)
        codes, scale, low = self._round(xp, exact)
        return rows + pass_through(codes * scale + low - exact)

    def store(self, parts: Parts, num_rows: int) -> EncodedTensor:
        """Return the packed whole numbers of the table; scales and offsets are float16."""
        codes, scale, low = self._round(np, parts["rows"])
        config = uniform.UniformQuantization(self.bits, granularity="row", scale_dtype="float16")
        scale, low = (x.astype(uniform.fitting_dtype(x, "float16")) for x in (scale, low))
        return uniform.UniformTensor(codes.astype(np.uint8), scale, low, config)

    def _round(self, xp: Any, rows: Any) -> tuple[Any, Any, Any]:
        """Return codes, step and lowest value of each row, the latter two as float16 holds them."""
        lowest, highest = (f(rows, axis=1, keepdims=True) for f in (xp.min, xp.max))
        levels = 2**self.bits - 1
        steps = (highest - lowest) / levels, lowest
        halves = (xp.array(xp.clip(x, -65504, 65504), dtype="float16") for x in steps)
        fit = (xp.any(xp.abs(x) >= 2.0**-14) & xp.all(xp.abs(x) < 65520) for x in steps)
        scale, low = (xp.where(*which) for which in zip(fit, halves, steps, strict=True))
        return xp.clip(xp.round((rows - low) / xp.maximum(scale, 1e-38)), 0, levels), scale, low


@dataclass(frozen=True)
class MixedDimension(TableScheme):
    """Vectors whose length goes with popularity, each block stretched by a matrix of its own.

    Ids are put in order of popularity and cut into blocks that occur equally often, so the first
    has few ids and the last very many. With ``p_b`` the mean popularity of an id in block b, its
    vectors have the length ``d_b = d (p_b / p_0) ** temperature``, at least 1. Of a trained table
    they are the best factors of each block.

    Args:
        num_blocks: how many lengths there are.
        temperature: 0 gives all ids the full length, 1 the steepest fall.

    Raises:
        TypeError, ValueError: an argument out of range, or ``counts`` missing.

    Source:
        Ginart et al., *Mixed Dimension Embeddings with Application to Memory-Efficient
        Recommendation Systems*, 2019, 1909.11810, section 4 (popularity-based dimension sizing).

    Example:
        >>> counts = np.array([1, 1, 16, 1, 1, 12, 1, 1])
        >>> MixedDimension(num_blocks=2, temperature=1.0).blocks(counts, dim=8)
        [(2, 8), (6, 1)]
    """

    num_blocks: int = 4
    temperature: float = 0.5
    name = "mixed_dimension"

    def __post_init__(self) -> None:
        store_numbers(self, 1, "num_blocks", integer=True)
        store_numbers(self, 0, "temperature")

    def blocks(self, counts: NDArray[np.number], dim: int) -> list[tuple[int, int]]:
        """Return rows and vector length of each block, the most popular first."""
        ordered = -np.sort(-np.asarray(counts, np.float64))
        share = np.cumsum(ordered) / max(ordered.sum(), 1e-30)
        edges = np.searchsorted(share, np.arange(1, self.num_blocks) / self.num_blocks) + 1
        bounds = np.unique(np.r_[0, np.minimum(edges, len(ordered)), len(ordered)])
        means = np.array([ordered[a:b].mean() for a, b in itertools.pairwise(bounds)])
        lengths = np.round(dim * (means / max(means[0], 1e-30)) ** self.temperature)
        lengths = np.maximum(lengths, 1).astype(int)
        return list(zip(np.diff(bounds).tolist(), lengths.tolist(), strict=True))

    def _start(self, normal: Normal, rows: int, dim: int, std: float, counts: Counts) -> Parts:
        counts = _needed(counts)
        parts: Parts = {"position": _positions(counts)}
        for number, (size, length) in enumerate(self.blocks(counts, dim)):
            parts[f"left_{number}"] = normal(std, size, length)
            if length < dim:
                parts[f"right_{number}"] = normal(length**-0.5, length, dim)
        return parts

    def _approximate(self, table: Floats, counts: Counts) -> Parts:
        counts = _needed(counts)
        parts: Parts = {"position": _positions(counts)}
        table, first = table[np.argsort(-counts, kind="stable")], 0
        for number, (size, length) in enumerate(self.blocks(counts, table.shape[1])):
            block, first = table[first : first + size], first + size
            parts[f"left_{number}"] = block.copy()
            if length < table.shape[1]:
                factors = _truncate(block, length)
                parts[f"left_{number}"], parts[f"right_{number}"] = factors
        return parts

    def lookup(self, xp: Any, parts: Parts, ids: Any) -> Any:
        """Return each row from its own block."""
        position = xp.take(xp.array(parts["position"], dtype="int32"), ids, axis=0)
        total, first, number = 0.0, 0, 0
        while f"left_{number}" in parts:
            left = parts[f"left_{number}"]
            rows = left.shape[0]
            vectors = xp.take(left, xp.clip(position - first, 0, rows - 1), axis=0)
            if f"right_{number}" in parts:
                vectors = xp.matmul(vectors, parts[f"right_{number}"])
            own = (position >= first) & (position < first + rows)
            total = total + xp.where(own[:, None], vectors, xp.zeros_like(vectors))
            first, number = first + rows, number + 1
        return total


def _needed(counts: Counts) -> NDArray[np.float64]:
    if counts is None:
        raise ValueError("counts is None: mixed dimension needs how often each id occurs")
    return counts


def _positions(counts: NDArray[np.float64]) -> NDArray[Any]:
    """Return the place of each id in the order of popularity, in the smallest type for it."""
    position = np.empty(len(counts), np.min_scalar_type(len(counts) - 1))
    position[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return position
