"""Lloyd's k-means, which leaves no cluster empty: for weighted vectors, and for numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_ROWS_PER_BLOCK = 4096  # distances held at once: 4,096 rows times 256 centroids, 4 MB


def kmeans(
    points: Floats,
    num_clusters: int,
    *,
    weights: Floats | None = None,
    start: Floats | None = None,
    iterations: int = 20,
    seed: int = 0,
) -> tuple[Floats, NDArray[np.int64]]:
    """Return the vectors that stand for many vectors with the least squared error.

    An empty cluster takes over the point that is farthest from its centroid.

    Args:
        points: (n, d) finite numbers.
        num_clusters: k, at least 1.
        weights: (n,) how much the error of a point counts, not negative; None for 1 each.
        start: (k, d) centroids to begin with, None for k-means++.
        iterations: at most so many; stops early when no point changes its cluster.
        seed: of the start.

    Returns:
        ``(centroids (k, d), assignment (n,))``. With no more points than clusters, each point is
        its own centroid and the other centroids are zeros.

    Source:
        Arthur & Vassilvitskii, *k-means++: The Advantages of Careful Seeding*, SODA 2007.

    Example:
        >>> points = np.float32([[0, 0], [0, 2], [9, 9], [9, 7]])
        >>> sorted(kmeans(points, 2)[0].tolist())
        [[0.0, 1.0], [9.0, 8.0]]
    """
    n, dim = points.shape
    if n <= num_clusters:
        return np.vstack([points, np.zeros((num_clusters - n, dim), np.float32)]), np.arange(n)
    mass = np.ones(n, np.float32) if weights is None else weights
    random = np.random.default_rng(seed)
    centroids = _spread_start(points, mass, num_clusters, random) if start is None else start
    assignment = np.full(n, -1)
    for _ in range(iterations):
        previous, (assignment, distance) = assignment, assign(points, centroids)
        if np.array_equal(previous, assignment):
            break
        total = np.bincount(assignment, mass, num_clusters)
        sums = [np.bincount(assignment, mass * column, num_clusters) for column in points.T]
        centroids = (np.stack(sums, axis=1) / np.where(total > 0, total, 1)[:, None]).astype("f4")
        empty = np.flatnonzero(total == 0)
        centroids[empty] = points[np.argsort(-distance * mass, kind="stable")[: len(empty)]]
    return centroids, assign(points, centroids)[0]


def assign(points: Floats, centroids: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Return the nearest centroid of each point, and the squared distance to it.

    Example:
        >>> assign(np.float32([[1, 0]]), np.float32([[0, 0], [1, 2]]))
        (array([0]), array([1.], dtype=float32))
    """
    half = (centroids * centroids).sum(axis=1) / 2
    found, closeness = np.empty(len(points), np.int64), np.empty(len(points), np.float32)
    for first in range(0, len(points), _ROWS_PER_BLOCK):
        rows = slice(first, first + _ROWS_PER_BLOCK)
        scores = points[rows] @ centroids.T - half  # largest where |x - c|² is smallest
        found[rows], closeness[rows] = scores.argmax(axis=1), scores.max(axis=1)
    return found, np.maximum((points * points).sum(axis=1) - 2 * closeness, 0)


def _spread_start(points: Floats, mass: Floats, num_clusters: int, random: Any) -> Floats:
    """Draw starts one after the other, each point in proportion to its squared distance so far."""
    chosen = [int(random.choice(len(points), p=mass / mass.sum(dtype=np.float64)))]
    squares = (points * points).sum(axis=1)
    distance = np.full(len(points), np.inf, np.float32)
    for _ in range(num_clusters - 1):
        last = points[chosen[-1]]
        np.minimum(distance, squares - 2 * (points @ last) + last @ last, out=distance)
        np.maximum(distance, 0, out=distance)
        running = np.cumsum(distance * mass, dtype=np.float64)
        drawn = np.searchsorted(running, random.random() * running[-1], side="right")
        chosen.append(min(int(drawn), len(points) - 1))
    return points[chosen]


def kmeans_scalar(values: Floats, num_clusters: int) -> Floats:
    """Return the numbers that stand for many numbers with the least squared error.

    Values are sorted once. A cluster is then an interval of the sorted values, its sum a difference
    of running sums, so an iteration costs ``num_clusters`` binary searches however many values
    there are. It starts as dense as the cube root of the density of the values, which is best for
    many clusters, and stops when nothing moves.

    Args:
        values: (n,) finite numbers.
        num_clusters: k, at least 1.

    Returns:
        (k,) sorted float32; fewer if there are fewer different values, which are then exact.

    Source:
        Lloyd, *Least Squares Quantization in PCM*, 1982; start: Panter & Dite, *Quantization
        Distortion in Pulse-Count Modulation with Nonuniform Spacing of Levels*, 1951.

    Example:
        >>> kmeans_scalar(np.float32([0, 0.25, 0.5, 5, 5.5]), 2).tolist()
        [0.25, 5.25]
    """
    ordered = np.sort(values).astype(np.float64)
    steps = np.flatnonzero(np.diff(ordered))
    if len(steps) < num_clusters:
        return ordered[np.r_[steps, len(ordered) - 1]].astype(np.float32)
    sums = np.r_[0.0, np.cumsum(ordered)]
    edges = np.quantile(ordered, np.linspace(0, 1, 8 * num_clusters + 1))
    roots = np.r_[0, np.cumsum(np.diff(edges) ** (2 / 3))]  # width * density^(1/3)
    shares = (np.arange(num_clusters) + 0.5) / num_clusters
    centroids = np.interp(shares * roots[-1], roots, edges)
    for _ in range(100):
        middles = (centroids[1:] + centroids[:-1]) / 2
        bounds = np.r_[0, np.searchsorted(ordered, middles), len(ordered)]
        counts = np.diff(bounds)
        moved = np.diff(sums[bounds]) / np.maximum(counts, 1)
        if not counts.all():  # an empty one takes from the cluster with the largest spread
            lowest = ordered[np.minimum(bounds[:-1], len(ordered) - 1)]
            highest = ordered[np.maximum(bounds[1:] - 1, 0)]
            moved[counts == 0] = highest[np.argmax(np.where(counts > 1, highest - lowest, -1))]
        moved.sort()
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids.astype(np.float32)
