"""Uniform quantization: half a step, zero, constant rows, and TensorFlow's opinion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from recsys_lib.compression import read_tensor
from recsys_lib.compression.quantization import UniformQuantization, quantize_uniform

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
    stored = quantize_uniform(values, config)
    decoded, step = stored.decode(), stored.scale.astype(np.float64)
    rounding = 1e-6 * np.abs(values).max()  # of the arithmetic in float32
    assert (np.abs(decoded - values) <= step * 0.5 + rounding).all()


@given(tables, configs)
@settings(max_examples=100, deadline=None)
def test_the_stored_form_says_what_it_decodes_to(values, config) -> None:
    stored = quantize_uniform(values, config)
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
    decoded = quantize_uniform(values, config).decode()
    assert np.isfinite(decoded).all()
    if config.symmetric or config.exact_zero:
        assert (decoded[values == 0] == 0).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rounding_twice_changes_nothing(form: dict, bits: int) -> None:
    config = UniformQuantization(bits, "row", scale_dtype="float32", **form)
    once = quantize_uniform(RANDOM.normal(size=(20, 50)).astype(np.float32), config).decode()
    twice = quantize_uniform(once, config).decode()
    np.testing.assert_allclose(twice, once, rtol=0, atol=2e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("search", ["minmax", "mse"])  # clipping for good costs what it costs
@pytest.mark.parametrize("granularity", ["tensor", "row", "column"])
def test_more_bits_are_never_worse(form: dict, search: str, granularity: str) -> None:
    table = RANDOM.standard_t(4, size=(40, 60)).astype(np.float32)
    config = UniformQuantization(2, granularity, scale_search=search, **form)
    errors = [
        np.linalg.norm(quantize_uniform(table, replace(config, bits=bits)).decode() - table)
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
        decoded = quantize_uniform(table, config).decode()
        assert (decoded[0] == 0).all()
        relative = 1e-6 if dtype == "float32" else 1e-3
        np.testing.assert_allclose(decoded[1:3], table[1:3], rtol=relative)
        np.testing.assert_allclose(decoded[3], table[3], atol=1e-7)


def test_an_asymmetric_constant_row_is_exact_in_float32() -> None:
    table = RANDOM.normal(size=(50, 1)).astype(np.float32) * np.ones((1, 7), np.float32)
    stored = quantize_uniform(table, UniformQuantization(3, "row", scale_dtype="float32"))
    np.testing.assert_array_equal(stored.decode(), table)
    assert (stored.scale == 0).all() and (stored.codes == 0).all()


def test_bytes_are_those_of_codes_scales_and_header() -> None:
    table = RANDOM.normal(size=(100, 192)).astype(np.float32)
    for bits in range(2, 9):
        stored = quantize_uniform(table, UniformQuantization(bits, "row"))
        arrays_ = stored.arrays()
        assert arrays_["codes"].nbytes == 100 * 192 * bits // 8
        assert arrays_["scale"].nbytes == arrays_["offset"].nbytes == 200
        assert stored.nbytes - sum(a.nbytes for a in arrays_.values()) < 250
    exact = quantize_uniform(table, UniformQuantization(4, "row", exact_zero=True))
    assert exact.arrays()["offset"].nbytes == 100  # one byte
    assert "offset" not in quantize_uniform(table, UniformQuantization(symmetric=True)).arrays()


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
            decoded = quantize_uniform(table, config).decode()
            np.testing.assert_allclose(decoded, expected, rtol=0, atol=1e-6)


def test_exact_zero_is_tensorflows_fake_quant() -> None:
    import tensorflow as tf

    table = (RANDOM.normal(size=(30, 17)) + 0.7).astype(np.float32)
    for bits in range(2, 9):
        config = UniformQuantization(bits, "tensor", exact_zero=True, scale_dtype="float32")
        low, high = min(table.min(), 0), max(table.max(), 0)
        expected = tf.quantization.fake_quant_with_min_max_vars(table, low, high, num_bits=bits)
        decoded = quantize_uniform(table, config).decode()
        np.testing.assert_allclose(decoded, expected.numpy(), rtol=0, atol=2e-6)
        low, high = np.minimum(table.min(axis=0), 0), np.maximum(table.max(axis=0), 0)
        expected = tf.quantization.fake_quant_with_min_max_vars_per_channel(
            table, low, high, num_bits=bits
        )
        decoded = quantize_uniform(table, replace(config, granularity="column")).decode()
        np.testing.assert_allclose(decoded, expected.numpy(), rtol=0, atol=2e-6)


def test_columns_are_rows_of_the_transpose() -> None:
    table = RANDOM.normal(size=(12, 7)).astype(np.float32)
    by_column = quantize_uniform(table, UniformQuantization(3, "column"))
    by_row = quantize_uniform(np.ascontiguousarray(table.T), UniformQuantization(3, "row"))
    np.testing.assert_array_equal(by_column.decode(), by_row.decode().T)
    assert by_column.scale.shape == (1, 7) and by_row.scale.shape == (7, 1)


def test_what_is_given_stays_as_it_is() -> None:
    table = RANDOM.normal(size=(5, 6)).astype(np.float32)
    before = table.copy()
    quantize_uniform(table, UniformQuantization(2, scale_search="mse"))
    np.testing.assert_array_equal(table, before)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"bits": 1}, ValueError, "bits is 1: expected an integer from 2 to 8"),
        ({"bits": 9}, ValueError, "bits is 9: expected an integer from 2 to 8"),
        ({"bits": 4.0}, TypeError, "bits is 4.0"),
        ({"granularity": "channel"}, ValueError, "granularity is 'channel': expected one of"),
        ({"scale_search": "best"}, ValueError, "scale_search is 'best'"),
        ({"scale_dtype": "int8"}, ValueError, "scale_dtype is 'int8'"),
        ({"symmetric": 1}, TypeError, "symmetric is 1: expected True or False"),
        ({"exact_zero": None}, TypeError, "exact_zero is None"),
        ({"percentile": 101}, ValueError, "percentile is 101"),
        ({"percentile": 50}, ValueError, "percentile is 50"),
    ],
)
def test_a_wrong_config_is_refused(options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        UniformQuantization(**options)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (np.float32([[1, np.nan]]), ValueError, "values holds 1 NaN or infinite values of 2"),
        (np.float32([[1, np.inf]]), ValueError, "values holds 1 NaN or infinite"),
        (np.zeros((0, 3), np.float32), ValueError, "expected at least one number"),
        (np.int64([[1, 2]]), TypeError, "values is of type int64"),
        (np.float32(3), ValueError, r"values has shape \(\)"),
        (np.float32([[0, 1e7]]), ValueError, "expected at most 65504 for scale_dtype 'float16'"),
    ],
)
def test_values_that_cannot_be_rounded_are_refused(values, error, message) -> None:
    with pytest.raises(error, match=message):
        quantize_uniform(values, UniformQuantization(2))


def test_parts_that_do_not_fit_are_refused() -> None:
    stored = quantize_uniform(np.ones((3, 4), np.float32), UniformQuantization(4))
    parts = stored.arrays()
    with pytest.raises(ValueError, match="expected 6 bytes"):
        read_tensor("uniform", stored.header(), parts | {"codes": parts["codes"][:-1]})
    with pytest.raises(ValueError, match="scale and offset have the shapes"):
        read_tensor("uniform", stored.header(), parts | {"scale": np.ones((2, 1))})
