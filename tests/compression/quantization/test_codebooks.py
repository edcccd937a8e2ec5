"""Codebooks: fewer bits, stored truly, and never worse than a uniform grid of as many values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.vq import kmeans2

from recsys_lib.compression.quantization import (
    CodebookQuantization,
    UniformQuantization,
    kmeans,
    quantize,
)
from recsys_lib.compression.quantization.kmeans import kmeans_scalar
from recsys_lib.compression.tensors import read_tensor


def heavy_tailed(shape: tuple[int, ...] = (400, 20)) -> np.ndarray:
    return np.random.default_rng(0).standard_t(3, shape).astype(np.float32)


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_less_error_than_a_uniform_grid_of_as_many_values(bits: int) -> None:
    values = heavy_tailed()
    ours = quantize(values, CodebookQuantization(bits, dtype="float32")).decode()
    uniform = quantize(
        values, UniformQuantization(bits, granularity="tensor", scale_search="mse")
    ).decode()
    assert ((ours - values) ** 2).sum() < 0.8 * ((uniform - values) ** 2).sum()


def test_a_codebook_for_each_group_of_columns() -> None:
    values = heavy_tailed((300, 9)) * np.arange(1, 10, dtype=np.float32)
    one = quantize(values, CodebookQuantization(3))
    many = quantize(values, CodebookQuantization(3, columns_per_codebook=4))
    assert one.codebooks.shape == (1, 8) and many.codebooks.shape == (3, 8)
    assert ((many.decode() - values) ** 2).sum() < ((one.decode() - values) ** 2).sum()
    alone = quantize(values[:, 4:8].copy(), CodebookQuantization(3))
    np.testing.assert_array_equal(many.decode()[:, 4:8], alone.decode())


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=3),
    st.integers(1, 8),
    st.sampled_from([None, 1, 2, 5]),
    st.integers(0, 5),
)
def test_parts_make_the_same_tensor_again(
    shape: list[int], bits: int, columns: int | None, seed: int
) -> None:
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    tensor = quantize(values, CodebookQuantization(bits, columns, dtype="float32"))
    assert tensor.decode().shape == values.shape
    again = read_tensor(tensor.kind, tensor.header(), tensor.arrays())
    np.testing.assert_array_equal(again.decode(), tensor.decode())
    if values.size <= 1 << bits:  # every value has a code of its own
        np.testing.assert_array_equal(tensor.decode(), values)


def test_stored_bytes_are_codes_codebook_and_header() -> None:
    tensor = quantize(heavy_tailed((256, 32)), CodebookQuantization(3))
    arrays = tensor.arrays()
    assert arrays["codes"].nbytes == 256 * 32 * 3 // 8
    assert arrays["codebooks"].nbytes == 8 * 2
    assert 0 < tensor.nbytes - 256 * 32 * 3 // 8 - 16 < 100


def test_zeros_stay_zeros_and_equal_values_stay_equal() -> None:
    for value in (0.0, -2.5):
        stored = quantize(np.full((4, 3), value, np.float32), CodebookQuantization(2))
        assert (stored.decode() == value).all()


def test_bad_input_is_named() -> None:
    for options in ({"bits": 0}, {"columns_per_codebook": 0}, {"dtype": "int8"}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} is"):
            CodebookQuantization(**options)
    with pytest.raises(ValueError, match="NaN"):
        quantize(np.float32([1.0, float("nan")]), CodebookQuantization())
    with pytest.raises(TypeError, match="floating-point"):
        quantize(np.arange(4), CodebookQuantization())


@pytest.mark.parametrize("size", [1e-8, 1e6])
def test_values_beyond_float16_are_kept(size: float) -> None:
    values = heavy_tailed() * np.float32(size)
    decoded = quantize(values, CodebookQuantization(8)).decode()
    assert np.linalg.norm(decoded - values) < 0.1 * np.linalg.norm(values)


def inertia(points: np.ndarray, centroids: np.ndarray) -> float:
    return float(((points[:, None] - centroids[None]) ** 2).sum(axis=2).min(axis=1).sum())


def clouds(seed: int = 0, count: int = 600, dim: int = 3) -> np.ndarray:
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
