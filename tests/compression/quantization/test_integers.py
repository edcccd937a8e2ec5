"""Arithmetic in whole numbers: fake quantization, training on it, integer models, and LiteRT."""

import functools
import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_lib.compression import named_weights, with_weights
from recsys_lib.compression import quantization as q
from recsys_lib.compression.pruning import WeightPruning, prune
from recsys_lib.compression.quantization.fake_quant import (
    Grid,
    fake_quant,
    fake_quant_codes,
    nudged_grid,
    quantize_to_grid,
    symmetric_scales,
)
from recsys_lib.compression.quantization.integer import REQUANTIZATIONS, IntegerDense, requantize
from recsys_lib.data import Interactions
from recsys_lib.models import IALS, RatingModelConfig, build_rating_model
from recsys_lib.serving import export_litert
from recsys_lib.training import KerasRecommender, KerasScorer, fit
from recsys_lib.training.forward import embedding_tables

pytestmark = pytest.mark.filterwarnings("ignore")
KINDS = ("dot_product", "matrix_factorization", "two_tower", "mlp_ranker", "neumf")
NUM_USERS, NUM_ITEMS = 60, 80
IDS = [np.arange(60, dtype=np.int32), np.arange(20, 80, dtype=np.int32)]
QUIET = {"progress": False, "jit_compile": False}
GRID = Grid(np.float32(0.1), 3, -128, 127)
LAYER = IntegerDense(np.ones((4, 2), np.int8), np.float32([0.5, 0.25]), np.int32([0, 10]), GRID)
LAYERS = [  # (inputs, outputs, relu, seed, a scale for each output)
    *((8, 4, False, 0, True), (32, 64, True, 1, True), (48, 1, False, 2, True)),
    *((33, 17, True, 3, True), (300, 130, False, 4, True), (40, 24, True, 7, False)),
]
KERNELS = {
    "single": "BUILTIN_REF",
    "double": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "float": "AUTO",  # the default: the XNNPACK delegate
}


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
    for size in (0, 1, 1, 1e4):
        x = random.normal(0, max(size, 1), (400, 16)).astype(np.float32)
        low = -np.float32(size * random.uniform(0, 2.5, each))
        high = np.float32(max(size, 1) * random.uniform(0.1, 2.5, each))
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


def test_scales_of_rows_and_columns_and_of_an_empty_range():
    weights = np.float32([[1, -2, 0], [0, 0, 0], [4, 7, 0]])
    assert symmetric_scales(weights, 4, "row").ravel().tolist() == pytest.approx([2 / 7, 1, 1])
    assert symmetric_scales(weights, 4, "column").ravel().tolist() == pytest.approx([4 / 7, 1, 1])
    heavy, errors = np.random.default_rng(0).standard_t(2, (5, 400)).astype(np.float32), []
    for search in ("mse", "minmax"):
        scale = symmetric_scales(heavy, 3, "row", search)
        codes = quantize_to_grid(heavy, Grid(scale, 0, -3, 3))
        errors.append(np.square(heavy - codes * scale).sum())
    assert errors[0] < 0.9 * errors[1]
    grid = nudged_grid(0.0, 0.0)
    assert [grid.scale, grid.zero_point, quantize_to_grid(0.0, grid)] == [1, -128, -128]


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


def build(kind="mlp_ranker", users=NUM_USERS, items=NUM_ITEMS, dim=8, keras=None, **options):
    config = RatingModelConfig(kind, users, items, dim, **{"init_std": 0.5} | options)
    return build_rating_model(config, keras=keras)


big = functools.partial(build, users=300, items=400, dim=16, init_std=0.7)


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    users, items = random.integers(0, NUM_USERS, 3000), random.integers(0, NUM_ITEMS, 3000)
    liked = (users % 4) == (items % 4)
    return Interactions(users[liked], items[liked], num_users=NUM_USERS, num_items=NUM_ITEMS)


