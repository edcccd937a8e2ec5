"""Tables whose rows share parts: hashing, quotient-remainder, low rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_choice, check_number, check_weights
from recsys_lib.compression.embedding_tables.base import Parts, TableScheme, check_table, normal

_PRIME = 2_147_483_647  # 2^31 - 1


@dataclass(frozen=True)
class Hashing(TableScheme):
    """The hashing trick: id ``i`` uses row ``((a i + b) mod p) mod num_buckets``.

    Ids that fall into the same bucket get the same vector.

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
        check_number("num_buckets", self.num_buckets, 1, integer=True)
        check_number("seed", self.seed, 0, integer=True)

    def start(
        self,
        num_rows: int,
        dim: int,
        *,
        std: float = 0.1,
        seed: int = 0,
        counts: NDArray[np.number] | None = None,
    ) -> tuple[Parts, Parts]:
        """Draw the rows."""
        check_table(num_rows, dim)
        random = np.random.default_rng(seed)
        return {"rows": normal(random, std, (self.num_buckets, dim))}, {}

    def approximate(
        self, table: NDArray[np.float32], counts: NDArray[np.number] | None = None
    ) -> tuple[Parts, Parts]:
        """Take the mean of the rows that share a bucket, weighted by counts where given."""
        table = check_weights("table", table, ndim=2)
        mass = np.ones(len(table)) if counts is None else np.asarray(counts, np.float64) + 1e-9
        buckets = self.bucket(np, np.arange(len(table)))
        total = np.maximum(np.bincount(buckets, mass, self.num_buckets), 1e-30)
        sums = [np.bincount(buckets, mass * column, self.num_buckets) for column in table.T]
        return {"rows": (np.stack(sums, axis=1) / total[:, None]).astype(np.float32)}, {}

    def lookup(self, xp: Any, parts: Parts, ids: Any) -> Any:
        """Look buckets up."""
        return xp.take(parts["rows"], self.bucket(xp, ids), axis=0)

    def bucket(self, xp: Any, ids: Any) -> Any:
        """Give the bucket of each id, (n,) to (n,)."""
        a, b = (int(x) for x in np.random.default_rng(self.seed).integers(1, _PRIME, 2))
        wide = xp.array(ids, dtype="int64")  # a product of two numbers below 2^31 fits
        return (wide * a + b) % _PRIME % self.num_buckets


