"""Long vectors for popular ids, short ones for rare ids."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_number, check_weights
from recsys_lib.compression.embedding_tables.base import (
    Parts,
    TableScheme,
    check_counts,
    check_table,
    normal,
)
from recsys_lib.compression.embedding_tables.schemes import truncate


@dataclass(frozen=True)
class MixedDimension(TableScheme):
    """Vectors whose length goes with popularity, each block stretched by a matrix of its own.

    Ids are put in order of popularity and cut into blocks that occur equally often, so the first
    has few ids and the last very many. With ``p_b`` the mean popularity of an id in block b, its
    vectors have the length ``d_b = d (p_b / p_0) ** temperature``, at least 1.

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
        check_number("num_blocks", self.num_blocks, 1, integer=True)
        check_number("temperature", self.temperature, 0)

    def blocks(self, counts: NDArray[np.number], dim: int) -> list[tuple[int, int]]:
        """Give rows and vector length of each block, the most popular first."""
        ordered = -np.sort(-check_counts(counts, len(counts), "mixed dimension"))
        share = np.cumsum(ordered) / max(ordered.sum(), 1e-30)
        edges = np.searchsorted(share, np.arange(1, self.num_blocks) / self.num_blocks) + 1
        bounds = np.unique(np.r_[0, np.minimum(edges, len(ordered)), len(ordered)])
        means = [ordered[a:b].mean() for a, b in itertools.pairwise(bounds)]
        lengths = [
            max(1, round(dim * (mean / max(means[0], 1e-30)) ** self.temperature)) for mean in means
        ]
        return list(zip(np.diff(bounds).tolist(), lengths, strict=True))

    def start(
        self,
        num_rows: int,
        dim: int,
        *,
        std: float = 0.1,
        seed: int = 0,
        counts: NDArray[np.number] | None = None,
    ) -> tuple[Parts, Parts]:
        """Draw short vectors and matrices that keep their lengths."""
        check_table(num_rows, dim)
        counts = check_counts(counts, num_rows, "mixed dimension")
        random = np.random.default_rng(seed)
        parts: Parts = {}
        for number, (rows, length) in enumerate(self.blocks(counts, dim)):
            parts[f"left_{number}"] = normal(random, std, (rows, length))
            if length < dim:
                parts[f"right_{number}"] = normal(random, length**-0.5, (length, dim))
        return parts, _positions(counts)

    def approximate(
        self, table: NDArray[np.float32], counts: NDArray[np.number] | None = None
    ) -> tuple[Parts, Parts]:
        """Take the best factors of each block of the table."""
        table = check_weights("table", table, ndim=2)
        num_rows, dim = table.shape
        counts = check_counts(counts, num_rows, "mixed dimension")
        fixed = _positions(counts)
        ordered = table[np.argsort(fixed["position"], kind="stable")]
        parts: Parts = {}
        first = 0
        for number, (rows, length) in enumerate(self.blocks(counts, dim)):
            block = ordered[first : first + rows]
            first += rows
            if length < dim:
                parts[f"left_{number}"], parts[f"right_{number}"] = truncate(block, length)
            else:
                parts[f"left_{number}"] = block.copy()
        return parts, fixed

    def lookup(self, xp: Any, parts: Parts, ids: Any) -> Any:
        """Look ids up in each block, and add what their own block says."""
        position = xp.take(xp.array(parts["position"], dtype="int32"), ids, axis=0)
        total, first, number = 0.0, 0, 0
        while f"left_{number}" in parts:
            left = parts[f"left_{number}"]
            rows = left.shape[0]
            inside = xp.clip(position - first, 0, rows - 1)
            vectors = xp.take(left, inside, axis=0)
            if f"right_{number}" in parts:
                vectors = xp.matmul(vectors, parts[f"right_{number}"])
            own = (position >= first) & (position < first + rows)
            total = total + xp.where(own[:, None], vectors, xp.zeros_like(vectors))
            first, number = first + rows, number + 1
        return total


def _positions(counts: NDArray[np.float64]) -> Parts:
    """Give the place of each id in the order of popularity, in the smallest type that holds it."""
    position = np.empty(len(counts), np.int64)
    position[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return {"position": position.astype(np.min_scalar_type(len(counts) - 1))}