@pytest.mark.slow
def test_training_recovers_what_rounding_loses_and_moves_all_but_zero_points(data):
    model = build(hidden_units=(16, 8))
    options = {"batch_size": 256, "optimizer": "adam", **QUIET}
    exact = fit(model, data, epochs=40, **options).loss[-1]
    aware = q.quantization_aware(model, q.IntegerQuantization(bits=2))
    assert [side for _, side in embedding_tables(aware)] == ["users", "items"]
    before = named_weights(aware)
    run = fit(aware, data, epochs=20, **options)
    rounded = run.loss[0]  # of the first steps, so less than rounding really costs
    assert rounded > 1.1 * exact
    assert rounded - run.loss[-1] > 0.5 * (rounded - exact)
    still = {
        name for name, values in named_weights(aware).items() if (values == before[name]).all()
    }
    assert still == {f"{layer}/input_zero_point" for layer in ("dense_0", "dense_1", "score")}


@pytest.mark.slow
def test_keras_own_fit_clone_and_file(tmp_path, data):
    import keras

    aware = q.quantization_aware(build(), q.IntegerQuantization(bits=4))
    aware.compile("adam", "mse", jit_compile=False)
    scale = aware.get_layer("dense_0").weight_log_scale
    before = scale.numpy().copy()
    aware.fit([data.user_ids, data.item_ids], np.ones(len(data)), epochs=1, verbose=0)
    assert not np.allclose(before, scale.numpy())
    clone = keras.models.clone_model(aware)
    clone.set_weights(aware.get_weights())
    aware.save(tmp_path / "aware.keras")
    for copy in (clone, keras.models.load_model(tmp_path / "aware.keras")):
        np.testing.assert_array_equal(copy(IDS), aware(IDS))
        np.testing.assert_array_equal(q.convert(copy).score(*IDS), q.convert(aware).score(*IDS))


@pytest.mark.slow
def test_zeros_of_a_pruned_model_stay(data):
    pruned = prune(build(), WeightPruning(0.8)).model
    kept, lost = (
        q.quantization_aware(pruned, q.IntegerQuantization(bits=4, keep_zeros=keep))
        for keep in (True, False)
    )
    for aware in (kept, lost):
        fit(aware, data, epochs=2, batch_size=128, l2=0.001, **QUIET)
    stored = q.convert(kept).tensors
    zeros = {name: values == 0 for name, values in named_weights(pruned).items() if values.ndim > 1}
    for name, zero in zeros.items():
        assert not named_weights(kept)[name][zero].any()
        assert not stored[name].decode()[zero].any()
    assert np.mean(named_weights(lost)["dense_0/kernel"][zeros["dense_0/kernel"]] == 0) < 0.3


def test_an_all_zero_channel_and_row_are_defined():
    model = build()
    weights = named_weights(model)
    weights["dense_0/kernel"][:, 3] = weights["item_embedding/embeddings"][7] = 0
    weights["dense_0/bias"][3] = 0.25
    aware = q.quantization_aware(with_weights(model, weights), q.IntegerQuantization(8))
    assert np.isfinite(np.asarray(aware(IDS))).all()
    new = named_weights(q.convert(aware).model)
    zeros = new["dense_0/kernel"][:, 3], new["item_embedding/embeddings"][7]
    assert not np.concatenate(zeros).any() and new["dense_0/bias"][3] == pytest.approx(0.25, 0.01)


def dense_model(width, *layers):
    import keras

    inputs = outputs = keras.Input((width,))
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


def test_float_inputs_need_a_calibration_whose_outliers_a_search_clips():
    from keras.layers import Dense

    model = dense_model(5, Dense(4, activation="relu"), Dense(2))
    rows = np.random.default_rng(0).normal(0, 1, (300, 5)).astype(np.float32)
    aware = q.quantization_aware(model, q.IntegerQuantization(), (rows,))
    np.testing.assert_allclose(aware(rows), model(rows), atol=0.05)
    np.testing.assert_allclose(q.convert(aware)([rows]), aware(rows), atol=1e-5)
    rows = np.random.default_rng(0).standard_t(2, (2000, 50)).astype(np.float32)
    model, scales = dense_model(50, Dense(2)), {}
    for search in ("minmax", "percentile", "mse"):
        config = q.IntegerQuantization(activation_bits=3, range_search=search)
        last = q.quantization_aware(model, config, (rows,)).layers[-1]
        scales[search] = float(last.activation_grid("input").scale)
    assert scales["minmax"] > 2 * max(scales["percentile"], scales["mse"])


