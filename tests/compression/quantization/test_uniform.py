"""Uniform quantization: half a step, zero, constant rows, ranges, and TensorFlow's opinion."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from recsys_lib.compression.quantization import UniformQuantization, pack_bits, quantize
from recsys_lib.compression.quantization.uniform import (
    UniformTensor,
    find_range,
    squared_error,
    unpack_bits,
)
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
def test_every_value_is_within_half_a_step(values: np.ndarray, config: UniformQuantization) -> None:
    stored = quantize(values, config)
    decoded, step = stored.decode(), stored.scale.astype(np.float64)
    rounding = 1e-6 * np.abs(values).max()  # of the arithmetic in float32
    assert (np.abs(decoded - values) <= step * 0.5 + rounding).all()


@given(tables, configs)
@settings(max_examples=100, deadline=None)
def test_the_stored_form_says_what_it_decodes_to(values, config) -> None:
    stored = quantize(values, config)
    decoded = stored.decode()
    codes, scale = stored.codes.astype(np.float32), stored.scale.astype(np.float32)
    expected = scale * (codes - stored.zero_point)
    if stored.offset is not None:
        expected = np.where(scale > 0, expected, stored.offset.astype(np.float32))
    np.testing.assert_allclose(decoded, expected, rtol=1e-4, atol=1e-5 * np.abs(values).max())
    again = read_tensor(stored.kind, stored.header(), stored.arrays())
    np.testing.assert_array_equal(again.decode(), decoded)
    assert again.nbytes == stored.nbytes


@given(tables, configs)
@settings(max_examples=100, deadline=None)
def test_zeros_stay_zeros_where_that_is_promised(values, config) -> None:
    values = values.copy()
    values.reshape(-1)[::2] = 0
    decoded = quantize(values, config).decode()
    assert np.isfinite(decoded).all()
    if config.symmetric or config.exact_zero:
        assert (decoded[values == 0] == 0).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("search", ["minmax", "mse"])  # clipping for good costs what it costs
@pytest.mark.parametrize("granularity", ["tensor", "row", "column"])
def test_more_bits_are_never_worse(form: dict, search: str, granularity: str) -> None:
    table = RANDOM.standard_t(4, size=(40, 60)).astype(np.float32)
    config = UniformQuantization(2, granularity, scale_search=search, **form)
    errors = [
        np.linalg.norm(quantize(table, replace(config, bits=bits)).decode() - table)
        for bits in range(2, 9)
    ]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("search", ["minmax", "percentile", "mse"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_constant_rows_come_back(form: dict, search: str, dtype: str) -> None:
    """Scale 0 must not become 0 / 0: NaN scores once gave a hit rate of 1."""
    table = np.float32([[0, 0, 0], [0.1, 0.1, 0.1], [-3, -3, -3], [1e-6, 1e-6, 1e-6], [1, 2, 4]])
    for bits in (2, 8):
        config = UniformQuantization(bits, "row", scale_search=search, scale_dtype=dtype, **form)
        decoded = quantize(table, config).decode()
        assert (decoded[0] == 0).all()
        relative = 1e-6 if dtype == "float32" else 1e-3
        np.testing.assert_allclose(decoded[1:3], table[1:3], rtol=relative)
        np.testing.assert_allclose(decoded[3], table[3], atol=1e-7)


def test_bytes_are_those_of_codes_scales_and_header() -> None:
    table = RANDOM.normal(size=(100, 192)).astype(np.float32)
    for bits in range(2, 9):
        stored = quantize(table, UniformQuantization(bits, "row"))
        arrays_ = stored.arrays()
        assert arrays_["codes"].nbytes == 100 * 192 * bits // 8
        assert arrays_["scale"].nbytes == arrays_["offset"].nbytes == 200
        assert stored.nbytes - sum(a.nbytes for a in arrays_.values()) < 250
    exact = quantize(table, UniformQuantization(4, "row", exact_zero=True))
    assert exact.arrays()["offset"].nbytes == 100  # one byte
    assert "offset" not in quantize(table, UniformQuantization(symmetric=True)).arrays()


def assert_equal_but_for_ties(stored: UniformTensor, expected: np.ndarray) -> None:
    """A step apart at most, and that only where the last bit decides between two."""
    apart = np.abs(stored.decode() - expected)
    assert (apart <= 1.001 * stored.scale).all() and (apart > 2e-6).mean() < 0.005


def test_symmetric_is_tensorflows_quantize_and_dequantize() -> None:
    import tensorflow as tf

    table = RANDOM.normal(size=(30, 17)).astype(np.float32)
    for bits in range(2, 9):
        for granularity, axis in (("tensor", -1), ("row", 0), ("column", 1)):
            zeros = np.zeros(() if axis < 0 else table.shape[axis], np.float32)
            expected = tf.raw_ops.QuantizeAndDequantizeV4(
                input=table, input_min=zeros, input_max=zeros, signed_input=True,
                range_given=False, num_bits=bits, round_mode="HALF_TO_EVEN", narrow_range=True,
                axis=axis,
            ).numpy()  # fmt: skip
            config = UniformQuantization(bits, granularity, symmetric=True, scale_dtype="float32")
            assert_equal_but_for_ties(quantize(table, config), expected)


def test_exact_zero_is_tensorflows_fake_quant() -> None:
    import tensorflow as tf

    table = (RANDOM.normal(size=(30, 17)) + 0.7).astype(np.float32)
    for bits in range(2, 9):
        config = UniformQuantization(bits, "tensor", exact_zero=True, scale_dtype="float32")
        low, high = min(table.min(), 0), max(table.max(), 0)
        expected = tf.quantization.fake_quant_with_min_max_vars(table, low, high, num_bits=bits)
        assert_equal_but_for_ties(quantize(table, config), expected.numpy())
        low, high = np.minimum(table.min(axis=0), 0), np.maximum(table.max(axis=0), 0)
        expected = tf.quantization.fake_quant_with_min_max_vars_per_channel(
            table, low, high, num_bits=bits
        )
        by_column = quantize(table, replace(config, granularity="column"))
        assert_equal_but_for_ties(by_column, expected.numpy())


@pytest.mark.parametrize("size", [1e-7, 1e-30, 1e5])
@pytest.mark.parametrize("form", FORMS)
def test_tables_beyond_float16_keep_their_precision(size: float, form: dict) -> None:
    table = RANDOM.normal(size=(50, 16)).astype(np.float32)
    decoded = quantize(table * np.float32(size), UniformQuantization(8, **form)).decode() / size
    assert np.linalg.norm(decoded - table) < 0.01 * np.linalg.norm(table)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"bits": 1}, ValueError, "bits is 1"),
        ({"bits": 4.0}, TypeError, "bits is 4.0"),
        ({"granularity": "channel"}, ValueError, "granularity is 'channel'"),
        ({"scale_search": "best"}, ValueError, "scale_search is 'best'"),
        ({"scale_dtype": "int8"}, ValueError, "scale_dtype is 'int8'"),
        ({"symmetric": 1}, TypeError, "symmetric is 1"),
    ],
)
def test_a_wrong_config_is_refused(options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        UniformQuantization(**options)


def test_numpy_scalars_become_pythons() -> None:
    config = UniformQuantization(np.int64(4), symmetric=np.True_)
    stored = quantize(np.ones((2, 3), np.float32), config)
    assert json.loads(json.dumps(stored.header())) == stored.header()
    assert config == UniformQuantization(4, symmetric=True)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (np.float32([[1, np.nan]]), ValueError, "values holds 1 NaN"),
        (np.float32([[1, np.inf]]), ValueError, "values holds 1 NaN"),
        (np.zeros((0, 3), np.float32), ValueError, "at least one number"),
        (np.int64([[1, 2]]), TypeError, "values is of type int64"),
        (np.array(3.0), ValueError, r"values has shape \(\)"),
    ],
)
def test_values_that_cannot_be_rounded_are_refused(values, error, message) -> None:
    with pytest.raises(error, match=message):
        quantize(values, UniformQuantization(2))


def test_parts_that_do_not_fit_are_refused() -> None:
    stored = quantize(np.ones((3, 4), np.float32), UniformQuantization(4))
    parts, header = stored.arrays(), stored.header()
    with pytest.raises(ValueError, match="expected 6 bytes"):
        read_tensor("uniform", header, parts | {"codes": parts["codes"][:-1]}).decode()
    with pytest.raises(ValueError):
        read_tensor("uniform", header, parts | {"scale": np.ones((2, 1))}).decode()
    with pytest.raises(ValueError, match="setting 'shiny'"):
        read_tensor("uniform", header | {"shiny": 1}, parts).decode()


ROWS = np.concatenate(
    [
        RANDOM.normal(size=(6, 192)),
        RANDOM.standard_t(3, size=(6, 192)),
        RANDOM.exponential(size=(6, 192)),  # skewed: one end only is worth clipping
    ]
).astype(np.float32)


def brute_force(row: np.ndarray, levels: int, symmetric: bool) -> float:
    """Give the smallest squared error over all pairs of ends on a fine grid."""
    low, high = row.min(), row.max()
    shares = np.linspace(0, 0.6, 61)
    best = np.inf
    for below in [0.0] if symmetric else shares:
        for above in shares:
            if symmetric:
                stop = np.abs(row).max() * (1 - above)
                start = -stop
            else:
                start, stop = low + below * (high - low), high - above * (high - low)
            if stop > start:
                ends = (np.float32([end]) for end in (start, stop))
                best = min(best, float(squared_error(row[None], *ends, levels)[0]))
    return best


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_search_is_close_to_the_optimum(bits: int, symmetric: bool) -> None:
    levels = 2**bits - (2 if symmetric else 1)
    low, high = find_range(ROWS, bits, symmetric=symmetric, search="mse")
    found = squared_error(ROWS, low, high, levels)
    whole = squared_error(
        ROWS, *find_range(ROWS, bits, symmetric=symmetric, search="minmax"), levels
    )
    optimum = np.array([brute_force(row, levels, symmetric) for row in ROWS])
    assert (found <= whole).all()
    assert found.sum() <= 1.03 * optimum.sum()
    assert (found <= 1.15 * optimum).all()
    assert (whole - found).sum() >= 0.85 * (whole - optimum).sum()


def test_the_squared_error_is_that_of_rounding() -> None:
    config = UniformQuantization(3, "row", scale_dtype="float32")
    decoded = quantize(ROWS, config).decode().astype(np.float64)
    low, high = find_range(ROWS, 3, symmetric=False, search="minmax")
    expected = ((decoded - ROWS) ** 2).sum(axis=1)
    np.testing.assert_allclose(squared_error(ROWS, low, high, 7), expected, rtol=1e-3)


def test_percentiles_leave_the_outermost_out() -> None:
    row = np.arange(1001, dtype=np.float32)[None]
    low, high = find_range(row, 8, symmetric=False, search="percentile", percentile=99)
    assert (low[0], high[0]) == pytest.approx((10, 990))
    low, high = find_range(row - 400, 8, symmetric=True, search="percentile", percentile=100)
    assert (low[0], high[0]) == (-600, 600)


@given(
    st.integers(1, 8).flatmap(lambda b: st.tuples(st.just(b), st.lists(st.integers(0, 2**b - 1))))
)
@settings(max_examples=100, deadline=None)
def test_packing_and_unpacking_is_the_identity(case: tuple[int, list[int]]) -> None:
    bits, codes = case
    packed = pack_bits(np.array(codes, np.int64), bits)
    assert packed.nbytes == -(-len(codes) * bits // 8)
    assert unpack_bits(packed, bits, len(codes)).tolist() == codes


@pytest.mark.parametrize("bits", range(1, 9))
def test_bits_lie_as_numpy_packs_them(bits: int) -> None:
    codes = np.random.default_rng(bits).integers(0, 2**bits, 1001).astype(np.uint8)
    each = np.unpackbits(codes[:, None], axis=1, bitorder="little", count=bits)
    expected = np.packbits(each.reshape(-1), bitorder="little")
    np.testing.assert_array_equal(pack_bits(codes, bits), expected)


@pytest.mark.parametrize(
    ("codes", "bits", "error", "message"),
    [
        ([4], 2, ValueError, "codes reach 4"),
        ([-1], 2, ValueError, "codes reach -1"),
        ([0.5], 2, TypeError, "codes is of type float64"),
        ([0], 9, ValueError, "bits is 9"),
    ],
)
def test_codes_that_do_not_fit_are_refused(codes, bits, error, message) -> None:
    with pytest.raises(error, match=message):
        pack_bits(codes, bits)
