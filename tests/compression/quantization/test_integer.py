"""Integer layers equal to LiteRT's in every code; integer models against what they come from."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_lib.compression import CompressedModel, named_weights
from recsys_lib.compression.quantization import (
    IntegerQuantization,
    convert,
    quantization_aware,
    quantize_dynamic,
    quantize_static,
    read_litert_dense,
)
from recsys_lib.compression.quantization.fake_quant import Grid, quantize_to_grid
from recsys_lib.compression.quantization.integer import (
    REQUANTIZATIONS,
    IntegerDense,
    requantize,
    to_grid,
)
from recsys_lib.compression.quantization.integer_model import to_codes
from recsys_lib.data import Interactions
from recsys_lib.models import IALS, RatingModelConfig, build_rating_model
from recsys_lib.notebook import quiet
from recsys_lib.serving import export_litert, load_scorer
from recsys_lib.training import KerasRecommender, KerasScorer

pytestmark = pytest.mark.filterwarnings("ignore")
# (inputs, outputs, relu, seed, a scale for each output)
LAYERS = [
    *((8, 4, False, 0, True), (32, 64, True, 1, True), (48, 1, False, 2, True)),
    *((33, 17, True, 3, True), (300, 130, False, 4, True), (40, 24, True, 7, False)),
]
KERNELS = {
    "single": "BUILTIN_REF",
    "double": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "float": "AUTO",  # the default: the XNNPACK delegate
}
KINDS = ("dot_product", "matrix_factorization", "two_tower", "mlp_ranker", "neumf")
NUM_USERS, NUM_ITEMS = 300, 400


def build(kind="mlp_ranker", dim=16, init_std=0.7):
    return build_rating_model(RatingModelConfig(kind, NUM_USERS, NUM_ITEMS, dim, init_std=init_std))


def pairs(count, seed=0):
    random = np.random.default_rng(seed)
    return [random.integers(0, NUM_USERS, count), random.integers(0, NUM_ITEMS, count)]


@functools.cache
def litert_file(inputs, outputs, relu=False, seed=0, per_channel=True, whole=True):
    """Convert one dense layer with random weights, its inputs and outputs in int8 (or float32)."""
    import tensorflow as tf

    random = np.random.default_rng(seed)
    kernel = tf.constant(random.normal(0, inputs**-0.5, (inputs, outputs)).astype(np.float32))
    bias = tf.constant(random.normal(0, 0.2, outputs).astype(np.float32))
    rows = random.normal(0, 1, (100, inputs)).astype(np.float32)

    @tf.function(input_signature=[tf.TensorSpec([None, inputs], tf.float32)])
    def dense(x):
        return (tf.nn.relu if relu else tf.identity)(x @ kernel + bias)

    converter = tf.lite.TFLiteConverter.from_concrete_functions([dense.get_concrete_function()])
    if whole:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([row[None]] for row in rows)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        converter._experimental_disable_per_channel_quantization_for_dense_layers = not per_channel
    return converter.convert()


def run_litert(content, inputs, kernels, **options):
    """Return the interpreter after a run; ``inputs`` by a part of their name."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = getattr(OpResolverType, kernels)
    litert = Interpreter(model_content=content, experimental_op_resolver_type=resolver, **options)
    given = {
        detail["index"]: next(values for part, values in inputs.items() if part in detail["name"])
        for detail in litert.get_input_details()
    }
    for index, values in given.items():
        litert.resize_tensor_input(index, values.shape)
    litert.allocate_tensors()
    for index, values in given.items():
        litert.set_tensor(index, values)
    litert.invoke()
    return litert


def outputs_of_litert(content, codes, kernels):
    litert = run_litert(content, {"": codes}, kernels)
    return litert.get_tensor(litert.get_output_details()[0]["index"])


def random_codes(rows, columns):
    codes = np.random.default_rng(0).normal(0, 60, (rows, columns))
    return np.clip(codes, -128, 127).astype(np.int8)


