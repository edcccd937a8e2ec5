"""Context coding loses nothing, and gets near the entropy of the law that the numbers follow."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recsys_lib.compression.quantization.context_coding import ContextCodedTensor, fit_spread

from recsys_lib.compression import read_tensor
from recsys_lib.compression.quantization.entropy import EntropyCodedTensor, EntropyCoding
from recsys_lib.compression.quantization.transform import SteppedTensor

RANDOM = np.random.default_rng(0)


def geometric(rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, float]:
    """Draw two-sided geometric numbers of given mean size; and their entropy in bits."""
    mean = rows[:, None] * columns
    t = (np.sqrt(1 + mean**2) - 1) / mean
    numbers = RANDOM.geometric(1 - t) - RANDOM.geometric(1 - t)
    zero = (1 - t) / (1 + t)
    return numbers, float(-(np.log2(zero) + mean * np.log2(t)).sum())


def through_bytes(tensor: ContextCodedTensor) -> ContextCodedTensor:
    header = json.loads(json.dumps(tensor.header()))
    arrays = {
        name: np.frombuffer(array.tobytes(), array.dtype) for name, array in tensor.arrays().items()
    }
    again = read_tensor(tensor.kind, header, arrays)
    assert isinstance(again, ContextCodedTensor)
    return again


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 2000), st.integers(0, 2**32 - 1))
def test_every_table_comes_back_bit_by_bit(rows: int, columns: int, top: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole = rng.integers(-top, top + 1, (rows, columns)) * (rng.random((rows, columns)) < 0.3)
    tensor = ContextCodedTensor(whole, rng.uniform(0.1, 1, columns))
    again = through_bytes(tensor)
    np.testing.assert_array_equal(again.whole, whole)
    np.testing.assert_array_equal(again.decode(), tensor.decode())
    assert again.nbytes == tensor.nbytes


def test_within_a_few_percent_of_the_entropy() -> None:
    numbers, bits = geometric(2.0 ** RANDOM.uniform(-3, 3, 4000), 2.0 ** RANDOM.uniform(-3, 1, 64))
    tensor = ContextCodedTensor(numbers, np.ones(64))
    assert bits / 8 < tensor.nbytes < 1.08 * bits / 8  # row levels included


def test_rows_of_different_size_are_worth_contexts() -> None:
    numbers, _ = geometric(2.0 ** RANDOM.uniform(-3, 3, 4000), np.full(32, 0.5))
    plain = SteppedTensor(numbers - numbers.min(0), numbers.min(0), np.ones(32))
    by_column = EntropyCodedTensor(plain, EntropyCoding(contexts="column"))
    assert ContextCodedTensor(numbers, np.ones(32)).nbytes < 0.9 * by_column.nbytes


def test_row_levels_are_left_out_where_they_do_not_pay() -> None:
    even, _ = geometric(np.ones(3000), np.full(4, 0.5))
    uneven, _ = geometric(2.0 ** RANDOM.uniform(-4, 4, 3000), np.full(32, 0.5))
    assert "row_words" not in ContextCodedTensor(even, np.ones(4)).arrays()
    assert "row_words" in ContextCodedTensor(uneven, np.ones(32)).arrays()


def test_spread_finds_the_factors_of_rows_and_columns() -> None:
    rows, columns = 2.0 ** RANDOM.uniform(-1, 2, 50), 2.0 ** RANDOM.uniform(-1, 2, 400)
    numbers, _ = geometric(rows, columns)
    found = fit_spread(numbers)
    assert np.corrcoef(np.log(found.rows), np.log(rows))[0, 1] > 0.95
    assert np.corrcoef(np.log(found.columns), np.log(columns))[0, 1] > 0.9
    assert (fit_spread(np.zeros((3, 2))).columns > 0).all()
    np.testing.assert_array_equal(fit_spread(numbers, by_row=False).rows, 1)


def test_steps_are_within_half_precision() -> None:
    steps = RANDOM.uniform(1e-6, 1e-5, 6)
    whole = RANDOM.integers(-5, 6, (20, 6))
    decoded = ContextCodedTensor(whole, steps).decode()
    np.testing.assert_allclose(decoded, whole * steps, rtol=2**-10)


def test_damage_is_found() -> None:
    numbers, _ = geometric(np.ones(500), np.ones(8))
    tensor = ContextCodedTensor(numbers, np.ones(8))
    for name in ("words", "counts", "steps", "columns"):
        with pytest.raises(ValueError):
            read_tensor(
                "context", tensor.header(), tensor.arrays() | {name: tensor.arrays()[name][:-1]}
            )


def test_bad_input_is_named() -> None:
    with pytest.raises(TypeError, match="whole is of type float64: expected integers"):
        ContextCodedTensor(np.ones((2, 2)), np.ones(2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"whole has shape \(2,\)"):
        ContextCodedTensor(np.ones(2, int), np.ones(2))
    with pytest.raises(ValueError, match=r"steps has shape \(3,\)"):
        ContextCodedTensor(np.ones((2, 2), int), np.ones(3))
    with pytest.raises(ValueError, match="whole reaches 2001: expected at most 2000"):
        ContextCodedTensor(np.full((2, 2), -2001), np.ones(2))
    with pytest.raises(ValueError, match=r"steps has 0\.0"):
        ContextCodedTensor(np.ones((2, 2), int), np.array([0.0, 1.0]))