@pytest.mark.parametrize(
    ("reason", "parts"),
    [
        ("tanh", lambda k: [k.Dense(2, activation="tanh", name="culprit")]),
        ("BatchNormalization", lambda k: [k.BatchNormalization(name="culprit")]),
        ("input has shape", lambda k: [k.Reshape((1, 4)), k.Dense(2, name="culprit"), k.Flatten()]),
        ("used more than once", lambda k: [k.Dense(4, name="culprit")] * 2),
        ("normalizes", lambda k: [lambda x: k.Dot(1, normalize=True, name="culprit")([x, x])]),
        ("plain ReLU", lambda k: [k.ReLU(max_value=6, name="culprit")]),
    ],
)
def test_a_layer_that_cannot_be_quantized_is_named(reason, parts):
    from keras import layers

    model = dense_model(4, *parts(layers), layers.Dense(3))
    with pytest.raises(ValueError, match=f"layer 'culprit' cannot be quantized: .*{reason}"):
        q.quantization_aware(model, q.IntegerQuantization(), (np.ones((3, 4)),))


def aware(calibration, model=None):
    return q.quantization_aware(model or build(), q.IntegerQuantization(), calibration)


def pairs(count, seed=0):
    random = np.random.default_rng(seed)
    return [random.integers(0, 300, count), random.integers(0, 400, count)]


