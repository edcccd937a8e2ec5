"""Stored forms: uniform steps, codebooks, codes of pieces; against TensorFlow, scipy and faiss."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.cluster.vq import kmeans2

from recsys_lib.compression import quantization as q
from recsys_lib.compression.quantization import quantize
from recsys_lib.compression.quantization.kmeans import kmeans_scalar
from recsys_lib.compression.quantization.uniform import find_range, rounding_error, unpack_bits
from recsys_lib.compression.tensors import read_tensor
from recsys_lib.models import Factors

FORMS = [{}, {"exact_zero": True}, {"symmetric": True}]
RANDOM = np.random.default_rng(0)
STORED = quantize(np.ones((3, 4), np.float32), q.UniformQuantization(4))

# Zero, or of a size that neither scale type loses: |x| from 1e-3 to 1e4.
numbers = st.floats(-1e4, 1e4, width=32).map(lambda x: x if abs(x) >= 1e-3 else 0.0)
tables = arrays.arrays(
    np.float32, arrays.array_shapes(min_dims=1, max_dims=3, max_side=9), elements=numbers
)
configs = st.builds(
    lambda form, **others: q.UniformQuantization(**form, **others),
    st.sampled_from(FORMS),
    bits=st.integers(2, 8),
    granularity=st.sampled_from(["tensor", "row", "column"]),
    scale_dtype=st.sampled_from(["float16", "float32"]),
)


@given(values=tables, config=configs, holes=st.booleans())
@settings(max_examples=200, deadline=None)
def test_values_are_within_half_a_step_and_zeros_zero(through_bytes, values, config, holes):
    values = values.copy()
    values.reshape(-1)[: holes * values.size : 2] = 0
    stored = quantize(values, config)
    decoded, step = through_bytes(stored).decode(), stored.scale.astype(np.float64)
    largest = np.abs(values).max()
    assert (np.abs(decoded - values) <= step * 0.5 + 1e-6 * largest).all()
    if config.symmetric or config.exact_zero:
        assert (decoded[values == 0] == 0).all()
    expected = step * (stored.codes - stored.zero_point)
    if stored.offset is not None:
        expected = np.where(step > 0, expected, stored.offset.astype(np.float32))
    np.testing.assert_allclose(decoded, expected, rtol=1e-4, atol=1e-5 * largest)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("search", ["minmax", "mse"])
@pytest.mark.parametrize("granularity", ["tensor", "row", "column"])
def test_more_bits_are_never_worse(form, search, granularity):
    table = RANDOM.standard_t(4, size=(40, 60)).astype(np.float32)
    of = (q.UniformQuantization(b, granularity, scale_search=search, **form) for b in range(2, 9))
    errors = [np.linalg.norm(quantize(table, config).decode() - table) for config in of]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("search", ["minmax", "percentile", "mse"])
@pytest.mark.parametrize(("dtype", "relative"), [("float16", 1e-3), ("float32", 1e-6)])
def test_constant_rows_come_back(form, search, dtype, relative):
    """Scale 0 must not become 0 / 0: NaN scores once gave a hit rate of 1."""
    table = np.float32([[0, 0, 0], [0.1, 0.1, 0.1], [-3, -3, -3], [1e-6, 1e-6, 1e-6], [1, 2, 4]])
    for bits in (2, 8):
        config = q.UniformQuantization(bits, "row", scale_search=search, scale_dtype=dtype, **form)
        decoded = quantize(table, config).decode()
        assert (decoded[0] == 0).all()
        np.testing.assert_allclose(decoded[1:3], table[1:3], rtol=relative)
        np.testing.assert_allclose(decoded[3], table[3], atol=1e-7)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize(("granularity", "axis"), [("tensor", -1), ("row", 0), ("column", 1)])
def test_equal_to_tensorflows_quantization(bits, granularity, axis):
    import tensorflow as tf

    table = np.random.default_rng(bits).normal(size=(30, 17)).astype(np.float32)
    zeros = np.zeros(() if axis < 0 else table.shape[axis], np.float32)
    expected = tf.raw_ops.QuantizeAndDequantizeV4(
        input=table, input_min=zeros, input_max=zeros, signed_input=True, range_given=False,
        num_bits=bits, round_mode="HALF_TO_EVEN", narrow_range=True, axis=axis,
    ).numpy()  # fmt: skip
    options = {"bits": bits, "granularity": granularity, "scale_dtype": "float32"}
    stored = quantize(table, q.UniformQuantization(**options, symmetric=True))
    apart = np.abs(stored.decode() - expected)
    assert (apart <= 1.001 * stored.scale).all()  # a step, where the last bit decides
    assert (apart > 1e-6).mean() < 0.005
    if granularity != "row":
        name = "fake_quant_with_min_max_vars" + ("_per_channel" if axis == 1 else "")
        table, over = table + np.float32(0.7), 0 if axis == 1 else None
        low, high = np.minimum(table.min(over), 0), np.maximum(table.max(over), 0)
        expected = getattr(tf.quantization, name)(table, low, high, num_bits=bits)
        decoded = quantize(table, q.UniformQuantization(**options, exact_zero=True)).decode()
        np.testing.assert_allclose(decoded, expected.numpy(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", [1e-7, 1e-30, 1e5])
@pytest.mark.parametrize(
    ("config", "limit"),
    [
        *((q.UniformQuantization(8, **form), 0.01) for form in FORMS),
        (q.CodebookQuantization(8), 0.05),
    ],
)
def test_tables_beyond_float16_keep_their_precision(size, config, limit):
    table = RANDOM.normal(size=(50, 16)).astype(np.float32)
    decoded = quantize(table * np.float32(size), config).decode() / size
    assert np.linalg.norm(decoded - table) < limit * np.linalg.norm(table)


@pytest.mark.parametrize(
    ("config", "others"),  # scales take 2 bytes a row, offsets 2, or 1 where zero is exact
    [
        *((q.UniformQuantization(bits), 400) for bits in range(2, 9)),
        (q.UniformQuantization(4, exact_zero=True), 300),
        (q.UniformQuantization(np.int64(4), symmetric=np.True_), 200),
        (q.CodebookQuantization(3, 48), 4 * 8 * 2),
        *((q.ProductQuantization(64, bits), 64 * 2**bits * 3 * 2) for bits in (1, 3, 8)),
        (q.ProductQuantization(64, 3, "principal"), 64 * 8 * 3 * 2 + 192 * 192 * 2),
    ],
    ids=repr,
)
def test_stored_bytes_are_those_of_parts_that_make_the_tensor_again(config, others, through_bytes):
    stored = through_bytes(quantize(RANDOM.normal(size=(100, 192)).astype(np.float32), config))
    sizes = {name: array.nbytes for name, array in stored.arrays().items()}
    assert 0 < stored.nbytes - sum(sizes.values()) < 250
    assert sizes.pop("codes") == -(-stored.codes.size * config.bits // 8)
    assert sum(sizes.values()) == others


ROWS = np.concatenate([  # the last are skewed: one end only is worth clipping
    RANDOM.normal(size=(6, 192)), RANDOM.standard_t(3, (6, 192)), RANDOM.exponential(size=(6, 192)),
]).astype(np.float32)  # fmt: skip


def brute_force(row, levels, symmetric):
    """Return the smallest squared error over all pairs of ends on a fine grid."""
    low, high, best = row.min(), row.max(), np.inf
    if symmetric:
        low, high = np.array([-1, 1]) * np.abs(row).max()
    shares = np.linspace(0, 0.6, 31) * (high - low) / (2 if symmetric else 1)
    for below, above in product(shares, repeat=2):
        if low + below < high - above and (below == above or not symmetric):
            ends = np.float32([low + below]), np.float32([high - above])
            best = min(best, float(rounding_error(row[None], *ends, levels)[0]))
    return best


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_search_is_close_to_the_optimum(bits, symmetric):
    levels = 2**bits - (2 if symmetric else 1)
    found, whole = (
        rounding_error(ROWS, *find_range(ROWS, bits, symmetric=symmetric, search=search), levels)
        for search in ("mse", "minmax")
    )
    optimum = np.array([brute_force(row, levels, symmetric) for row in ROWS])
    assert (found <= whole).all()
    assert found.sum() <= 1.03 * optimum.sum()
    assert (found <= 1.15 * optimum).all()
    assert (whole - found).sum() >= 0.85 * (whole - optimum).sum()
    config = q.UniformQuantization(bits, "row", symmetric=symmetric, scale_dtype="float32")
    rounded = quantize(ROWS, config).decode().astype(np.float64)
    np.testing.assert_allclose(whole, ((rounded - ROWS) ** 2).sum(axis=1), rtol=1e-3)


def test_percentiles_leave_the_outermost_out():
    row = np.arange(1001, dtype=np.float32)[None]
    for x, symmetric, ends in ((row, False, (1, 999)), (row - 400, True, (-599, 599))):
        found = find_range(x, 8, symmetric=symmetric, search="percentile")
        assert np.ravel(found) == pytest.approx(ends)


@given(st.integers(1, 8), st.lists(st.integers(0, 255)))
@settings(max_examples=100, deadline=None)
def test_bits_lie_as_numpy_packs_them_and_come_back(bits, codes):
    codes = (np.array(codes, np.int64) % (1 << bits)).astype(np.uint8)
    each = np.unpackbits(codes[:, None], axis=1, bitorder="little")[:, :bits]
    packed = q.pack_bits(codes.astype(np.int64), bits)
    np.testing.assert_array_equal(packed, np.packbits(each.ravel(), bitorder="little"))
    assert packed.nbytes == -(-len(codes) * bits // 8)
    np.testing.assert_array_equal(unpack_bits(packed, bits, len(codes)), codes)


def correlated(rows, columns, seed=0):
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(rows, columns)) @ random.normal(size=(columns, columns))
    return mixed.astype(np.float32)


def error(values, config):
    return float(((quantize(values, config).decode() - values) ** 2).sum())


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_less_error_than_a_uniform_grid_of_as_many_values(bits):
    values = np.random.default_rng(0).standard_t(3, (400, 20)).astype(np.float32)
    uniform = error(values, q.UniformQuantization(bits, "tensor", scale_search="mse"))
    assert error(values, q.CodebookQuantization(bits, dtype="float32")) < 0.8 * uniform


def test_a_codebook_for_each_group_of_columns():
    values = (RANDOM.standard_t(3, (300, 9)) * np.arange(1, 10)).astype(np.float32)
    grouped, one = q.CodebookQuantization(3, columns_per_codebook=4), q.CodebookQuantization(3)
    many = quantize(values, grouped)
    assert many.codebooks.shape == (3, 8)
    assert error(values, grouped) < error(values, one)
    alone = quantize(values[:, 4:8].copy(), one)
    np.testing.assert_array_equal(many.decode()[:, 4:8], alone.decode())


@settings(max_examples=30, deadline=None)
@given(arrays.array_shapes(max_dims=3, max_side=6), st.integers(1, 8),
       st.sampled_from([None, 1, 2, 5]), st.integers(0, 5))  # fmt: skip
def test_a_codebook_as_large_as_the_values_is_exact(shape, bits, columns, seed):
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    decoded = quantize(values, q.CodebookQuantization(bits, columns, dtype="float32")).decode()
    assert decoded.shape == values.shape
    if values.size <= 1 << bits:  # every value has a code of its own
        np.testing.assert_array_equal(decoded, values)


@pytest.mark.parametrize("value", [0.0, -2.5])
@pytest.mark.parametrize("pieces", [(), (2, 2), (2, 2, "principal")])
def test_zeros_stay_zeros_and_equal_values_stay_equal(pieces, value):
    config = q.ProductQuantization(*pieces) if pieces else q.CodebookQuantization(2)
    stored = quantize(np.full((30, 4), value, np.float32), config)
    np.testing.assert_allclose(stored.decode(), value, rtol=1e-3)


def inertia(points, centroids):
    distances = points.reshape(len(points), 1, -1) - centroids.reshape(1, len(centroids), -1)
    return float((distances**2).sum(axis=2).min(axis=1).sum())


def clouds(seed, count=600):
    random = np.random.default_rng(seed)
    centers = random.normal(0, 5, (12, 3))
    return (centers[random.integers(0, 12, count)] + random.normal(0, 1, (count, 3))).astype("f4")


def test_from_the_same_start_scipy_arrives_where_we_do_and_weights_are_repeated_points():
    points = clouds(1)
    start = points[:6].copy()
    ours, assignment = q.kmeans(points, 6, start=start, iterations=30)
    theirs, labels = kmeans2(points.astype(float), start.astype(float), iter=30, minit="matrix")
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(assignment, labels)
    points, weights = clouds(2, 60), np.random.default_rng(0).integers(1, 4, 60)
    options = {"start": points[:4].copy(), "iterations": 40}
    weighted, _ = q.kmeans(points, 4, weights=weights.astype(np.float32), **options)
    repeated, _ = q.kmeans(np.repeat(points, weights, axis=0), 4, **options)
    np.testing.assert_allclose(weighted, repeated, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("k", [2, 4, 16, 64])
def test_numbers_are_clustered_no_worse_than_by_scipy(k):
    values = np.random.default_rng(k).standard_t(4, 3000).astype(np.float32)
    ours, (theirs, _) = kmeans_scalar(values, k), kmeans2(values, k, iter=20, minit="++", rng=0)
    assert len(ours) == k and (np.diff(ours) >= 0).all()
    assert inertia(values, ours) <= 1.02 * inertia(values, theirs)


@pytest.mark.parametrize(("k", "expected"), [(1, [1.5]), (3, [-1, 2, 3]), (8, [-1, 2, 3])])
def test_few_values_are_kept_exactly_and_empty_clusters_given_work(k, expected):
    values = np.float32([3, -1, 3, 3, -1, 2])
    np.testing.assert_array_equal(kmeans_scalar(values, k), expected)
    centroids, assignment = q.kmeans(values[:, None], 8)
    np.testing.assert_array_equal(centroids[assignment], values[:, None])
    points = np.repeat(np.float32([[0, 0], [1, 1], [9, 9]]), [50, 50, 1], axis=0)
    start = np.float32([[0, 0], [500, 500], [600, 600]])
    centroids, assignment = q.kmeans(points, 3, start=start, iterations=10)
    np.testing.assert_array_equal(centroids[assignment], points)


@pytest.mark.parametrize(("pieces", "bits"), [(4, 5), (8, 4), (2, 4)])
def test_error_no_larger_than_that_of_faiss(pieces, bits):
    faiss, table = pytest.importorskip("faiss"), correlated(2000, 16)
    theirs = faiss.ProductQuantizer(16, pieces, bits)
    theirs.train(table)
    reference = ((theirs.decode(theirs.compute_codes(table)) - table) ** 2).sum()
    options = {"dtype": "float32", "iterations": 25}
    ours = [error(table, q.ProductQuantization(pieces, bits, seed=s, **options)) for s in range(3)]
    assert np.mean(ours) <= 1.02 * reference  # both start at random


def test_the_rotation_gains_as_much_as_the_one_that_faiss_learns():
    faiss, table = pytest.importorskip("faiss"), correlated(800, 16)
    matrix, quantizer = faiss.OPQMatrix(16, 8), faiss.ProductQuantizer(16, 8, 4)
    matrix.niter, matrix.pq = 20, quantizer
    matrix.train(table)
    turned = matrix.apply(table)
    quantizer.train(turned)
    learned = ((quantizer.decode(quantizer.compute_codes(turned)) - turned) ** 2).sum()
    plain, principal = (
        error(table, q.ProductQuantization(8, 4, turn, "float32")) for turn in ("none", "principal")
    )
    assert principal < min(0.8 * plain, 1.05 * learned)


def test_weights_of_scores_and_of_rows_gain_what_they_promise():
    spread = np.float32([9, 5, 3, 2, 1, 1, 0.5, 0.1])
    model = Factors(correlated(1000, 8, seed=1), correlated(500, 8, seed=2) * spread)
    users = np.arange(500)
    exact = model.score_all_items(users)
    plain, weighted = (
        quantize(model, q.ProductQuantization(4, 4), weighting=one) for one in ("none", "scores")
    )
    errors = [((small.score_all_items(users) - exact) ** 2).sum() for small in (plain, weighted)]
    assert errors[1] < 0.8 * errors[0]
    assert plain.nbytes == weighted.nbytes  # the weights go into the centroids
    table, counts = correlated(1000, 8), np.ones(1000, np.float32)
    counts[:50] = 100
    plain, weighted = (
        ((quantize(table, q.ProductQuantization(4, 3), counts=w).decode() - table)[:50] ** 2).sum()
        for w in (None, counts)
    )
    assert weighted < 0.7 * plain


TABLE, UNIFORM, PIECES = correlated(20, 6), q.UniformQuantization(2), q.ProductQuantization(2)
MODEL = Factors(TABLE, TABLE)


def test_refuses(refuses):
    def read(**parts):
        header = STORED.header()
        return lambda: read_tensor("uniform", header, STORED.arrays() | parts).decode()

    refuses(
        ("values holds", lambda: quantize(np.array([[1, np.nan]]), UNIFORM)),
        ("values has shape", lambda: quantize(np.array(3.0), UNIFORM)),
        (r"expected \(6,\)", read(codes=np.zeros(5, np.uint8))),
        ("broadcast", read(scale=np.ones((2, 1)))),
        ("codes holds 4", lambda: q.pack_bits([4], 2)),
        ("codes is of type", lambda: q.pack_bits([0.5], 2)),
        ("columns_per_codebook", lambda: q.CodebookQuantization(columns_per_codebook=0)),
        ("num_subspaces", lambda: quantize(TABLE, q.ProductQuantization(4))),
        ("2 dimensions", lambda: quantize(TABLE[0], PIECES)),
        ("counts", lambda: quantize(TABLE, PIECES, counts=np.ones(3))),
        ("counts", lambda: quantize(TABLE, PIECES, counts=-np.ones(20))),
        ("weighting", lambda: quantize(MODEL, "float16", weighting="scores")),
        ("rerank", lambda: q.SignQuantization(rerank=8)),
        ("values", lambda: q.SignQuantization().encode(np.ones(4))),
    )
