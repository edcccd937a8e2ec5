"""Integer models against the fake-quantized ones they come from; dynamic ones against LiteRT."""

from __future__ import annotations

import numpy as np
import pytest

from recsys_lib.compression import CompressedModel, named_weights
from recsys_lib.compression.quantization import (
    IntegerQuantization,
    convert,
    quantization_aware,
    quantize_dynamic,
    quantize_static,
)
from recsys_lib.compression.quantization.fake_quant import quantize_to_grid
from recsys_lib.compression.quantization.integer_model import to_codes
from recsys_lib.data import Interactions
from recsys_lib.models import IALS, RatingModelConfig, build_rating_model
from recsys_lib.training import KerasRecommender, KerasScorer

KINDS = ("dot_product", "matrix_factorization", "two_tower", "mlp_ranker", "neumf")
NUM_USERS, NUM_ITEMS = 300, 400


def build(kind, seed=0):
    config = RatingModelConfig(kind, NUM_USERS, NUM_ITEMS, 16, init_std=0.7, seed=seed)
    return build_rating_model(config)


def pairs(count, seed=0):
    random = np.random.default_rng(seed)
    return [random.integers(0, NUM_USERS, count), random.integers(0, NUM_ITEMS, count)]


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_are_those_of_the_fake_quantized_model(kind, bits):
    ids = pairs(4000)
    aware = quantization_aware(build(kind), IntegerQuantization(bits))
    expected = np.asarray(aware(ids))
    scores = convert(aware).score(*ids)
    near = np.isclose(scores, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    # The others passed a code that lay between two, in one of the layers.
    assert near.mean() > 0.99
    assert np.abs(scores - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("requantization", ["single", "float"])
@pytest.mark.parametrize("kind", ["mlp_ranker", "neumf", "two_tower"])
def test_codes_are_equal_or_one_unit_apart_at_a_tie(kind, requantization):
    """Layer by layer, from the same inputs: the number before rounding decides."""
    ids = pairs(3000)
    integer = convert(quantization_aware(build(kind), IntegerQuantization(8)), requantization)
    values = integer.run(ids)
    sources = {step.name: step.inputs for step in integer.steps}
    checked = 0
    for name, layer in integer.layers.items():
        value = values[sources[name][0]]
        real = value.codes * np.float64(1) * value.scale
        grid = layer.input_grid
        codes = to_codes(value, grid, requantization)
        expected = quantize_to_grid(real.astype(np.float32), grid)
        apart = codes != expected
        steps = real / np.float64(grid.scale)
        tie = np.abs(steps - np.floor(steps) - 0.5)
        assert np.abs(codes - expected).max() <= 1
        assert tie[apart].max(initial=0) < 1e-4
        assert apart.mean() < 1e-3
        twice = to_codes(value, grid, "double").astype(int)
        assert np.abs(twice - expected).max() == 1  # rounds half a unit before it rounds a unit
        checked += codes.size
    assert checked > 1e5


@pytest.mark.parametrize("bits", [4, 2])
@pytest.mark.parametrize("kind", ["mlp_ranker", "neumf"])
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
    model = build("neumf")
    sizes = {}
    for bits in (8, 4, 3, 2):
        integer = convert(quantization_aware(model, IntegerQuantization(bits)))
        assert isinstance(integer, CompressedModel)
        for layer in integer.layers.values():
            assert (layer.kernel.dtype, layer.bias.dtype) == (np.int8, np.int32)
            assert np.abs(layer.kernel).max() <= 2 ** (bits - 1) - 1
        for name, values in named_weights(model).items():
            tensor = integer.tensors[name]
            if values.ndim == 2:
                codes = tensor.arrays()["codes"]
                assert codes.nbytes == -(-values.size * bits // 8)
                assert len(np.unique(tensor.codes)) <= 2**bits - 1
        sizes[bits] = integer.nbytes
        assert integer.report.bytes_after == integer.nbytes
        assert 0 < integer.report.relative_error < 1
    floats = sum(4 * values.size for values in named_weights(model).values())
    assert sizes[2] < sizes[3] < sizes[4] < sizes[8] < floats / 3


def test_model_of_the_result_has_the_rounded_weights():
    """Its scores differ only by what is rounded between the layers."""
    ids = pairs(1000)
    integer = convert(quantization_aware(build("mlp_ranker"), IntegerQuantization(4)))
    decoded = named_weights(integer.model)
    for name, values in decoded.items():
        np.testing.assert_array_equal(values, integer.tensors[name].decode())
    difference = np.asarray(integer.model(ids)) - integer.score(*ids)
    assert 0 < np.abs(difference).max() < 0.2 * np.abs(integer.score(*ids)).max()


def test_scores_of_all_items():
    integer = quantize_static(build("mlp_ranker"), pairs(500))
    scores = integer.score_all_items([3, 250])
    assert scores.shape == (2, NUM_ITEMS)
    np.testing.assert_array_equal(scores[1], integer.score([250] * NUM_ITEMS, range(NUM_ITEMS)))


def test_static_quantization_follows_its_calibration():
    model, ids = build("mlp_ranker"), pairs(1000)
    exact = np.asarray(model(ids))

    def error(calibration):
        return np.abs(quantize_static(model, calibration).score(*ids) - exact).mean()

    quiet = np.argsort(np.abs(np.asarray(model.get_layer("user_embedding").embeddings)).max(1))[:1]
    assert error(pairs(2000, seed=1)) < 0.01
    # Ranges from one quiet user clip everybody else's numbers.
    assert error((np.repeat(quiet, 5), np.arange(5))) > 3 * error(pairs(2000, seed=1))


def test_static_int8_and_litert_int8_rank_alike(tmp_path):
    """Two int8 models of the same weights, calibrated on the same pairs."""
    from recsys_lib.serving import export_litert, load_scorer

    model, ids = build("mlp_ranker"), pairs(3000)
    calibration = pairs(1500, seed=1)
    ours = quantize_static(model, calibration).score(*ids)
    export_litert(model, tmp_path / "ranker.tflite", "int8", tuple(calibration))
    theirs = load_scorer(tmp_path / "ranker.tflite").score(*ids)
    exact = np.asarray(model(ids))
    errors = [np.abs(scores - exact).mean() for scores in (ours, theirs)]
    assert errors[0] < errors[1]  # LiteRT has one scale a table, and rounds the logits
    assert np.corrcoef(ours, theirs)[0, 1] > 0.99


def test_bad_arguments():
    model = build("mlp_ranker")
    with pytest.raises(TypeError, match="no fake-quantized layer"):
        convert(model)
    aware = quantization_aware(model, IntegerQuantization())
    with pytest.raises(ValueError, match="requantization is 'triple'"):
        convert(aware, "triple")
    with pytest.raises(ValueError, match="calibration is None"):
        quantize_static(model, None)
    with pytest.raises(ValueError, match="calibration has"):
        quantize_static(model, ([], []))
    integer = convert(aware)
    with pytest.raises(ValueError, match="item_ids has shape"):
        integer.score([1, 2], [1])
    with pytest.raises(ValueError, match="item_ids"):
        integer.score([1], [NUM_ITEMS])
    aware.get_layer("dense_0").kernel.assign(aware.get_layer("dense_0").kernel * np.nan)
    with pytest.raises(ValueError, match="dense_0/kernel holds"):
        convert(aware)


USERS, ITEMS = np.random.default_rng(0).integers(0, 50, (2, 500))


def ranker(kind="mlp_ranker"):
    return build_rating_model(RatingModelConfig(kind, 50, 70, embedding_dim=64))


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
    exact = ranker(kind)
    before = exact.get_weights()
    small = quantize_dynamic(exact)
    scores, expected = small.score(USERS, ITEMS), np.asarray(exact([USERS, ITEMS]))
    assert 0 < np.abs(scores - expected).max() / expected.std() < 0.15
    assert 3 < small.report.ratio < 4
    for old, new in zip(before, exact.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_dynamic_scores_are_near_those_of_litert(tmp_path):
    pytest.importorskip("ai_edge_litert")
    from recsys_lib.notebook import quiet
    from recsys_lib.serving import export_litert, load_scorer

    exact = ranker()
    with quiet():
        export_litert(exact, tmp_path / "dynamic.tflite", "dynamic")
        theirs = load_scorer(tmp_path / "dynamic.tflite").score(USERS, ITEMS)
    ours = quantize_dynamic(exact).score(USERS, ITEMS)
    expected = np.asarray(exact([USERS, ITEMS]))
    rounding = np.sqrt(np.mean((ours - expected) ** 2))
    # LiteRT gives each row a zero point too, and so a finer step where ReLU leaves one side.
    assert rounding < 1.5 * np.sqrt(np.mean((theirs - expected) ** 2))
    assert np.corrcoef(ours, theirs)[0, 1] > 0.999


def test_a_dynamic_recommender_stays_one():
    data = Interactions(USERS, ITEMS, num_users=50, num_items=70)
    config = RatingModelConfig("mlp_ranker", 50, 70)
    small = quantize_dynamic(KerasRecommender(config, epochs=1, progress=False).fit(data))
    assert isinstance(small.model, KerasRecommender)
    scores = small.score_all_items([3, 4])
    assert scores.shape == (2, 70)
    np.testing.assert_allclose(scores[0, :5], small.score([3] * 5, range(5)), rtol=1e-4, atol=1e-6)
    with pytest.raises(TypeError, match="model is of type IALS"):
        quantize_dynamic(IALS(embedding_dim=2).fit(data))
