"""Fake quantization against TensorFlow's own operations, and the gradient of a scale."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_lib.compression.quantization.fake_quant import (
    Grid,
    code_range,
    fake_quant,
    fake_quant_codes,
    nudged_grid,
    quantize_to_grid,
    symmetric_scales,
)


def gradients(function, *inputs):
    import tensorflow as tf

    tensors = [tf.constant(values) for values in inputs]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        result = function(*tensors)
    return result.numpy(), [g.numpy() for g in tape.gradient(result, tensors)]


def assert_same(ours, theirs, x, scale, lowest):
    """Equal to the last bits; a step apart only where x lies in the middle of two steps."""
    apart = np.abs(ours - theirs) > 1e-4 * scale
    middle = np.abs(np.modf((x - lowest) / scale)[0] - 0.5) < 1e-4
    assert not (apart & ~middle).any()
    assert np.all(np.abs(ours - theirs) <= 1.00001 * scale)
    assert apart.mean() < 1e-3


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("bits", range(2, 9))
def test_per_tensor_is_tensorflows(bits, narrow):
    import tensorflow as tf

    random = np.random.default_rng(bits)
    for _ in range(5):
        x = random.normal(0, 1, 5000).astype(np.float32)
        low, high = -random.uniform(0, 2.5), random.uniform(0.1, 2.5)
        grid = nudged_grid(low, high, bits, narrow=narrow)

        def theirs(t, low=low, high=high):
            return tf.quantization.fake_quant_with_min_max_vars(t, low, high, bits, narrow)

        def ours(t, grid=grid):
            return fake_quant(t, grid.scale, grid.zero_point, bits, narrow=narrow)

        expected, (expected_gradient,) = gradients(theirs, x)
        values, (gradient,) = gradients(ours, x)
        lowest = (grid.low - grid.zero_point) * grid.scale
        assert_same(values, expected, x, grid.scale, lowest)
        np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-6)
        assert 0 < gradient.sum() < len(x)  # some inside, some outside


@pytest.mark.parametrize("bits", range(2, 9))
def test_per_channel_is_tensorflows(bits):
    import tensorflow as tf

    random = np.random.default_rng(bits)
    x = random.normal(0, 1, (400, 16)).astype(np.float32)
    low = -random.uniform(0, 2.5, 16).astype(np.float32)
    high = random.uniform(0.1, 2.5, 16).astype(np.float32)
    grid = nudged_grid(low, high, bits)
    expected, (expected_gradient,) = gradients(
        lambda t: tf.quantization.fake_quant_with_min_max_vars_per_channel(t, low, high, bits), x
    )
    values, (gradient,) = gradients(lambda t: fake_quant(t, grid.scale, grid.zero_point, bits), x)
    assert_same(values, expected, x, grid.scale, (grid.low - grid.zero_point) * grid.scale)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-6)


def test_gradient_of_the_scale_is_that_of_learned_step_sizes():
    """Esser et al. 2020, equation 3, by hand: round(v) - v inside, the end codes outside."""
    x = np.float32([-3.0, -0.3, 0.2, 0.65, 9.0])
    _, (_, gradient) = gradients(lambda t, s: fake_quant(t, s, bits=3), x, np.float32(0.5))
    inside = [0.6 - 1, 0 - 0.4, 1 - 1.3]  # x / scale = -0.6, 0.4, 1.3
    assert gradient == pytest.approx(-4 + inside[0] + inside[1] + inside[2] + 3, abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=30),
    st.integers(2, 8),
)
def test_half_a_step_and_zero_stays_zero(values, bits):
    x = np.array([*values, 0.0], np.float32)
    grid = nudged_grid(min(x.min(), 0), max(x.max(), 0), bits)
    rounded = (quantize_to_grid(x, grid) - grid.zero_point) * grid.scale
    assert rounded[-1] == 0
    lowest = (grid.low - grid.zero_point) * grid.scale
    highest = (grid.high - grid.zero_point) * grid.scale
    inside = (x >= lowest) & (x <= highest)
    assert np.all(np.abs(rounded - x)[inside] <= grid.scale * 0.5001)
    # The range moves by at most half a step, so nothing is ever farther away than a step.
    assert np.all(np.abs(rounded - x) <= grid.scale * 1.0001)


def test_scales_of_rows_and_columns():
    weights = np.float32([[1, -2, 0], [0, 0, 0], [4, 7, 0]])
    assert symmetric_scales(weights, 4, "row").ravel().tolist() == pytest.approx([2 / 7, 1, 1])
    assert symmetric_scales(weights, 4, "column").shape == (1, 3)
    assert symmetric_scales(np.zeros((2, 2), np.float32), 4, "row").ravel().tolist() == [1, 1]
    heavy = np.random.default_rng(0).standard_t(2, (5, 400)).astype(np.float32)

    def error(search):
        scale = symmetric_scales(heavy, 3, "row", search)
        grid = Grid(scale, 0, *code_range(3, narrow=True))
        return np.square(heavy - quantize_to_grid(heavy, grid) * scale).sum()

    assert error("mse") < 0.9 * error("minmax")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.5, 2.0, 8), "expected finite minimum <= 0"),
        ((-1.0, float("nan"), 8), "expected finite"),
        (([-1.0], [[1.0]], 8), "expected one"),
        ((-1.0, 1.0, 9), "bits is 9"),
    ],
)
def test_bad_ranges(arguments, message):
    with pytest.raises(ValueError, match=message):
        nudged_grid(*arguments)


def test_an_empty_range_is_defined():
    grid = nudged_grid(0.0, 0.0)
    assert (grid.scale, int(grid.zero_point)) == (1, -128)
    assert quantize_to_grid([0.0], grid).tolist() == [-128]


@pytest.mark.parametrize("per_channel", [False, True])
def test_kernels_are_rounded_as_tfmot_rounds_them(per_channel):
    """TFMOT's weight quantizer: symmetric, narrow, the range of the last batch."""
    import keras  # noqa: F401 (before TFMOT, which would make tf.keras the old one)
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot
    import tf_keras

    kernel = np.random.default_rng(0).normal(0, 0.3, (40, 12)).astype(np.float32)
    quantizer = tfmot.quantization.keras.quantizers.LastValueQuantizer(
        num_bits=8, per_axis=per_channel, symmetric=True, narrow_range=True
    )
    layer = tf_keras.layers.Dense(12)
    ranges = quantizer.build(kernel.shape, "kernel", layer)
    expected = quantizer(tf.constant(kernel), training=True, weights=ranges).numpy()
    groups = kernel if per_channel else kernel.reshape(-1, 1)
    scale = symmetric_scales(groups, 8, "column")
    rounded = fake_quant(kernel, scale, 0, 8, narrow=True).numpy()
    assert_same(rounded, expected, kernel, scale, -127 * scale)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_codes_are_whole_numbers_in_a_compiled_graph(jit_compile):
    """Grappler adds in another order; written as x + (floor(x + 1/2) - x), an eighth is broken."""
    import tensorflow as tf

    grid = Grid(np.float32(0.0225), np.float32(-97), -128, 127)
    x = np.random.default_rng(1).normal(0, 1.2, 100_000).astype(np.float32)

    def naive(t):
        lowest = (grid.low - grid.zero_point) * grid.scale
        highest = (grid.high - grid.zero_point) * grid.scale
        steps = (tf.clip_by_value(t, lowest, highest) - lowest) * (1 / grid.scale)
        whole = steps + tf.stop_gradient(tf.floor(steps + 0.5) - steps)
        return whole + (grid.low - grid.zero_point)

    def compiled(function):
        graph = tf.function(function, autograph=False, jit_compile=jit_compile)
        return graph(tf.constant(x)).numpy()

    codes = compiled(lambda t: fake_quant_codes(t, grid))
    np.testing.assert_array_equal(codes, np.round(codes))
    assert (codes != fake_quant_codes(x, grid).numpy()).mean() < 1e-4
    np.testing.assert_array_equal(codes + grid.zero_point, quantize_to_grid(x, grid))
    if not jit_compile:
        broken = compiled(naive)
        assert (broken != np.round(broken)).mean() > 0.01
