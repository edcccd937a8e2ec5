"""Codebooks, of numbers and of pieces of rows, against uniform grids, scipy's k-means and faiss."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.vq import kmeans2

from recsys_lib.compression.quantization import (
    CodebookQuantization,
    ProductQuantization,
    UniformQuantization,
    kmeans,
    quantize,
)
from recsys_lib.compression.quantization.kmeans import kmeans_scalar
from recsys_lib.compression.tensors import read_tensor
from recsys_lib.models import Factors


def heavy_tailed(shape=(400, 20)):
    return np.random.default_rng(0).standard_t(3, shape).astype(np.float32)


def correlated(rows=2000, columns=16, seed=0):
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(rows, columns)) @ random.normal(size=(columns, columns))
    return mixed.astype(np.float32)


def error(values, config, **options):
    return float(((quantize(values, config, **options).decode() - values) ** 2).sum())


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_less_error_than_a_uniform_grid_of_as_many_values(bits):
    uniform = UniformQuantization(bits, granularity="tensor", scale_search="mse")
    ours = error(heavy_tailed(), CodebookQuantization(bits, dtype="float32"))
    assert ours < 0.8 * error(heavy_tailed(), uniform)


def test_a_codebook_for_each_group_of_columns():
    values = heavy_tailed((300, 9)) * np.arange(1, 10, dtype=np.float32)
    grouped = CodebookQuantization(3, columns_per_codebook=4)
    many = quantize(values, grouped)
    assert many.codebooks.shape == (3, 8)
    assert error(values, grouped) < error(values, CodebookQuantization(3))
    alone = quantize(values[:, 4:8].copy(), CodebookQuantization(3))
    np.testing.assert_array_equal(many.decode()[:, 4:8], alone.decode())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=3), st.integers(1, 8),
       st.sampled_from([None, 1, 2, 5]), st.integers(0, 5))  # fmt: skip
def test_parts_make_the_same_codebook_tensor_again(shape, bits, columns, seed):
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    tensor = quantize(values, CodebookQuantization(bits, columns, dtype="float32"))
    again = read_tensor(tensor.kind, tensor.header(), tensor.arrays())
    np.testing.assert_array_equal(again.decode(), tensor.decode())
    if values.size <= 1 << bits:  # every value has a code of its own
        np.testing.assert_array_equal(tensor.decode(), values)


def test_stored_bytes_are_codes_codebook_and_header():
    tensor = quantize(heavy_tailed((256, 32)), CodebookQuantization(3))
    codes, books = 256 * 32 * 3 // 8, 8 * 2
    assert {n: a.nbytes for n, a in tensor.arrays().items()} == {"codes": codes, "codebooks": books}
    assert 0 < tensor.nbytes - codes - books < 100


@pytest.mark.parametrize("size", [1e-8, 1e6])
def test_values_beyond_float16_are_kept(size):
    values = heavy_tailed() * np.float32(size)
    assert error(values, CodebookQuantization(8)) < 0.01 * (values**2).sum()


@pytest.mark.parametrize("value", [0.0, -2.5])
@pytest.mark.parametrize("config", [
    CodebookQuantization(2), ProductQuantization(2, 2), ProductQuantization(2, 2, "principal"),
])  # fmt: skip
def test_zeros_stay_zeros_and_equal_values_stay_equal(config, value):
    stored = quantize(np.full((30, 4), value, np.float32), config)
    np.testing.assert_allclose(stored.decode(), value, rtol=1e-3)


def inertia(points, centroids):
    points, centroids = np.atleast_2d(points.T).T, np.atleast_2d(centroids.T).T
    return float(((points[:, None] - centroids[None]) ** 2).sum(axis=2).min(axis=1).sum())


def clouds(seed=0, count=600, dim=3):
    random = np.random.default_rng(seed)
    centers = random.normal(0, 5, (12, dim))
    return (centers[random.integers(0, 12, count)] + random.normal(0, 1, (count, dim))).astype("f4")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("k", [2, 8, 32])
def test_vectors_are_clustered_no_worse_than_by_scipy(seed, k):
    points = clouds(seed)
    ours = [kmeans(points, k, seed=s, iterations=50)[0] for s in range(9)]
    theirs = [kmeans2(points, k, iter=50, minit="++", rng=s)[0] for s in range(9)]
    medians = [np.median([inertia(points, c) for c in found]) for found in (ours, theirs)]
    assert medians[0] <= 1.05 * medians[1]


def test_from_the_same_start_both_arrive_at_the_same_centroids():
    points = clouds(1)
    start = points[:6].copy()
    ours, assignment = kmeans(points, 6, start=start, iterations=30)
    theirs, labels = kmeans2(points.astype(float), start.astype(float), iter=30, minit="matrix")
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(assignment, labels)


@pytest.mark.parametrize("k", [2, 4, 16, 64])
def test_numbers_are_clustered_no_worse_than_by_scipy(k):
    values = np.random.default_rng(k).standard_t(4, 3000).astype(np.float32)
    ours, (theirs, _) = kmeans_scalar(values, k), kmeans2(values, k, iter=20, minit="++", rng=0)
    assert len(ours) == k and (np.diff(ours) >= 0).all()
    assert inertia(values, ours) <= 1.02 * inertia(values, theirs)


def test_weights_are_repeated_points():
    points = clouds(2, 60)
    weights, start = np.random.default_rng(0).integers(1, 4, 60), points[:4].copy()
    weighted, _ = kmeans(points, 4, weights=weights.astype(np.float32), start=start, iterations=40)
    repeated, _ = kmeans(np.repeat(points, weights, axis=0), 4, start=start, iterations=40)
    np.testing.assert_allclose(weighted, repeated, rtol=1e-4, atol=1e-4)


def test_empty_clusters_are_given_work():
    points = np.vstack([np.zeros((50, 2)), np.ones((50, 2)), [[9, 9]]]).astype(np.float32)
    start = np.float32([[0, 0], [500, 500], [600, 600]])
    centroids, assignment = kmeans(points, 3, start=start, iterations=10)
    assert inertia(points, centroids) == 0 and len(np.unique(assignment)) == 3


@pytest.mark.parametrize(("k", "expected"), [(1, [1.5]), (3, [-1, 2, 3]), (8, [-1, 2, 3])])
def test_few_values_are_kept_exactly(k, expected):
    values = np.float32([3, -1, 3, 3, -1, 2])
    np.testing.assert_array_equal(kmeans_scalar(values, k), expected)
    centroids, assignment = kmeans(values[:, None], 8)
    np.testing.assert_array_equal(centroids[assignment], values[:, None])


@pytest.mark.parametrize(("pieces", "bits"), [(4, 5), (8, 4), (2, 4)])
def test_error_no_larger_than_that_of_faiss(pieces, bits):
    faiss, table = pytest.importorskip("faiss"), correlated()
    theirs = faiss.ProductQuantizer(16, pieces, bits)
    theirs.train(table)
    reference = ((theirs.decode(theirs.compute_codes(table)) - table) ** 2).sum()
    options = {"dtype": "float32", "iterations": 25}
    ours = [error(table, ProductQuantization(pieces, bits, seed=s, **options)) for s in range(3)]
    assert np.mean(ours) <= 1.02 * reference  # both start at random


def test_the_rotation_gains_as_much_as_the_one_that_faiss_learns():
    faiss, table = pytest.importorskip("faiss"), correlated(800)
    matrix, quantizer = faiss.OPQMatrix(16, 8), faiss.ProductQuantizer(16, 8, 4)
    matrix.niter, matrix.pq = 20, quantizer
    matrix.train(table)
    turned = matrix.apply(table)
    quantizer.train(turned)
    learned = ((quantizer.decode(quantizer.compute_codes(turned)) - turned) ** 2).sum()
    plain, principal = (
        error(table, ProductQuantization(8, 4, rotation, "float32"))
        for rotation in ("none", "principal")
    )
    assert principal < 0.8 * plain
    assert principal < 1.05 * learned


def test_score_weights_gain_what_they_promise():
    spread = np.float32([9, 5, 3, 2, 1, 1, 0.5, 0.1])
    model = Factors(correlated(1000, 8, seed=1), correlated(500, 8, seed=2) * spread)
    exact, errors, sizes = model.score_all_items(np.arange(500)), [], []
    for weighting in ("none", "scores"):
        stored = quantize(model, ProductQuantization(4, 4), weighting=weighting)
        errors.append(((stored.score_all_items(np.arange(500)) - exact) ** 2).sum())
        sizes.append(stored.nbytes)
    assert errors[1] < 0.8 * errors[0]
    assert sizes[0] == sizes[1]  # the weights go into the centroids


def test_rows_that_count_more_are_met_better():
    table, config = correlated(1000, 8), ProductQuantization(4, 3)
    weights = np.where(np.arange(1000) < 50, 100, 1).astype(np.float32)
    plain, weighted = (
        ((quantize(table, config, counts=w).decode() - table)[:50] ** 2).sum()
        for w in (None, weights)
    )
    assert weighted < 0.7 * plain


@pytest.mark.parametrize("rotation", ["none", "principal"])
@pytest.mark.parametrize("bits", [1, 3, 8])
def test_parts_make_the_same_product_tensor_again(rotation, bits):
    stored = quantize(correlated(50, 6), ProductQuantization(3, bits, rotation))
    again = read_tensor(stored.kind, stored.header(), stored.arrays())
    np.testing.assert_array_equal(again.decode(), stored.decode())
    books, back = 3 * (1 << bits) * 2 * 2, 0 if rotation == "none" else 6 * 6 * 2
    assert sum(a.nbytes for a in stored.arrays().values()) == -(-50 * 3 * bits // 8) + books + back


def test_no_more_rows_than_centroids_is_exact_and_costs_more_than_it_saves():
    table = correlated(200, 8)
    stored = quantize(table, ProductQuantization(4, 8, dtype="float32"))
    np.testing.assert_allclose(stored.decode(), table, rtol=1e-6)
    assert stored.nbytes > table.nbytes


TABLE, PIECES = correlated(20, 6), ProductQuantization(2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: CodebookQuantization(bits=0), ValueError, "bits is"),
        (lambda: CodebookQuantization(columns_per_codebook=0), ValueError, "columns_per_codebook"),
        (lambda: CodebookQuantization(dtype="int8"), ValueError, "dtype is"),
        (lambda: ProductQuantization(2, bits=9), ValueError, "bits is"),
        (lambda: ProductQuantization(2, rotation="pca"), ValueError, "rotation is"),
        (lambda: ProductQuantization(0), ValueError, "num_subspaces is"),
        (lambda: quantize(TABLE * np.nan, CodebookQuantization()), ValueError, "NaN"),
        (lambda: quantize(np.arange(4), CodebookQuantization()), TypeError, "floating-point"),
        (lambda: quantize(TABLE, ProductQuantization(4)), ValueError, "num_subspaces is 4"),
        (lambda: quantize(TABLE[0], PIECES), ValueError, "expected 2 dimensions"),
        (lambda: quantize(TABLE * np.nan, PIECES), ValueError, "NaN"),
        (lambda: quantize(TABLE, PIECES, counts=np.ones(3)), ValueError, "counts"),
        (lambda: quantize(TABLE, PIECES, counts=-np.ones(20)), ValueError, "counts"),
        (lambda: quantize(Factors(TABLE, TABLE), "float16", weighting="scores"), ValueError,
         "weighting is 'scores'"),
    ],
)  # fmt: skip
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()
