"""Ranges: the search finds (nearly) what brute force finds."""

from __future__ import annotations

import numpy as np
import pytest

from recsys_lib.compression.quantization import UniformQuantization, quantize_uniform
from recsys_lib.compression.quantization.scales import find_range, squared_error

RANDOM = np.random.default_rng(0)
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
    decoded = quantize_uniform(ROWS, config).decode().astype(np.float64)
    low, high = find_range(ROWS, 3, symmetric=False, search="minmax")
    expected = ((decoded - ROWS) ** 2).sum(axis=1)
    np.testing.assert_allclose(squared_error(ROWS, low, high, 7), expected, rtol=1e-3)


def test_percentiles_leave_the_outermost_out() -> None:
    row = np.arange(1001, dtype=np.float32)[None]
    low, high = find_range(row, 8, symmetric=False, search="percentile", percentile=99)
    assert (low[0], high[0]) == pytest.approx((10, 990))
    low, high = find_range(row - 400, 8, symmetric=True, search="percentile", percentile=100)
    assert (low[0], high[0]) == (-600, 600)


def test_groups_are_searched_independently_of_the_piece_they_are_in() -> None:
    table = RANDOM.normal(size=(1000, 192)).astype(np.float32)  # several pieces
    low, high = find_range(table, 4, symmetric=False, search="mse")
    for row in (0, 340, 341, 999):
        alone = find_range(table[row : row + 1], 4, symmetric=False, search="mse")
        assert (alone[0][0], alone[1][0]) == (low[row], high[row])


@pytest.mark.parametrize("search", ["minmax", "percentile", "mse"])
def test_clipping_helps_at_few_bits_and_not_at_eight(search: str) -> None:
    errors = {}
    for bits in (2, 8):
        config = UniformQuantization(bits, "row", scale_search=search)
        errors[bits] = np.linalg.norm(quantize_uniform(ROWS, config).decode() - ROWS)
        plain = quantize_uniform(ROWS, UniformQuantization(bits, "row")).decode() - ROWS
        errors[bits] /= np.linalg.norm(plain)
    assert errors[2] < {"minmax": 1.001, "percentile": 1.001, "mse": 0.75}[search]
    assert errors[8] < {"minmax": 1.001, "percentile": 10, "mse": 1.01}[search]
