"""Lloyd's k-means, short: for numbers (exact assignment by sorting) and for vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_choice, check_number, check_weights

_STARTS = ("density", "quantile", "linear")
_ROWS_PER_BLOCK = 4096  # distances held at once: 4,096 rows times 256 centroids, 4 MB


def kmeans_scalar(
    values: NDArray[np.float32], num_clusters: int, *, init: str = "density", iterations: int = 100
) -> NDArray[np.float32]:
    """Find the numbers that stand for many numbers with the least squared error.

    Values are sorted once. A cluster is then an interval of the sorted values, its sum a difference
    of running sums, so an iteration costs ``num_clusters`` binary searches however many values
    there are. Stops early when nothing moves.

    Args:
        values: (n,) finite numbers.
        num_clusters: k, at least 1.
        init: where to start: "density" (as dense as the cube root of the density of the values,
            which is best for many clusters), "quantile" (as many values for each) or "linear"
            (evenly spaced from the lowest to the highest value, which keeps rare large weights).
        iterations: at most so many.

    Returns:
        (k,) sorted float32; fewer if there are fewer different values, which are then exact.

    Raises:
        ValueError: an argument out of range.

    Source:
        Lloyd, *Least Squares Quantization in PCM*, 1982; "density": Panter & Dite, *Quantization
        Distortion in Pulse-Count Modulation with Nonuniform Spacing of Levels*, 1951; "linear":
        Han, Mao & Dally, *Deep Compression*, ICLR 2016, section 3.2.

    Example:
        >>> kmeans_scalar(np.float32([0, 0.25, 0.5, 5, 5.5]), 2).tolist()
        [0.25, 5.25]
    """
    check_choice("init", init, _STARTS)
    num_clusters = check_number("num_clusters", num_clusters, 1, integer=True)
    ordered = np.sort(check_weights("values", values, ndim=1)).astype(np.float64)
    steps = np.flatnonzero(np.diff(ordered))
    if len(steps) < num_clusters:
        return ordered[np.r_[steps, len(ordered) - 1]].astype(np.float32)
    sums = np.r_[0.0, np.cumsum(ordered)]
    shares = (np.arange(num_clusters) + 0.5) / num_clusters
    if init == "density":
        edges = np.quantile(ordered, np.linspace(0, 1, 8 * num_clusters + 1))
        roots = np.r_[0, np.cumsum(np.diff(edges) ** (2 / 3))]  # width * density^(1/3)
        centroids = np.interp(shares * roots[-1], roots, edges)
    elif init == "quantile":
        centroids = np.quantile(ordered, shares)
    else:
        centroids = np.linspace(ordered[0], ordered[-1], num_clusters)
    for _ in range(iterations):
        middles = (centroids[1:] + centroids[:-1]) / 2
        bounds = np.r_[0, np.searchsorted(ordered, middles), len(ordered)]
        counts = np.diff(bounds)
        moved = np.diff(sums[bounds]) / np.maximum(counts, 1)
        for empty in np.flatnonzero(counts == 0):  # joins the cluster with the largest spread
            widest = _widest(ordered, bounds)
            moved[empty] = ordered[bounds[widest + 1] - 1]
        moved.sort()
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids.astype(np.float32)


def _widest(ordered: NDArray[np.float64], bounds: NDArray[np.int64]) -> int:
    last = np.maximum(bounds[1:] - 1, 0)
    first = np.minimum(bounds[:-1], len(ordered) - 1)
    return int(np.argmax(np.where(np.diff(bounds) > 1, ordered[last] - ordered[first], -1)))


def nearest(values: NDArray[np.float32], centroids: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Give for each number the position of the nearest of sorted centroids, of at most 256.

    Example:
        >>> nearest(np.float32([0.1, 4.0, -9]), np.float32([0, 5])).tolist()
        [0, 1, 0]
    """
    middles = (centroids[1:] + centroids[:-1]) / 2
    return np.searchsorted(middles, values).astype(np.uint8)


def kmeans(
    points: NDArray[np.float32],
    num_clusters: int,
    *,
    weights: NDArray[np.float32] | None = None,
    start: NDArray[np.float32] | None = None,
    iterations: int = 20,
    seed: int = 0,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Find the vectors that stand for many vectors with the least squared error.

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

    Raises:
        ValueError: an argument out of range.

    Source:
        Arthur & Vassilvitskii, *k-means++: The Advantages of Careful Seeding*, SODA 2007.

    Example:
        >>> points = np.float32([[0, 0], [0, 2], [9, 9], [9, 7]])
        >>> sorted(kmeans(points, 2)[0].tolist())
        [[0.0, 1.0], [9.0, 8.0]]
    """
    points = check_weights("points", points, ndim=2)
    num_clusters = check_number("num_clusters", num_clusters, 1, integer=True)
    check_number("iterations", iterations, 1, integer=True)
    n, dim = points.shape
    mass = np.ones(n, np.float32) if weights is None else check_weights("weights", weights, ndim=1)
    if len(mass) != n or mass.min() < 0 or mass.sum() == 0:
        raise ValueError(f"weights has {len(mass)} values: expected {n}, none negative, not all 0")
    if n <= num_clusters:
        return np.vstack([points, np.zeros((num_clusters - n, dim), np.float32)]), np.arange(n)
    random = np.random.default_rng(seed)
    centroids = _spread_start(points, mass, num_clusters, random) if start is None else start
    assignment = np.full(n, -1)
    for _ in range(iterations):
        previous, (assignment, distance) = assignment, assign(points, centroids)
        if np.array_equal(previous, assignment):
            break
        centroids = _means(points, mass, assignment, distance, centroids)
    return centroids, assign(points, centroids)[0]


def assign(
    points: NDArray[np.float32], centroids: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Give the nearest centroid of each point, and the squared distance to it.

    Example:
        >>> assign(np.float32([[1, 0]]), np.float32([[0, 0], [1, 2]]))
        (array([0]), array([1.], dtype=float32))
    """
    half = (centroids * centroids).sum(axis=1) / 2
    found = np.empty(len(points), np.int64)
    closeness = np.empty(len(points), np.float32)
    for first in range(0, len(points), _ROWS_PER_BLOCK):
        rows = slice(first, first + _ROWS_PER_BLOCK)
        scores = points[rows] @ centroids.T - half  # largest where |x - c|² is smallest
        found[rows] = scores.argmax(axis=1)
        closeness[rows] = np.take_along_axis(scores, found[rows, None], axis=1)[:, 0]
    distance = (points * points).sum(axis=1) - 2 * closeness
    return found, np.maximum(distance, 0)


def _means(
    points: NDArray[np.float32],
    mass: NDArray[np.float32],
    assignment: NDArray[np.int64],
    distance: NDArray[np.float32],
    centroids: NDArray[np.float32],
) -> NDArray[np.float32]:
    size = len(centroids)
    total = np.bincount(assignment, mass, size)
    sums = [np.bincount(assignment, mass * column, size) for column in points.T]
    exact = np.stack(sums, axis=1) / np.where(total > 0, total, 1)[:, None]
    means = np.asarray(exact, np.float32)
    empty = np.flatnonzero(total == 0)
    if len(empty):
        means[empty] = points[np.argsort(-distance * mass, kind="stable")[: len(empty)]]
    return means


def _spread_start(
    points: NDArray[np.float32],
    mass: NDArray[np.float32],
    num_clusters: int,
    random: np.random.Generator,
) -> NDArray[np.float32]:
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
