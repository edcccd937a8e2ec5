"""Integer dense layers against LiteRT: equal in every code, in its three kinds of kernels."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_lib.compression.quantization import read_litert_dense
from recsys_lib.compression.quantization.fake_quant import Grid
from recsys_lib.compression.quantization.integer import (
    REQUANTIZATIONS,
    IntegerDense,
    requantize,
    to_grid,
)

# (inputs, outputs, relu, seed)
LAYERS = [(8, 4, False, 0), (32, 64, True, 1), (48, 1, False, 2), (33, 17, True, 3),
          (300, 130, False, 4)]  # fmt: skip
KERNELS = {
    "single": "BUILTIN_REF",
    "double": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "float": "AUTO",  # the default: the XNNPACK delegate
}


@functools.cache
def litert_file(inputs, outputs, relu, seed, per_channel=True):
    """Convert one dense layer with random weights, its inputs and outputs in int8."""
    import tensorflow as tf

    random = np.random.default_rng(seed)
    kernel = tf.constant(random.normal(0, inputs**-0.5, (inputs, outputs)).astype(np.float32))
    bias = tf.constant(random.normal(0, 0.2, outputs).astype(np.float32))
    rows = random.normal(0, 1, (100, inputs)).astype(np.float32)

    @tf.function(input_signature=[tf.TensorSpec([None, inputs], tf.float32)])
    def dense(x):
        return (tf.nn.relu if relu else tf.identity)(x @ kernel + bias)

    converter = tf.lite.TFLiteConverter.from_concrete_functions([dense.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None]] for row in rows)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    converter._experimental_disable_per_channel_quantization_for_dense_layers = not per_channel
    return converter.convert()


def run_litert(content, codes, kernels):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=content, experimental_op_resolver_type=getattr(OpResolverType, kernels)
    )
    inputs, outputs = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.resize_tensor_input(inputs["index"], codes.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(inputs["index"], codes)
    interpreter.invoke()
    return interpreter.get_tensor(outputs["index"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("requantization", REQUANTIZATIONS)
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_equal_to_litert_to_the_last_unit(layer, requantization):
    content = litert_file(*layer)
    (dense,) = read_litert_dense(content, requantization).values()
    assert len(dense.kernel_scale) == layer[1]  # one a channel
    for seed in range(3):
        codes = np.random.default_rng(seed).normal(0, 60, (1000, layer[0]))
        codes = np.clip(codes, -128, 127).astype(np.int8)
        expected = run_litert(content, codes, KERNELS[requantization])
        assert len(np.unique(expected)) > 50
        np.testing.assert_array_equal(dense(codes), expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("requantization", REQUANTIZATIONS)
def test_equal_to_litert_with_one_scale_for_all_outputs(requantization):
    content = litert_file(40, 24, True, 7, per_channel=False)
    (dense,) = read_litert_dense(content, requantization).values()
    assert dense.kernel_scale.shape == (1,)
    codes = np.random.default_rng(0).integers(-128, 128, (1000, 40)).astype(np.int8)
    expected = run_litert(content, codes, KERNELS[requantization])
    np.testing.assert_array_equal(dense(codes), expected)


@pytest.mark.filterwarnings("ignore")
def test_the_three_kernels_do_not_agree_with_one_another():
    """Otherwise the tests above would prove less than they say."""
    layer = (300, 130, False, 4)
    codes = np.clip(np.random.default_rng(0).normal(0, 60, (2000, 300)), -128, 127).astype(np.int8)
    outputs = {
        name: run_litert(litert_file(*layer), codes, kernels) for name, kernels in KERNELS.items()
    }
    assert 0 < (outputs["single"] != outputs["double"]).mean() < 0.01
    assert np.abs(outputs["single"].astype(int) - outputs["double"]).max() == 1
    assert (outputs["single"] != outputs["float"]).mean() < 1e-4


@settings(max_examples=200, deadline=None)
@given(st.integers(-(2**31) + 1, 2**31 - 1), st.floats(1e-9, 0.999))
def test_requantize_is_within_its_rounding_of_the_real_product(value, multiplier):
    real = value * multiplier
    assert abs(int(requantize(value, multiplier, "single")) - real) <= 0.5 + 2.0**-31 * abs(real)
    assert abs(int(requantize(value, multiplier, "double")) - real) <= 1.0 + 2.0**-31 * abs(real)


def test_extreme_multipliers():
    assert requantize([1000, -1000], 1e-30).tolist() == [0, 0]
    assert requantize([3, -3], 2.0).tolist() == [6, -6]
    assert requantize([3, -3], 2.0, "double").tolist() == [6, -6]
    assert requantize([2**31 - 1], 1 - 2.0**-40).tolist() == [2**31 - 1]


def layer_parts(**changes):
    grid = Grid(np.float32(0.1), 3, -128, 127)
    parts = {
        "kernel": np.ones((4, 2), np.int8),
        "kernel_scale": np.float32([0.5, 0.25]),
        "bias": np.int32([0, 10]),
        "input_grid": grid,
        "output_grid": grid,
    }
    return parts | changes


def test_sums_are_exact_where_float32_would_not_be():
    random = np.random.default_rng(0)
    kernel = random.integers(-127, 128, (3000, 3)).astype(np.int8)
    codes = random.integers(-128, 128, (50, 3000)).astype(np.int8)
    codes[0], kernel[:, 0] = 127, 127
    bias = np.int32([1, -1, 0])
    layer = IntegerDense(**layer_parts(kernel=kernel, bias=bias, kernel_scale=np.float32([1])))
    expected = (codes.astype(np.int64) - 3) @ kernel.astype(np.int64) + bias
    assert expected.max() > 1 << 24
    np.testing.assert_array_equal(layer.sums(codes), expected)


def test_relu_and_ranges():
    layer = IntegerDense(**layer_parts(relu=True))
    codes = np.array([[-128] * 4, [127] * 4], np.int8)
    assert layer(codes).tolist() == [[3, 3], [127, 127]]  # 3 is the zero point
    assert to_grid(np.array([10**6]), np.float32(1), layer.output_grid).tolist() == [127]


def test_bad_codes():
    with pytest.raises(ValueError, match="codes has shape"):
        IntegerDense(**layer_parts())(np.zeros((3, 5), np.int8))
    with pytest.raises(ValueError, match="output_grid is None"):
        IntegerDense(**layer_parts(output_grid=None))(np.zeros((3, 4), np.int8))


@pytest.mark.filterwarnings("ignore")
def test_a_float_file_has_no_integer_layers():
    import tensorflow as tf

    kernel = tf.ones((3, 2))
    function = tf.function(lambda x: x @ kernel, input_signature=[tf.TensorSpec([1, 3])])
    concrete = function.get_concrete_function()
    content = tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert()
    with pytest.raises(ValueError, match="no dense layer in int8"):
        read_litert_dense(content)


@pytest.mark.filterwarnings("ignore")
def test_all_layers_of_a_ranker_are_equal_to_litert(tmp_path):
    """Each dense layer of an exported NeuMF, from the codes that LiteRT itself gave it."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    from recsys_lib.models import RatingModelConfig, build_rating_model
    from recsys_lib.serving import export_litert

    model = build_rating_model(RatingModelConfig("neumf", 300, 400, 16, init_std=0.7))
    random = np.random.default_rng(0)
    ids = {"user": random.integers(0, 300, 2000), "item": random.integers(0, 400, 2000)}
    export_litert(model, tmp_path / "ranker.tflite", "int8", tuple(ids.values()))
    content = (tmp_path / "ranker.tflite").read_bytes()
    litert = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    for detail in litert.get_input_details():
        litert.resize_tensor_input(detail["index"], [2000])
    litert.allocate_tensors()
    for detail in litert.get_input_details():
        side = "user" if "user" in detail["name"] else "item"
        litert.set_tensor(detail["index"], ids[side].astype(np.int32))
    litert.invoke()
    operations = [op for op in litert._get_ops_details() if op["op_name"] == "FULLY_CONNECTED"]
    layers = read_litert_dense(content).values()
    assert len(layers) == 4
    for layer, operation in zip(layers, operations, strict=True):
        codes, expected = (litert.get_tensor(operation[end][0]) for end in ("inputs", "outputs"))
        assert len(np.unique(expected)) > 50
        np.testing.assert_array_equal(layer(codes), expected)
