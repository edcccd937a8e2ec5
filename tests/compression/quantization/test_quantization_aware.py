"""Fake quantization against TensorFlow's and TFMOT's, and models that train on rounded numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_lib.compression import named_weights, with_weights
from recsys_lib.compression.quantization import IntegerQuantization, convert, quantization_aware
from recsys_lib.compression.quantization.fake_quant import (
    Grid,
    code_range,
    fake_quant,
    fake_quant_codes,
    nudged_grid,
    quantize_to_grid,
    symmetric_scales,
)
from recsys_lib.data import Interactions
from recsys_lib.models import RatingModelConfig, build_rating_model
from recsys_lib.training import KerasRecommender, fit
from recsys_lib.training.forward import embedding_tables

KINDS = ("dot_product", "matrix_factorization", "two_tower", "mlp_ranker", "neumf")
NUM_USERS, NUM_ITEMS = 60, 80
IDS = [np.arange(60, dtype=np.int32), np.arange(20, 80, dtype=np.int32)]
QUIET = {"progress": False, "jit_compile": False}


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


@pytest.mark.parametrize("kind", ["whole", "narrow", "per channel"])
@pytest.mark.parametrize("bits", range(2, 9))
def test_values_and_gradients_are_tensorflows(bits, kind):
    from tensorflow import quantization as tf

    random, narrow = np.random.default_rng(bits), kind == "narrow"
    each = 16 if kind == "per channel" else ()
    their = getattr(tf, "fake_quant_with_min_max_vars" + ("_per_channel" if each else ""))
    for _ in range(4):
        x = random.normal(0, 1, (400, 16)).astype(np.float32)
        low = -np.float32(random.uniform(0, 2.5, each))
        high = np.float32(random.uniform(0.1, 2.5, each))
        grid = nudged_grid(low, high, bits, narrow=narrow)
        expected, (expected_gradient,) = gradients(
            lambda t, low=low, high=high: their(t, low, high, bits, narrow), x
        )
        values, (gradient,) = gradients(
            lambda t, g=grid: fake_quant(t, g.scale, g.zero_point, bits, narrow=narrow), x
        )
        assert_same(values, expected, x, grid.scale, (grid.low - grid.zero_point) * grid.scale)
        np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-6)
        assert 0 < gradient.sum() < x.size  # some inside, some outside


def test_gradient_of_the_scale_is_that_of_learned_step_sizes():
    """Esser et al. 2020, equation 3, by hand: round(v) - v inside, the end codes outside."""
    x = np.float32([-3.0, -0.3, 0.2, 0.65, 9.0])
    _, (_, gradient) = gradients(lambda t, s: fake_quant(t, s, bits=3), x, np.float32(0.5))
    inside = [0.6 - 1, 0 - 0.4, 1 - 1.3]  # x / scale = -0.6, 0.4, 1.3
    assert gradient == pytest.approx(-4 + sum(inside) + 3, abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=30), st.integers(2, 8))
def test_half_a_step_and_zero_stays_zero(values, bits):
    x = np.array([*values, 0.0], np.float32)
    grid = nudged_grid(min(x.min(), 0), max(x.max(), 0), bits)
    rounded = (quantize_to_grid(x, grid) - grid.zero_point) * grid.scale
    assert rounded[-1] == 0
    lowest, highest = ((end - grid.zero_point) * grid.scale for end in (grid.low, grid.high))
    inside = (x >= lowest) & (x <= highest)
    assert np.all(np.abs(rounded - x)[inside] <= grid.scale * 0.5001)
    # The range moves by at most half a step, so nothing is ever farther away than a step.
    assert np.all(np.abs(rounded - x) <= grid.scale * 1.0001)


def test_scales_of_rows_and_columns_and_of_an_empty_range():
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
    ranges = quantizer.build(kernel.shape, "kernel", tf_keras.layers.Dense(12))
    expected = quantizer(tf.constant(kernel), training=True, weights=ranges).numpy()
    scale = symmetric_scales(kernel if per_channel else kernel.reshape(-1, 1), 8, "column")
    rounded = fake_quant(kernel, scale, 0, 8, narrow=True).numpy()
    assert_same(rounded, expected, kernel, scale, -127 * scale)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_codes_are_whole_numbers_in_a_compiled_graph(jit_compile):
    """Grappler adds in another order; of x + (floor(x + 1/2) - x), an eighth would be broken."""
    import tensorflow as tf

    grid = Grid(np.float32(0.0225), np.float32(-97), -128, 127)
    x = np.random.default_rng(1).normal(0, 1.2, 100_000).astype(np.float32)
    graph = tf.function(lambda t: fake_quant_codes(t, grid), autograph=False,
                        jit_compile=jit_compile)  # fmt: skip
    codes = graph(tf.constant(x)).numpy()
    np.testing.assert_array_equal(codes, np.round(codes))
    assert (codes != fake_quant_codes(x, grid).numpy()).mean() < 1e-4
    np.testing.assert_array_equal(codes + grid.zero_point, quantize_to_grid(x, grid))


def build(kind="mlp_ranker", **options):
    return build_rating_model(RatingModelConfig(kind, NUM_USERS, NUM_ITEMS, 8, init_std=0.5,
                                                **options))  # fmt: skip


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    users, items = random.integers(0, NUM_USERS, 3000), random.integers(0, NUM_ITEMS, 3000)
    liked = (users % 4) == (items % 4)
    return Interactions(users[liked], items[liked], num_users=NUM_USERS, num_items=NUM_ITEMS)


@pytest.mark.parametrize("kind", KINDS)
def test_eight_bits_are_near_and_two_are_not(kind):
    model = build(kind)
    before, exact = named_weights(model), np.asarray(model(IDS))
    spread = {}
    for bits in (8, 4, 2):
        rounded = quantization_aware(model, IntegerQuantization(bits))
        spread[bits] = np.abs(np.asarray(rounded(IDS)) - exact).max() / np.abs(exact).max()
    assert spread[8] < 0.05 < spread[2]
    assert spread[8] < spread[4] < spread[2]
    after = named_weights(model)
    assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_training_recovers_what_rounding_loses(data):
    model = build(hidden_units=(16, 8))
    options = {"batch_size": 256, "optimizer": "adam", **QUIET}
    exact = fit(model, data, epochs=40, **options).loss[-1]
    start, aware = (quantization_aware(model, IntegerQuantization(bits=2)) for _ in range(2))
    run = fit(aware, data, epochs=20, **options)
    rounded = run.loss[0]  # of the first steps, so less than rounding really costs
    assert rounded > 1.1 * exact
    assert rounded - run.loss[-1] > 0.5 * (rounded - exact)
    before, after = named_weights(start), named_weights(aware)
    moved = [name for name in before if "scale" in name and (before[name] != after[name]).any()]
    assert len(moved) == 8  # 5 of weights, 3 of inputs


@pytest.mark.slow
def test_the_compiled_loop_is_the_same_with_and_without_xla(data):
    runs = []
    for jit in (False, True):
        aware = quantization_aware(build(hidden_units=(8,)), IntegerQuantization(bits=4))
        options = {**QUIET, "jit_compile": jit}
        runs.append(fit(aware, data, epochs=2, batch_size=512, optimizer="sgd", **options).loss)
    np.testing.assert_allclose(*runs, rtol=2e-3)


def test_the_compiled_loop_finds_tables_and_trains_all_but_zero_points(data):
    aware = quantization_aware(build("two_tower"), IntegerQuantization(bits=4))
    assert [side for _, side in embedding_tables(aware)] == ["users", "items"]
    before = named_weights(aware)
    fit(aware, data, epochs=1, batch_size=512, l2=0.01, **QUIET)
    same = {name for name, values in named_weights(aware).items() if (values == before[name]).all()}
    assert same == {
        f"{side}_dense_{end}_zero_point" for side in ("user", "item")
        for end in ("0/input", "1/input", "1/output")
    }  # fmt: skip


def test_keras_own_fit_clone_and_file(tmp_path, data):
    import keras

    aware = quantization_aware(build(), IntegerQuantization(bits=4))
    aware.compile("adam", "mse", jit_compile=False)
    before = aware.get_layer("dense_0").weight_log_scale.numpy().copy()
    aware.fit([data.user_ids, data.item_ids], np.ones(len(data)), epochs=1, verbose=0)
    assert not np.allclose(before, aware.get_layer("dense_0").weight_log_scale.numpy())
    clone = keras.models.clone_model(aware)
    clone.set_weights(aware.get_weights())
    aware.save(tmp_path / "aware.keras")
    loaded = keras.models.load_model(tmp_path / "aware.keras")
    for copy in (clone, loaded):
        np.testing.assert_array_equal(copy(IDS), aware(IDS))
    np.testing.assert_array_equal(convert(loaded).score(*IDS), convert(aware).score(*IDS))


@pytest.mark.slow
def test_zeros_of_a_pruned_model_stay(data):
    random = np.random.default_rng(0)
    model, zeros = build(), {}
    weights = named_weights(model)
    for name in [name for name, values in weights.items() if values.ndim == 2]:
        zeros[name] = random.random(weights[name].shape) < 0.8
        weights[name][zeros[name]] = 0
    pruned = with_weights(model, weights)
    kept = quantization_aware(pruned, IntegerQuantization(bits=4))
    lost = quantization_aware(pruned, IntegerQuantization(bits=4, keep_zeros=False))
    for aware in (kept, lost):
        fit(aware, data, epochs=2, batch_size=128, l2=0.001, **QUIET)
    stored = convert(kept).tensors
    for name, zero in zeros.items():
        assert not np.any(named_weights(kept)[name][zero])
        assert not np.any(stored[name].decode()[zero])
    left = np.mean(named_weights(lost)["dense_0/kernel"][zeros["dense_0/kernel"]] == 0)
    assert left < 0.1


def test_an_all_zero_channel_and_row_are_defined():
    model = build()
    weights = named_weights(model)
    weights["dense_0/kernel"][:, 3] = weights["item_embedding/embeddings"][7] = 0
    weights["dense_0/bias"][3] = 0.25
    aware = quantization_aware(with_weights(model, weights), IntegerQuantization(8))
    assert np.isfinite(np.asarray(aware(IDS))).all()
    new = named_weights(convert(aware).model)
    assert not new["dense_0/kernel"][:, 3].any()
    assert not new["item_embedding/embeddings"][7].any()
    assert new["dense_0/bias"][3] == pytest.approx(0.25, rel=0.01)


def test_recommenders_are_taken_too(data):
    config = RatingModelConfig("mlp_ranker", NUM_USERS, NUM_ITEMS, 4, hidden_units=(8,))
    recommender = KerasRecommender(config, epochs=1, progress=False).fit(data)
    aware = quantization_aware(recommender, IntegerQuantization(), data)
    np.testing.assert_allclose(aware(IDS), recommender.score(*IDS), atol=0.01)


def dense_model(width, *layers):
    """Build a Keras model of layers one after the other."""
    import keras

    inputs = outputs = keras.Input((width,))
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


def test_float_inputs_need_a_calibration_whose_outliers_a_search_clips():
    import keras

    dense = keras.layers.Dense
    model = dense_model(5, dense(4, activation="relu"), dense(2))
    rows = np.random.default_rng(0).normal(0, 1, (300, 5)).astype(np.float32)
    aware = quantization_aware(model, IntegerQuantization(), (rows,))
    np.testing.assert_allclose(aware(rows), model(rows), atol=0.05)
    np.testing.assert_allclose(convert(aware)([rows]), aware(rows), atol=1e-5)
    rows = np.random.default_rng(0).standard_t(2, (2000, 50)).astype(np.float32)
    model, scales = dense_model(50, dense(2)), {}
    for search in ("minmax", "percentile", "mse"):
        config = IntegerQuantization(activation_bits=3, range_search=search)
        last = quantization_aware(model, config, (rows,)).layers[-1]
        scales[search] = float(last.activation_grid("input").scale)
    assert scales["minmax"] > 2 * max(scales["percentile"], scales["mse"])


@pytest.mark.parametrize(
    "reason",
    ["tanh", "BatchNormalization", "input has shape", "used more than once", "normalizes",
     "plain ReLU"],
)  # fmt: skip
def test_a_layer_that_cannot_be_quantized_is_named(reason):
    from keras import layers

    dense, name = layers.Dense, {"name": "culprit"}
    twice = dense(4, **name)
    dot = layers.Dot(1, normalize=True, **name)
    parts = {
        "tanh": [dense(2, activation="tanh", **name)],
        "BatchNormalization": [layers.BatchNormalization(**name)],
        "input has shape": [layers.Reshape((1, 4)), dense(2, **name), layers.Flatten()],
        "used more than once": [twice, twice],
        "normalizes": [lambda x: dot([x, x])],
        "plain ReLU": [layers.ReLU(max_value=6, **name)],
    }
    model = dense_model(4, *parts[reason], dense(3))
    with pytest.raises(ValueError, match=f"layer 'culprit' cannot be quantized: .*{reason}"):
        quantization_aware(model, IntegerQuantization(), (np.ones((3, 4)),))


def refused_model(kind):
    import keras
    import tf_keras

    if kind == "twin":
        return build_rating_model(RatingModelConfig("mlp_ranker", 5, 6), keras=tf_keras)
    if kind in ("float", "unbuilt"):
        dense = keras.layers.Dense(3)
        return dense_model(5, dense) if kind == "float" else keras.Sequential([dense])
    model = build()
    if kind == "NaN":
        model.get_layer("user_embedding").embeddings.assign(np.full((NUM_USERS, 8), np.nan))
    return model


def aware_of(kind, *arguments):
    return lambda: quantization_aware(refused_model(kind), *(arguments or [IntegerQuantization()]))


def calibrated(*arrays):
    return aware_of("good", IntegerQuantization(), arrays)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nudged_grid(0.5, 2.0), ValueError, "minimum <= 0"),
        (lambda: nudged_grid(-1.0, float("nan")), ValueError, "finite"),
        (lambda: nudged_grid([-1.0], [[1.0]]), ValueError, "minimum has shape"),
        (lambda: nudged_grid(-1.0, 1.0, 9), ValueError, "bits is 9"),
        (lambda: IntegerQuantization(bits=1), ValueError, "bits is"),
        (lambda: IntegerQuantization(activation_bits=9), ValueError, "activation_bits is"),
        (lambda: IntegerQuantization(scale_search="best"), ValueError, "scale_search is"),
        (lambda: IntegerQuantization(range_search="best"), ValueError, "range_search is"),
        (lambda: IntegerQuantization(scale_rate=0.0), ValueError, "scale_rate is"),
        (aware_of("good", {}), TypeError, "config is of type dict"),
        (aware_of("unbuilt"), ValueError, "model is not built"),
        (aware_of("twin"), TypeError, "functional Keras 3 model"),
        (aware_of("NaN"), ValueError, "user_embedding/embeddings holds 480 NaN"),
        (aware_of("float"), ValueError, "calibration is None"),
        (aware_of("good", IntegerQuantization(), "all"), TypeError, "calibration is of type str"),
        (calibrated([], []), ValueError, "calibration has"),
        (calibrated([1, 2], [1]), ValueError, "calibration has"),
        (calibrated([1]), ValueError, "calibration has 1 arrays"),
        (calibrated([1], [NUM_ITEMS]), ValueError, "calibration item_ids"),
    ],
)
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()