@pytest.mark.parametrize("requantization", REQUANTIZATIONS)
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_equal_to_litert_to_the_last_unit(layer, requantization):
    content, codes = litert_file(*layer), random_codes(3000, layer[0])
    (dense,) = read_litert_dense(content, requantization).values()
    assert len(dense.kernel_scale) == (layer[1] if layer[-1] else 1)
    expected = outputs_of_litert(content, codes, KERNELS[requantization])
    assert len(np.unique(expected)) > 50
    np.testing.assert_array_equal(dense(codes), expected)


def test_the_three_kernels_do_not_agree_with_one_another():
    """Otherwise the test above would prove less than it says."""
    content, codes = litert_file(*LAYERS[4]), random_codes(2000, 300)
    single, double, real = (outputs_of_litert(content, codes, k) for k in KERNELS.values())
    assert 0 < (single != double).mean() < 0.01
    assert np.abs(single.astype(int) - double).max() == 1
    assert (single != real).mean() < 1e-4


def test_all_layers_of_a_ranker_are_equal_to_litert(tmp_path):
    """Each dense layer of an exported NeuMF, from the codes that LiteRT itself gave it."""
    ids = pairs(2000)
    export_litert(build("neumf"), tmp_path / "ranker.tflite", "int8", tuple(ids))
    content = (tmp_path / "ranker.tflite").read_bytes()
    inputs = dict(zip(("user", "item"), (side.astype(np.int32) for side in ids), strict=True))
    litert = run_litert(content, inputs, "BUILTIN_REF", experimental_preserve_all_tensors=True)
    operations = [op for op in litert._get_ops_details() if op["op_name"] == "FULLY_CONNECTED"]
    layers = read_litert_dense(content).values()
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


def test_extreme_multipliers():
    assert requantize([1000, -1000], 1e-30).tolist() == [0, 0]
    for method in ("single", "double"):
        assert requantize([3, -3], 2.0, method).tolist() == [6, -6]
    assert requantize([2**31 - 1], 1 - 2.0**-40).tolist() == [2**31 - 1]


GRID = Grid(np.float32(0.1), 3, -128, 127)
LAYER = IntegerDense(np.ones((4, 2), np.int8), np.float32([0.5, 0.25]), np.int32([0, 10]), GRID)


def test_sums_are_exact_where_float32_would_not_be():
    random = np.random.default_rng(0)
    kernel = random.integers(-127, 128, (3000, 3)).astype(np.int8)
    codes = random.integers(-128, 128, (50, 3000)).astype(np.int8)
    codes[0], kernel[:, 0] = 127, 127
    bias = np.int32([1, -1, 0])
    layer = IntegerDense(kernel, np.float32([1]), bias, GRID)
    expected = (codes.astype(np.int64) - 3) @ kernel.astype(np.int64) + bias
    assert expected.max() > 1 << 24
    np.testing.assert_array_equal(layer.sums(codes), expected)