@dataclass(frozen=True)
class QuotientRemainder(TableScheme):
    """Two small tables: id ``i`` combines row ``i // m`` of one with row ``i % m`` of the other.

    Quotient and remainder together tell ids apart, so that every id has a vector of its own,
    though no number of its own.

    Args:
        num_remainders: m, rows of the second table; the first has ``ceil(rows / m)``.
        combine: "multiply" or "add", number by number.

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
    combine: str = "multiply"
    name = "quotient_remainder"

    def __post_init__(self) -> None:
        check_number("num_remainders", self.num_remainders, 1, integer=True)
        check_choice("combine", self.combine, ("multiply", "add"))

    def start(
        self,
        num_rows: int,
        dim: int,
        *,
        std: float = 0.1,
        seed: int = 0,
        counts: NDArray[np.number] | None = None,
    ) -> tuple[Parts, Parts]:
        """Draw both tables, so that the combination has the standard deviation asked for."""
        check_table(num_rows, dim)
        random = np.random.default_rng(seed)
        own = std**0.5 if self.combine == "multiply" else std / 2**0.5
        num_quotients = -(-num_rows // self.num_remainders)
        return {
            "quotients": normal(random, own, (num_quotients, dim)),
            "remainders": normal(random, own, (self.num_remainders, dim)),
        }, {}

    def approximate(
        self, table: NDArray[np.float32], counts: NDArray[np.number] | None = None
    ) -> tuple[Parts, Parts]:
        """Fit both tables in turns by least squares, each exactly while the other is fixed."""
        table = check_weights("table", table, ndim=2)
        num_rows, dim = table.shape
        missing = -num_rows % self.num_remainders
        shape = (-1, self.num_remainders)
        grid = np.pad(table.astype(np.float64), ((0, missing), (0, 0))).reshape(*shape, dim)
        known = np.pad(np.ones((num_rows, 1)), ((0, missing), (0, 0))).reshape(*shape, 1)
        longest = (grid**2).sum(axis=1).argmax(axis=0)  # (d,) a row that is not nearly zero
        remainders = np.take_along_axis(grid, longest[None, None], axis=0)  # (1, m, d)
        quotients = np.zeros_like(grid[:, :1])  # (q, 1, d)
        for _ in range(20):
            if self.combine == "multiply":
                quotients = _ratio(grid * remainders, known * remainders**2, 1)
                remainders = _ratio(grid * quotients, known * quotients**2, 0)
            else:
                quotients = _ratio(known * (grid - remainders), known, 1)
                remainders = _ratio(known * (grid - quotients), known, 0)
        return {
            "quotients": quotients[:, 0].astype(np.float32),
            "remainders": remainders[0].astype(np.float32),
        }, {}

    def lookup(self, xp: Any, parts: Parts, ids: Any) -> Any:
        """Look both rows up and combine them."""
        quotients = xp.take(parts["quotients"], ids // self.num_remainders, axis=0)
        remainders = xp.take(parts["remainders"], ids % self.num_remainders, axis=0)
        return quotients * remainders if self.combine == "multiply" else quotients + remainders


def _ratio(above: NDArray[Any], below: NDArray[Any], axis: int) -> NDArray[np.float64]:
    return above.sum(axis=axis, keepdims=True) / (below.sum(axis=axis, keepdims=True) + 1e-12)


@dataclass(frozen=True)
class LowRank(TableScheme):
    """Short rows, and one matrix that stretches them all: ``left[i] @ right``.

    Args:
        rank: length of the short rows.

    Raises:
        TypeError, ValueError: not a whole number, or below 1; or more than the table's columns.

    Source:
        Eckart & Young, *The Approximation of One Matrix by Another of Lower Rank*, 1936
        (``approximate``).

    Example:
        >>> table = np.outer([1.0, 2, 3], [1.0, 0]).astype(np.float32)
        >>> parts, _ = LowRank(1).approximate(table)
        >>> LowRank(1).lookup(np, parts, np.array([2])).round(3).tolist()
        [[3.0, 0.0]]
    """

    rank: int
    name = "low_rank"

    def __post_init__(self) -> None:
        check_number("rank", self.rank, 1, integer=True)

    def start(
        self,
        num_rows: int,
        dim: int,
        *,
        std: float = 0.1,
        seed: int = 0,
        counts: NDArray[np.number] | None = None,
    ) -> tuple[Parts, Parts]:
        """Draw both factors; the matrix keeps lengths."""
        check_table(num_rows, dim)
        self._check(dim)
        random = np.random.default_rng(seed)
        return {
            "left": normal(random, std, (num_rows, self.rank)),
            "right": normal(random, self.rank**-0.5, (self.rank, dim)),
        }, {}

    def approximate(
        self, table: NDArray[np.float32], counts: NDArray[np.number] | None = None
    ) -> tuple[Parts, Parts]:
        """Take the singular vectors with the largest singular values."""
        table = check_weights("table", table, ndim=2)
        self._check(table.shape[1])
        left, right = truncate(table, self.rank)
        return {"left": left, "right": right}, {}

    def lookup(self, xp: Any, parts: Parts, ids: Any) -> Any:
        """Look short rows up and stretch them."""
        return xp.matmul(xp.take(parts["left"], ids, axis=0), parts["right"])

    def _check(self, dim: int) -> None:
        if self.rank > dim:
            raise ValueError(
                f"rank is {self.rank}: expected at most the {dim} columns of the table"
            )


def truncate(
    table: NDArray[np.float32], rank: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Give the best factors (rows, rank) and (rank, d) of a table; missing ones are zeros.

    Example:
        >>> left, right = truncate(np.eye(3, dtype=np.float32), 3)
        >>> bool(np.allclose(left @ right, np.eye(3)))
        True
    """
    left, values, right = np.linalg.svd(table, full_matrices=False)
    missing = max(rank - len(values), 0)
    scaled = np.pad(left[:, :rank] * values[:rank], ((0, 0), (0, missing)))
    return scaled.astype(np.float32), np.pad(right[:rank], ((0, missing), (0, 0)))
