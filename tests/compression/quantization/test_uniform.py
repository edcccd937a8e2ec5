"""Uniform quantization: half a step, zero, constant rows, ranges, and TensorFlow's opinion."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from recsys_lib.compression.quantization import UniformQuantization, pack_bits, quantize
from recsys_lib.compression.quantization.uniform import find_range, squared_error, unpack_bits
from recsys_lib.compression.tensors import read_tensor

FORMS = [{}, {"exact_zero": True}, {"symmetric": True}]
RANDOM = np.random.default_rng(0)

# Zero, or of a size that neither scale type loses: |x| from 1e-3 to 1e4.
numbers = st.floats(-1e4, 1e4, width=32).map(lambda x: x if abs(x) >= 1e-3 else 0.0)
tables = arrays.arrays(
    np.float32, arrays.array_shapes(min_dims=1, max_dims=3, max_side=9), elements=numbers
)
configs = st.builds(
    lambda form, **others: UniformQuantization(**form, **others),
    st.sampled_from(FORMS),
    bits=st.integers(2, 8),
    granularity=st.sampled_from(["tensor", "row", "column"]),
    scale_dtype=st.sampled_from(["float16", "float32"]),
)


@given(tables, configs)
@settings(max_examples=150, deadline=None)
def test_values_are_within_half_a_step_and_decode_to_what_the_stored_form_says(values, config):
    stored = quantize(values, config)
    decoded, step = stored.decode(), stored.scale.astype(np.float64)
    largest = np.abs(values).max()
    assert (np.abs(decoded - values) <= step * 0.5 + 1e-6 * largest).all()
    expected = step * (stored.codes - stored.zero_point)
    if stored.offset is not None:
        expected = np.where(step > 0, expected, stored.offset.astype(np.float32))
    np.testing.assert_allclose(decoded, expected, rtol=1e-4, atol=1e-5 * largest)
    again = read_tensor(stored.kind, stored.header(), stored.arrays())
    np.testing.assert_array_equal(again.decode(), decoded)
    assert again.nbytes == stored.nbytes


@given(tables, configs)
@settings(max_examples=100, deadline=None)
def test_zeros_stay_zeros_where_that_is_promised(values, config):
    values = values.copy()
    values.reshape(-1)[::2] = 0
    decoded = quantize(values, config).decode()
    assert np.isfinite(decoded).all()
    if config.symmetric or config.exact_zero:
        assert (decoded[values == 0] == 0).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("search", ["minmax", "mse"])  # clipping for good costs what it costs
@pytest.mark.parametrize("granularity", ["tensor", "row", "column"])
def test_more_bits_are_never_worse(form, search, granularity):
    table = RANDOM.standard_t(4, size=(40, 60)).astype(np.float32)
    found = [
        quantize(table, UniformQuantization(bits, granularity, scale_search=search, **form))
        for bits in range(2, 9)
    ]
    errors = [np.linalg.norm(stored.decode() - table) for stored in found]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("search", ["minmax", "percentile", "mse"])
@pytest.mark.parametrize(("dtype", "relative"), [("float16", 1e-3), ("float32", 1e-6)])
def test_constant_rows_come_back(form, search, dtype, relative):
    """Scale 0 must not become 0 / 0: NaN scores once gave a hit rate of 1."""
    table = np.float32([[0, 0, 0], [0.1, 0.1, 0.1], [-3, -3, -3], [1e-6, 1e-6, 1e-6], [1, 2, 4]])
    for bits in (2, 8):
        config = UniformQuantization(bits, "row", scale_search=search, scale_dtype=dtype, **form)
        decoded = quantize(table, config).decode()
        assert (decoded[0] == 0).all()
        np.testing.assert_allclose(decoded[1:3], table[1:3], rtol=relative)
        np.testing.assert_allclose(decoded[3], table[3], atol=1e-7)


@pytest.mark.parametrize("bits", range(2, 9))
def test_bytes_are_those_of_codes_scales_and_header(bits):
    table = RANDOM.normal(size=(100, 192)).astype(np.float32)
    stored = quantize(table, UniformQuantization(bits, "row"))
    parts = stored.arrays()
    assert parts["codes"].nbytes == 100 * 192 * bits // 8
    assert parts["scale"].nbytes == parts["offset"].nbytes == 200
    assert stored.nbytes - sum(a.nbytes for a in parts.values()) < 250
    exact = quantize(table, UniformQuantization(bits, "row", exact_zero=True))
    assert exact.arrays()["offset"].nbytes == 100  # one byte
    assert "offset" not in quantize(table, UniformQuantization(bits, symmetric=True)).arrays()


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize(("granularity", "axis"), [("tensor", -1), ("row", 0), ("column", 1)])
def test_symmetric_is_tensorflows_quantize_and_dequantize(bits, granularity, axis):
    import tensorflow as tf

    table = RANDOM.normal(size=(30, 17)).astype(np.float32)
    zeros = np.zeros(() if axis < 0 else table.shape[axis], np.float32)
    expected = tf.raw_ops.QuantizeAndDequantizeV4(
        input=table, input_min=zeros, input_max=zeros, signed_input=True, range_given=False,
        num_bits=bits, round_mode="HALF_TO_EVEN", narrow_range=True, axis=axis,
    ).numpy()  # fmt: skip
    config = UniformQuantization(bits, granularity, symmetric=True, scale_dtype="float32")
    stored = quantize(table, config)
    apart = np.abs(stored.decode() - expected)
    assert (apart <= 1.001 * stored.scale).all()  # a step, where the last bit decides
    assert (apart > 1e-6).mean() < 0.005


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize(("granularity", "axis", "name"), [
    ("tensor", None, "fake_quant_with_min_max_vars"),
    ("column", 0, "fake_quant_with_min_max_vars_per_channel"),
])  # fmt: skip
def test_exact_zero_is_tensorflows_fake_quant(bits, granularity, axis, name):
    import tensorflow as tf

    table = (np.random.default_rng(bits).normal(size=(30, 17)) + 0.7).astype(np.float32)
    config = UniformQuantization(bits, granularity, exact_zero=True, scale_dtype="float32")
    low, high = np.minimum(table.min(axis), 0), np.maximum(table.max(axis), 0)
    expected = getattr(tf.quantization, name)(table, low, high, num_bits=bits)
    decoded = quantize(table, config).decode()
    np.testing.assert_allclose(decoded, expected.numpy(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", [1e-7, 1e-30, 1e5])
@pytest.mark.parametrize("form", FORMS)
def test_tables_beyond_float16_keep_their_precision(size, form):
    table = RANDOM.normal(size=(50, 16)).astype(np.float32)
    decoded = quantize(table * np.float32(size), UniformQuantization(8, **form)).decode() / size
    assert np.linalg.norm(decoded - table) < 0.01 * np.linalg.norm(table)


def test_numpy_scalars_become_pythons():
    config = UniformQuantization(np.int64(4), symmetric=np.True_)
    header = quantize(np.ones((2, 3), np.float32), config).header()
    assert json.loads(json.dumps(header)) == header
    assert config == UniformQuantization(4, symmetric=True)


ROWS = np.concatenate([  # the last are skewed: one end only is worth clipping
    RANDOM.normal(size=(6, 192)), RANDOM.standard_t(3, (6, 192)), RANDOM.exponential(size=(6, 192)),
]).astype(np.float32)  # fmt: skip


def brute_force(row, levels, symmetric):
    """Return the smallest squared error over all pairs of ends on a fine grid."""
    low, high, best = row.min(), row.max(), np.inf
    if symmetric:
        high = np.abs(row).max()
        low = -high
    shares = np.linspace(0, 0.6, 61) * (high - low) / (2 if symmetric else 1)
    for below in shares:
        for above in [below] if symmetric else shares:
            ends = (np.float32([end]) for end in (low + below, high - above))
            if low + below < high - above:
                best = min(best, float(squared_error(row[None], *ends, levels)[0]))
    return best


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_search_is_close_to_the_optimum(bits, symmetric):
    levels = 2**bits - (2 if symmetric else 1)
    found, whole = (
        squared_error(ROWS, *find_range(ROWS, bits, symmetric=symmetric, search=search), levels)
        for search in ("mse", "minmax")
    )
    optimum = np.array([brute_force(row, levels, symmetric) for row in ROWS])
    assert (found <= whole).all()
    assert found.sum() <= 1.03 * optimum.sum()
    assert (found <= 1.15 * optimum).all()
    assert (whole - found).sum() >= 0.85 * (whole - optimum).sum()


def test_the_squared_error_is_that_of_rounding():
    config = UniformQuantization(3, "row", scale_dtype="float32")
    decoded = quantize(ROWS, config).decode().astype(np.float64)
    low, high = find_range(ROWS, 3, symmetric=False, search="minmax")
    expected = ((decoded - ROWS) ** 2).sum(axis=1)
    np.testing.assert_allclose(squared_error(ROWS, low, high, 7), expected, rtol=1e-3)


def test_percentiles_leave_the_outermost_out():
    row = np.arange(1001, dtype=np.float32)[None]
    low, high = find_range(row, 8, symmetric=False, search="percentile", percentile=99)
    assert (low[0], high[0]) == pytest.approx((10, 990))
    low, high = find_range(row - 400, 8, symmetric=True, search="percentile", percentile=100)
    assert (low[0], high[0]) == (-600, 600)


@given(st.integers(1, 8), st.lists(st.integers(0, 255)))
@settings(max_examples=100, deadline=None)
def test_bits_lie_as_numpy_packs_them_and_come_back(bits, codes):
    codes = np.array(codes, np.uint8) % (1 << bits)
    each = np.unpackbits(codes[:, None], axis=1, bitorder="little")[:, :bits]
    packed = pack_bits(codes.astype(np.int64), bits)
    np.testing.assert_array_equal(packed, np.packbits(each.ravel(), bitorder="little"))
    assert packed.nbytes == -(-len(codes) * bits // 8)
    np.testing.assert_array_equal(unpack_bits(packed, bits, len(codes)), codes)


STORED = quantize(np.ones((3, 4), np.float32), UniformQuantization(4))


def read(header={}, **parts):  # noqa: B006
    return read_tensor("uniform", STORED.header() | header, STORED.arrays() | parts).decode()


def encode(values):
    return quantize(np.array(values), UniformQuantization(2))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: UniformQuantization(1), ValueError, "bits is 1"),
        (lambda: UniformQuantization(4.0), TypeError, "bits is 4.0"),
        (lambda: UniformQuantization(4, "channel"), ValueError, "granularity is 'channel'"),
        (lambda: UniformQuantization(4, scale_search="best"), ValueError, "scale_search is 'best'"),
        (lambda: UniformQuantization(4, scale_dtype="int8"), ValueError, "scale_dtype is 'int8'"),
        (lambda: UniformQuantization(4, symmetric=1), TypeError, "symmetric is 1"),
        (lambda: encode([[1, np.nan]]), ValueError, "values holds 1 NaN"),
        (lambda: encode([[1, np.inf]]), ValueError, "values holds 1 NaN"),
        (lambda: encode(np.zeros((0, 3))), ValueError, "at least one number"),
        (lambda: encode([[1, 2]]), TypeError, "values is of type int64"),
        (lambda: encode(3.0), ValueError, r"values has shape \(\)"),
        (lambda: read(codes=STORED.arrays()["codes"][:-1]), ValueError, "expected 6 bytes"),
        (lambda: read(scale=np.ones((2, 1))), ValueError, ""),
        (lambda: read({"shiny": 1}), ValueError, "setting 'shiny'"),
        (lambda: pack_bits([4], 2), ValueError, "codes reach 4"),
        (lambda: pack_bits([-1], 2), ValueError, "codes reach -1"),
        (lambda: pack_bits([0.5], 2), TypeError, "codes is of type float64"),
        (lambda: pack_bits([0], 9), ValueError, "bits is 9"),
    ],
)
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()