def test_relu_and_ranges():
    layer = IntegerDense(LAYER.kernel, LAYER.kernel_scale, LAYER.bias, GRID, GRID, relu=True)
    codes = np.array([[-128] * 4, [127] * 4], np.int8)
    assert layer(codes).tolist() == [[3, 3], [127, 127]]  # 3 is the zero point
    assert to_grid(np.array([10**6]), np.float32(1), GRID).tolist() == [127]
    with pytest.raises(ValueError, match="codes has shape"):
        layer(codes[:, :3])


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_are_those_of_the_fake_quantized_model(kind, bits):
    ids = pairs(4000)
    aware = quantization_aware(build(kind), IntegerQuantization(bits))
    expected, integer = np.asarray(aware(ids)), convert(aware)
    scores = integer.score(*ids)
    near = np.isclose(scores, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    # The others passed a code that lay between two, in one of the layers.
    assert near.mean() > 0.99
    assert np.abs(scores - expected).max() < 0.05 * np.abs(expected).max()
    for name, values in named_weights(integer.model).items():
        np.testing.assert_array_equal(values, integer.tensors[name].decode())
    if kind == "mlp_ranker":  # the float32 model of the result rounds nothing between layers
        difference = np.abs(np.asarray(integer.model(ids)) - scores).max()
        assert 0 < difference < 0.2 * np.abs(scores).max()


@pytest.mark.parametrize("requantization", ["single", "float"])
@pytest.mark.parametrize("kind", ["mlp_ranker", "neumf", "two_tower"])
def test_codes_are_equal_or_one_unit_apart_at_a_tie(kind, requantization):
    """Layer by layer, from the same inputs: the number before rounding decides."""
    integer = convert(quantization_aware(build(kind), IntegerQuantization(8)), requantization)
    values = integer.run(pairs(3000))
    sources = {step.name: step.inputs for step in integer.steps}
    assert integer.layers
    for name, layer in integer.layers.items():
        value, grid = values[sources[name][0]], layer.input_grid
        real = value.codes * np.float64(1) * value.scale
        codes = to_codes(value, grid, requantization)
        expected = quantize_to_grid(real.astype(np.float32), grid)
        apart, steps = codes != expected, real / np.float64(grid.scale)
        tie = np.abs(steps - np.floor(steps) - 0.5)
        assert np.abs(codes - expected).max() <= 1
        assert tie[apart].max(initial=0) < 1e-4
        assert apart.mean() < 1e-3
        twice = to_codes(value, grid, "double").astype(int)
        assert np.abs(twice - expected).max() == 1  # rounds half a unit before it rounds a unit


@pytest.mark.parametrize(("kind", "bits"), [("mlp_ranker", 4), ("neumf", 2)])
def test_scores_that_are_equal_in_integers_are_equal_in_the_compiled_model(kind, bits):
    """Few bits make many ties; a metric that counts them must not depend on who computes."""
    ids = pairs(20_000)
    aware = quantization_aware(build(kind), IntegerQuantization(bits, activation_bits=4))
    compiled, integer = KerasScorer(aware).score(*ids), convert(aware).score(*ids)
    distinct = len(np.unique(integer))
    assert distinct < 0.5 * len(integer)
    assert len(np.unique(compiled)) == pytest.approx(distinct, rel=0.01)
    # In the order of the integers, equal neighbours are equal in the compiled model too.
    order = np.argsort(integer, kind="stable")
    tied = np.diff(integer[order]) == 0
    assert (np.diff(compiled[order])[tied] == 0).mean() > 0.99


def test_layers_are_int8_and_bytes_are_packed():
    model, sizes = build("neumf"), {}
    for bits in (8, 4, 3, 2):
        integer = convert(quantization_aware(model, IntegerQuantization(bits)))
        assert isinstance(integer, CompressedModel)
        for layer in integer.layers.values():
            assert (layer.kernel.dtype, layer.bias.dtype) == (np.int8, np.int32)
            assert np.abs(layer.kernel).max() <= 2 ** (bits - 1) - 1
        sizes[bits] = integer.nbytes
        assert integer.nbytes == integer.report.bytes_after
    floats = sum(values.nbytes for values in named_weights(model).values())
    assert sizes[2] < sizes[3] < sizes[4] < sizes[8] < floats / 3


def test_static_quantization_follows_its_calibration():
    model, ids = build(), pairs(1000)
    exact = np.asarray(model(ids))

    def error(calibration):
        return np.abs(quantize_static(model, calibration).score(*ids) - exact).mean()

    quiet_user = np.abs(np.asarray(model.get_layer("user_embedding").embeddings)).max(1).argmin()
    usual = error(pairs(2000, seed=1))
    assert usual < 0.01
    # Ranges from one quiet user clip everybody else's numbers.
    assert error((np.repeat(quiet_user, 5), np.arange(5))) > 3 * usual


@pytest.mark.parametrize("form", ["int8", "dynamic"])
def test_scores_are_near_those_of_litert(tmp_path, form):
    """Two int8 models of the same weights, calibrated on the same pairs where they need it."""
    model, ids, calibration = build(dim=64, init_std=0.1), pairs(3000), tuple(pairs(1500, seed=1))
    with quiet():
        export_litert(model, tmp_path / "r.tflite", form, calibration if form == "int8" else None)
        theirs = load_scorer(tmp_path / "r.tflite").score(*ids)
    small = quantize_static(model, calibration) if form == "int8" else quantize_dynamic(model)
    ours, exact = small.score(*ids), np.asarray(model(ids))
    errors = [np.sqrt(np.mean((scores - exact) ** 2)) for scores in (ours, theirs)]
    # In int8, LiteRT has one scale a table, and rounds the logits. In its dynamic form it gives
    # each row a zero point too, and so a finer step where ReLU leaves one side.
    assert errors[0] < (1 if form == "int8" else 1.5) * errors[1]
    assert np.corrcoef(ours, theirs)[0, 1] > 0.99


@pytest.mark.parametrize("width", [40, 3000])  # more inputs than float32 can add up exactly
def test_a_dynamic_layer_multiplies_whole_numbers(width):
    import keras

    inputs = keras.Input((width,))
    model = keras.Model(inputs, keras.layers.Dense(5, activation="relu", name="dense")(inputs))
    small = quantize_dynamic(model)
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
    exact, ids = build(kind, 64, 0.1), pairs(500)
    before = exact.get_weights()
    small = quantize_dynamic(exact)
    scores, expected = small.score(*ids), np.asarray(exact(ids))
    assert 0 < np.abs(scores - expected).max() / expected.std() < 0.15
    assert 3 < small.report.ratio < 4.1
    for old, new in zip(before, exact.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_all_items_are_scored_as_pairs_are():
    config = RatingModelConfig("mlp_ranker", NUM_USERS, NUM_ITEMS)
    data = Interactions(*pairs(500), num_users=NUM_USERS, num_items=NUM_ITEMS)
    dynamic = quantize_dynamic(KerasRecommender(config, epochs=1, progress=False).fit(data))
    assert isinstance(dynamic.model, KerasRecommender)
    for small in (dynamic, quantize_static(build(), pairs(500))):
        scores = small.score_all_items([3, 250])
        assert scores.shape == (2, NUM_ITEMS)
        expected = small.score([250] * NUM_ITEMS, range(NUM_ITEMS))
        np.testing.assert_allclose(scores[1], expected, rtol=1e-4, atol=1e-6)


@functools.cache
def small_model():
    return convert(quantization_aware(build(), IntegerQuantization()))


def broken():
    aware = quantization_aware(build(), IntegerQuantization())
    aware.get_layer("dense_0").kernel.assign(aware.get_layer("dense_0").kernel * np.nan)
    return aware


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: LAYER(np.zeros((3, 4), np.int8)), ValueError, "output_grid is None"),
        (lambda: read_litert_dense(litert_file(3, 2, whole=False)), ValueError, "no dense layer"),
        (lambda: convert(build()), TypeError, "no fake-quantized layer"),
        (lambda: convert(build(), "triple"), ValueError, "requantization is 'triple'"),
        (lambda: convert(broken()), ValueError, "dense_0/kernel holds"),
        (lambda: quantize_static(build(), None), ValueError, "calibration is None"),
        (lambda: quantize_static(build(), ([], [])), ValueError, "calibration has"),
        (lambda: small_model().score([1, 2], [1]), ValueError, "item_ids has shape"),
        (lambda: small_model().score([1], [NUM_ITEMS]), ValueError, "item_ids"),
        (lambda: quantize_dynamic(IALS()), TypeError, "model is of type IALS"),
    ],
)
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()