@functools.cache
def litert_file(inputs, outputs, relu=False, seed=0, per_channel=True, whole=True):
    """Convert one dense layer with random weights, its inputs and outputs in int8 (or float32)."""
    import tensorflow as tf

    random = np.random.default_rng(seed)
    kernel = tf.constant(random.normal(0, inputs**-0.5, (inputs, outputs)), tf.float32)
    bias = tf.constant(random.normal(0, 0.2, outputs), tf.float32)
    rows = random.normal(0, 1, (100, 1, inputs)).astype(np.float32)
    end = tf.nn.relu if relu else tf.identity
    dense = tf.function(lambda x: end(x @ kernel + bias)).get_concrete_function(
        tf.TensorSpec([None, inputs])
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([dense])
    if whole:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([row] for row in rows)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        converter._experimental_disable_per_channel_quantization_for_dense_layers = not per_channel
    return converter.convert()


@pytest.mark.parametrize("requantization", REQUANTIZATIONS)
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_equal_to_litert_to_the_last_unit(layer, requantization, run_litert):
    content, random = litert_file(*layer), np.random.default_rng(0)
    codes = random.normal(0, 60, (3000, layer[0])).clip(-128, 127).astype(np.int8)
    (dense,) = q.read_litert_dense(content, requantization).values()
    assert len(dense.kernel_scale) == (layer[1] if layer[-1] else 1)
    _, expected = run_litert(content, {"": codes}, KERNELS[requantization])
    assert len(np.unique(expected)) > 50
    np.testing.assert_array_equal(dense(codes), expected)


def test_all_layers_of_a_ranker_are_equal_to_litert(tmp_path, run_litert):
    """Each dense layer of an exported NeuMF, from the codes that LiteRT itself gave it."""
    users, items = pairs(2000)
    export_litert(big("neumf"), tmp_path / "ranker.tflite", "int8", (users, items))
    content = (tmp_path / "ranker.tflite").read_bytes()
    inputs = {"user": users.astype(np.int32), "item": items.astype(np.int32)}
    options = {"experimental_preserve_all_tensors": True}
    litert, _ = run_litert(content, inputs, KERNELS["single"], **options)
    operations = [op for op in litert._get_ops_details() if op["op_name"] == "FULLY_CONNECTED"]
    layers = q.read_litert_dense(content).values()
    assert len(layers) == 4
    for layer, operation in zip(layers, operations, strict=True):
        codes, expected = (litert.get_tensor(operation[end][0]) for end in ("inputs", "outputs"))
        assert len(np.unique(expected)) > 50
        np.testing.assert_array_equal(layer(codes), expected)


@settings(max_examples=200, deadline=None)
@given(st.integers(-(2**31) + 1, 2**31 - 1), st.floats(1e-9, 0.999))
def test_requantize_is_within_its_rounding_of_the_real_product(value, multiplier):
    real = value * multiplier
    for method, half in (("single", 0.5), ("double", 1.0)):
        assert abs(int(requantize(value, multiplier, method)) - real) <= half + 2**-31 * abs(real)
        assert requantize([3, -3], 2.0, method).tolist() == [6, -6]
    assert requantize([1000, -1000], 1e-30).tolist() == [0, 0]
    assert requantize([2**31 - 1], 1 - 2.0**-40).tolist() == [2**31 - 1]


def test_sums_are_exact_where_float32_would_not_be_and_outputs_stay_in_range():
    random = np.random.default_rng(0)
    kernel = random.integers(-127, 128, (3000, 3)).astype(np.int8)
    codes = random.integers(-128, 128, (50, 3000)).astype(np.int8)
    codes[0], kernel[:, 0], bias = 127, 127, np.int32([1, -1, 0])
    expected = (codes.astype(np.int64) - 3) @ kernel.astype(np.int64) + bias
    assert expected.max() > 1 << 24
    layer = IntegerDense(kernel, np.float32([1]), bias, GRID)
    np.testing.assert_array_equal(layer.sums(codes), expected)
    layer = IntegerDense(LAYER.kernel, LAYER.kernel_scale, LAYER.bias, GRID, GRID, relu=True)
    codes = np.array([[-128] * 4, [127] * 4], np.int8)
    assert layer(codes).tolist() == [[3, 3], [127, 127]]  # 3 is the zero point
    with pytest.raises(ValueError, match="codes"):
        layer(codes[:, :3])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bits", "least", "most", "ratio"), [(8, 0, 0.05, 2.9), (4, 0.05, 0.4, 4.5), (2, 0.4, 4, 6)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_integers_score_as_the_fake_quantized_model_does(kind, bits, least, most, ratio):
    model, ids = big(kind), pairs(4000)
    before, exact = named_weights(model), np.asarray(model(ids))
    aware = q.quantization_aware(model, q.IntegerQuantization(bits))
    np.testing.assert_equal(named_weights(model), before)
    expected = np.asarray(aware(ids))
    assert least < np.linalg.norm(expected - exact) / np.linalg.norm(exact) < most
    for requantization in ("single", "float"):
        integer = q.convert(aware, requantization)
        scores = integer.score(*ids)
        near = np.isclose(scores, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
        # The others passed a code that lay between two, in one of the layers.
        assert near.mean() > 0.99
        assert np.abs(scores - expected).max() < 0.05 * np.abs(expected).max()
    for layer in integer.layers.values():
        assert (layer.kernel.dtype, layer.bias.dtype) == (np.int8, np.int32)
        assert np.abs(layer.kernel).max() <= 2 ** (bits - 1) - 1
    assert integer.nbytes == integer.report.bytes_after and integer.report.ratio > ratio
    for name, values in named_weights(integer.model).items():
        np.testing.assert_array_equal(values, integer.tensors[name].decode())
    if kind == "mlp_ranker":  # the float32 model of the result rounds nothing between layers
        difference = np.abs(np.asarray(integer.model(ids)) - scores).max()
        assert 0 < difference < 0.2 * np.abs(scores).max()


@pytest.mark.parametrize(("kind", "bits"), [("mlp_ranker", 4), ("neumf", 2)])
def test_scores_that_are_equal_in_integers_are_equal_in_the_compiled_model(kind, bits):
    """Few bits make many ties; a metric that counts them must not depend on who computes."""
    ids = pairs(20_000)
    aware = q.quantization_aware(big(kind), q.IntegerQuantization(bits, activation_bits=4))
    compiled, integer = KerasScorer(aware).score(*ids), q.convert(aware).score(*ids)
    distinct, order = len(np.unique(integer)), np.argsort(integer, kind="stable")
    assert distinct < 0.5 * len(integer)
    assert len(np.unique(compiled)) == pytest.approx(distinct, rel=0.01)
    tied = np.diff(integer[order]) == 0
    assert (np.diff(compiled[order])[tied] == 0).mean() > 0.99


def test_static_quantization_follows_its_calibration():
    model, ids = big(), pairs(1000)
    exact, vectors = np.asarray(model(ids)), named_weights(model)["user_embedding/embeddings"]
    quiet_user = np.abs(vectors).max(axis=1).argmin()
    usual, clipped = (  # ranges from one quiet user clip everybody else's numbers
        np.abs(q.quantize_static(model, calibration).score(*ids) - exact).mean()
        for calibration in (pairs(2000, seed=1), (np.repeat(quiet_user, 5), np.arange(5)))
    )
    assert 3 * usual < min(0.03, clipped)


@pytest.mark.parametrize("width", [40, 3000])  # more inputs than float32 can add up exactly
def test_a_dynamic_layer_multiplies_whole_numbers(width):
    import keras

    dense = keras.layers.Dense(5, activation="relu", name="dense")
    small = q.quantize_dynamic(dense_model(width, dense))
    kernel, bias = small.tensors["dense/kernel"], small.tensors["dense/bias"].decode()
    rows = np.random.default_rng(1).normal(size=(20, width)).astype(np.float32)
    rows[3] = 0
    scale = np.abs(rows).max(axis=1, keepdims=True) / np.float32(127)
    codes = np.rint(rows / np.where(scale > 0, scale, 1)).astype(np.int64)
    sums = codes @ (kernel.codes.astype(np.int64) - 127)
    expected = np.maximum(sums.astype(np.float32) * scale * kernel.scale + bias, 0)
    np.testing.assert_allclose(small.model(rows), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["mlp_ranker", "neumf", "two_tower", "dot_product"])
def test_dynamic_scores_are_near_those_of_the_model_and_bytes_a_quarter(kind):
    exact, ids = big(kind, dim=64, init_std=0.1), pairs(500)
    small = q.quantize_dynamic(exact)
    scores, expected = small.score(*ids), np.asarray(exact(ids))
    assert 0 < np.abs(scores - expected).max() / expected.std() < 0.15
    assert 3 < small.report.ratio < 4.1


@pytest.mark.slow
def test_a_recommender_is_taken_and_all_items_are_scored_as_pairs_are():
    config, ids = RatingModelConfig("mlp_ranker", 300, 400), pairs(500)
    data = Interactions(*ids, num_users=300, num_items=400)
    recommender = KerasRecommender(config, epochs=1, progress=False).fit(data)
    rounded = q.quantization_aware(recommender, q.IntegerQuantization(), data)(ids)
    np.testing.assert_allclose(rounded, recommender.score(*ids), atol=0.01)
    dynamic = q.quantize_dynamic(recommender)
    assert isinstance(dynamic.model, KerasRecommender)
    for small in (dynamic, q.quantize_static(big(), ids)):
        scores, expected = small.score_all_items([3, 250]), small.score([250] * 400, range(400))
        np.testing.assert_allclose(scores[1], expected, rtol=1e-4, atol=1e-6)


def test_refuses(refuses):
    twin = build(keras=importlib.import_module("tf_keras"))
    whole, floats = q.convert(aware(None)), litert_file(3, 2, whole=False)
    refuses(
        ("minimum", lambda: nudged_grid(0.5, 2.0)),
        ("finite", lambda: nudged_grid(-1.0, float("nan"))),
        ("minimum has shape", lambda: nudged_grid([-1.0], [[1.0]])),
        ("config", lambda: q.quantization_aware(build(), {})),
        ("Keras 3", lambda: aware(None, twin)),
        ("calibration", lambda: aware("all")),
        ("calibration has", lambda: aware(([1, 2], [1]))),
        ("calibration has 1 arrays", lambda: aware(([1],))),
        ("calibration item_ids", lambda: aware(([1], [NUM_ITEMS]))),
        ("output_grid", lambda: LAYER(np.zeros((3, 4), np.int8))),
        ("no dense layer", lambda: q.read_litert_dense(floats)),
        ("no fake-quantized layer", lambda: q.convert(big())),
        ("calibration", lambda: q.quantize_static(big(), None)),
        ("item_ids", lambda: whole.score([1], [NUM_ITEMS])),
        ("model is of type IALS", lambda: q.quantize_dynamic(IALS())),
    )
