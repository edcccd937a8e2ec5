"""Codebooks: fewer bits, stored truly, and never worse than a uniform grid of as many values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_lib.compression.quantization.codebooks import (
    CodebookQuantization,
    CodebookTensor,
    quantize_codebook,
)
from recsys_lib.compression.quantization.uniform import UniformQuantization, quantize_uniform
from recsys_lib.compression.tensors import read_tensor


def heavy_tailed(shape: tuple[int, ...] = (400, 20)) -> np.ndarray:
    return np.random.default_rng(0).standard_t(3, shape).astype(np.float32)


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_less_error_than_a_uniform_grid_of_as_many_values(bits: int) -> None:
    values = heavy_tailed()
    ours = quantize_codebook(values, CodebookQuantization(bits, dtype="float32")).decode()
    uniform = quantize_uniform(
        values, UniformQuantization(bits, granularity="tensor", scale_search="mse")
    ).decode()
    assert ((ours - values) ** 2).sum() < 0.8 * ((uniform - values) ** 2).sum()


def test_a_codebook_for_each_group_of_columns() -> None:
    values = heavy_tailed((300, 9)) * np.arange(1, 10, dtype=np.float32)
    one = quantize_codebook(values, CodebookQuantization(3))
    many = quantize_codebook(values, CodebookQuantization(3, columns_per_codebook=4))
    assert one.codebooks.shape == (1, 8) and many.codebooks.shape == (3, 8)
    assert ((many.decode() - values) ** 2).sum() < ((one.decode() - values) ** 2).sum()
    alone = quantize_codebook(values[:, 4:8].copy(), CodebookQuantization(3))
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
    tensor = quantize_codebook(values, CodebookQuantization(bits, columns, dtype="float32"))
    assert tensor.decode().shape == values.shape
    again = read_tensor(tensor.kind, tensor.header(), tensor.arrays())
    np.testing.assert_array_equal(again.decode(), tensor.decode())
    if values.size <= 1 << bits:  # every value has a code of its own
        np.testing.assert_array_equal(tensor.decode(), values)


def test_stored_bytes_are_codes_codebook_and_header() -> None:
    tensor = quantize_codebook(heavy_tailed((256, 32)), CodebookQuantization(3))
    arrays = tensor.arrays()
    assert arrays["codes"].nbytes == 256 * 32 * 3 // 8
    assert arrays["codebooks"].nbytes == 8 * 2
    assert 0 < tensor.nbytes - 256 * 32 * 3 // 8 - 16 < 100


def test_zeros_stay_zeros_and_equal_values_stay_equal() -> None:
    for value in (0.0, -2.5):
        stored = quantize_codebook(np.full((4, 3), value, np.float32), CodebookQuantization(2))
        assert (stored.decode() == value).all()


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="bits is 0"):
        CodebookQuantization(bits=0)
    with pytest.raises(ValueError, match="columns_per_codebook is 0"):
        CodebookQuantization(columns_per_codebook=0)
    with pytest.raises(ValueError, match="dtype is 'int8'"):
        CodebookQuantization(dtype="int8")
    with pytest.raises(ValueError, match="NaN"):
        quantize_codebook([1.0, float("nan")], CodebookQuantization())
    with pytest.raises(TypeError, match="floating-point"):
        quantize_codebook(np.arange(4), CodebookQuantization())
    with pytest.raises(ValueError, match="too large for float16"):
        quantize_codebook(np.float32([1e6, 0]), CodebookQuantization())
    with pytest.raises(ValueError, match="codes: expected integers from 0 to 1"):
        CodebookTensor(np.array([2]), np.float32([[0, 1]]), 1)
    with pytest.raises(ValueError, match="expected 2 rows"):
        CodebookTensor(np.array([[0, 1]]), np.float32([[0, 1]]), 1, columns_per_codebook=1)
