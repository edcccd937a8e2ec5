"""Our k-means against SciPy's, and where it is easily wrong: empty clusters, few values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from recsys_lib.compression.quantization.kmeans import assign, kmeans, kmeans_scalar, nearest


def inertia(points: NDArray[np.float32], centroids: NDArray[np.float32]) -> float:
    return float(((points[:, None] - centroids[None]) ** 2).sum(axis=2).min(axis=1).sum())


def clouds(seed: int = 0, count: int = 600, dim: int = 3) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    centers = random.normal(0, 5, (12, dim))
    return (centers[random.integers(0, 12, count)] + random.normal(0, 1, (count, dim))).astype("f4")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("k", [2, 8, 32])
def test_vectors_are_clustered_no_worse_than_by_scipy(seed: int, k: int) -> None:
    points = clouds(seed)
    ours = [kmeans(points, k, seed=s, iterations=50)[0] for s in range(9)]
    theirs = [kmeans2(points, k, iter=50, minit="++", rng=s)[0] for s in range(9)]
    medians = [np.median([inertia(points, c) for c in found]) for found in (ours, theirs)]
    assert medians[0] <= 1.05 * medians[1]


def test_from_the_same_start_both_arrive_at_the_same_centroids() -> None:
    points = clouds(1)
    start = points[:6].copy()
    ours, assignment = kmeans(points, 6, start=start, iterations=30)
    theirs, labels = kmeans2(points.astype(float), start.astype(float), iter=30, minit="matrix")
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(assignment, labels)


@pytest.mark.parametrize("k", [2, 4, 16, 64])
def test_numbers_are_clustered_no_worse_than_by_scipy(k: int) -> None:
    values = np.random.default_rng(k).standard_t(4, 3000).astype(np.float32)
    ours = kmeans_scalar(values, k)
    theirs, _ = kmeans2(values, k, iter=20, minit="++", rng=0)
    assert len(ours) == k and (np.diff(ours) >= 0).all()
    assert inertia(values[:, None], ours[:, None]) <= 1.02 * inertia(
        values[:, None], theirs.reshape(-1, 1)
    )


def test_a_centroid_is_the_mean_of_its_values() -> None:
    values = np.random.default_rng(0).normal(size=2000).astype(np.float32)
    centroids = kmeans_scalar(values, 8, iterations=1000)
    codes = nearest(values, centroids)
    means = [values[codes == code].mean() for code in range(8)]
    np.testing.assert_allclose(centroids, means, atol=1e-5)


def test_weights_are_repeated_points() -> None:
    points = clouds(2, 60)
    weights = np.random.default_rng(0).integers(1, 4, 60)
    start = points[:4].copy()
    weighted, _ = kmeans(points, 4, weights=weights.astype(np.float32), start=start, iterations=40)
    repeated, _ = kmeans(np.repeat(points, weights, axis=0), 4, start=start, iterations=40)
    np.testing.assert_allclose(weighted, repeated, rtol=1e-4, atol=1e-4)


def test_empty_clusters_are_given_work() -> None:
    points = np.vstack([np.zeros((50, 2)), np.ones((50, 2)), [[9, 9]]]).astype(np.float32)
    start = np.float32([[0, 0], [500, 500], [600, 600]])
    centroids, assignment = kmeans(points, 3, start=start, iterations=10)
    assert inertia(points, centroids) == 0 and len(np.unique(assignment)) == 3
    # Evenly spaced starts between 0 and 1000 leave the middle ones without a value.
    values = np.r_[np.linspace(0, 1, 99), 1000].astype(np.float32)
    spread = kmeans_scalar(values, 8, init="linear")
    assert len(np.unique(nearest(values, spread))) == 8


@pytest.mark.parametrize("k", [1, 3, 8])
def test_few_values_are_kept_exactly(k: int) -> None:
    values = np.float32([3, -1, 3, 3, -1, 2])
    found = kmeans_scalar(values, k)
    if k >= 3:
        np.testing.assert_array_equal(found, [-1, 2, 3])
    else:
        np.testing.assert_allclose(found, [values.mean()])
    points = values[:, None]
    centroids, assignment = kmeans(points, 8)
    np.testing.assert_array_equal(centroids[assignment], points)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=60),
    st.integers(1, 9),
)
def test_no_value_is_nearer_to_another_centroid(values: list[float], k: int) -> None:
    array = np.float32(values)
    centroids = kmeans_scalar(array, k)
    distance = np.abs(array.astype(float)[:, None] - centroids.astype(float))
    chosen = distance[np.arange(len(array)), nearest(array, centroids)]
    assert (chosen <= distance.min(axis=1) + 1e-3).all()


def test_assign_gives_squared_distances() -> None:
    points, centroids = clouds(0, 5000), clouds(1, 7)
    codes, distance = assign(points, centroids)
    exact = ((points[:, None] - centroids) ** 2).sum(axis=2)
    np.testing.assert_array_equal(codes, exact.argmin(axis=1))
    np.testing.assert_allclose(distance, exact.min(axis=1), rtol=1e-3, atol=1e-3)


def test_bad_input_is_named() -> None:
    points = clouds(0, 10)
    with pytest.raises(ValueError, match="num_clusters is 0"):
        kmeans(points, 0)
    with pytest.raises(ValueError, match="weights"):
        kmeans(points, 2, weights=np.zeros(10, np.float32))
    with pytest.raises(ValueError, match="init is 'random'"):
        kmeans_scalar(points[:, 0], 2, init="random")
    with pytest.raises(ValueError, match="NaN"):
        kmeans_scalar(np.float32([np.nan, 1]), 2)
