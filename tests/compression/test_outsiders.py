"""What we wrote by hand against TFMOT and LiteRT, which others wrote, through training."""

from __future__ import annotations

import functools
import importlib.util
import warnings
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("tensorflow_model_optimization") is None:
    pytest.skip("an extra: recsys-lib[tfmot]", allow_module_level=True)

from recsys_lib.compression import named_weights
from recsys_lib.compression.pruning import WeightPruning, magnitude_mask, prune
from recsys_lib.compression.quantization import IntegerQuantization, quantization_aware
from recsys_lib.compression.tfmot import (
    TfmotPruning,
    TfmotQuantization,
    TwinTraining,
    prune_with_tfmot,
    qat_with_tfmot,
    quantization_aware_twin,
)
from recsys_lib.data import Interactions
from recsys_lib.models import RatingModelConfig, build_rating_model
from recsys_lib.training import fit

pytestmark = pytest.mark.slow  # each takes a second or more, and together they are an eighth of all

USERS, ITEMS = 64, 96
RANDOM = np.random.default_rng(0)
DATA = Interactions(
    RANDOM.integers(0, USERS, 2000),
    RANDOM.integers(0, ITEMS, 2000),
    num_users=USERS,
    num_items=ITEMS,
)
# Nothing moves but what TFMOT itself does to the weights.
STILL = TwinTraining(epochs=1, batch_size=500, optimizer="sgd", learning_rate=0.0)
MATRICES = ("user_embedding/embeddings", "item_embedding/embeddings", "dense_0/kernel")


def model(kind: str = "mlp_ranker") -> Any:
    config = RatingModelConfig(kind, USERS, ITEMS, 8, hidden_units=(32, 16), init_std=0.3)
    return build_rating_model(config)


@pytest.mark.parametrize(
    ("granularity", "sparsity", "options"),
    [
        ("element", 0.8, {}),
        ("n_of_m", 0.5, {}),
        ("n_of_m", 0.25, {"group_size": 8}),
    ],
)
def test_training_with_tfmot_masks_what_our_masks_do(
    granularity: str, sparsity: float, options: dict[str, Any]
) -> None:
    original = model()
    layers = [name.split("/")[0] for name in MATRICES]
    config = TfmotPruning(sparsity, granularity, layers=layers, training=STILL, **options)
    pruned = named_weights(prune_with_tfmot(original, DATA, config).model)
    for name in MATRICES:
        weights = named_weights(original)[name]
        mask = magnitude_mask(weights, sparsity, granularity, **options)
        np.testing.assert_array_equal(pruned[name], weights * mask)


def _zeros(model: Any) -> float:
    """Share of zeros in tables and kernels."""
    values = [w.ravel() for name, w in named_weights(model).items() if not name.endswith("bias")]
    return float(np.mean(np.concatenate(values) == 0))


@functools.cache
def _pruned() -> Any:
    """A model trained until its weights matter, then pruned."""
    original = model()
    fit(original, DATA, epochs=5, batch_size=500, optimizer="adam", progress=False)
    return prune(original, WeightPruning(0.8)).model


@pytest.mark.parametrize("preserve", [False, True])
def test_plain_tfmot_training_for_quantization_unprunes(preserve: bool) -> None:
    pruned = _pruned()
    assert _zeros(pruned) == pytest.approx(0.8, abs=0.01)
    training = TwinTraining(epochs=3, batch_size=250, learning_rate=0.003)
    config = TfmotQuantization(8, preserve_sparsity=preserve, training=training)
    after = _zeros(qat_with_tfmot(pruned, DATA, config).model)
    assert after >= 0.8 - 0.01 if preserve else after < 0.2


def test_our_training_for_quantization_stays_pruned() -> None:
    pruned = _pruned()
    aware = quantization_aware(pruned, IntegerQuantization(8), DATA)
    fit(aware, DATA, epochs=3, batch_size=250, progress=False)
    names = [name for name in named_weights(pruned) if not name.endswith("bias")]
    moved = 0.0
    for name in names:
        layer, weight = name.split("/")
        values = np.asarray(getattr(aware.get_layer(layer), weight))
        before = named_weights(pruned)[name]
        assert (values[before == 0] == 0).all()
        moved = max(moved, float(np.abs(values - before).max()))
    assert moved > 0.001


@pytest.mark.parametrize(
    "kind",
    ["neumf", pytest.param("two_tower", marks=pytest.mark.slow)],
)
def test_the_converted_twin_computes_in_integers_what_the_twin_does(kind: str) -> None:
    """LiteRT gets no calibration: the ranges are those of training. Where branches join it rounds
    once more than the twin, so that a score may be a few steps away.
    """
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    training = TwinTraining(epochs=2, batch_size=250)
    twin = quantization_aware_twin(model(kind), DATA, TfmotQuantization(training=training))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converter, about itself
        converter = tf.lite.TFLiteConverter.from_keras_model(twin)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        interpreter = Interpreter(model_content=converter.convert())
    users, items = DATA.user_ids[:500].astype(np.int32), DATA.item_ids[:500].astype(np.int32)
    for detail in interpreter.get_input_details():
        interpreter.resize_tensor_input(detail["index"], [500])
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], users if "user" in detail["name"] else items)
    interpreter.invoke()
    given = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    floats = [
        d["name"]
        for d in interpreter.get_tensor_details()
        if d["dtype"] == np.float32 and d["name"]
    ]
    assert len(floats) == 1, "only the output is dequantized"
    expected = np.asarray(twin([users, items]))
    levels = np.unique(given)
    step = np.diff(levels).min()
    assert len(levels) > 20
    assert np.abs(given - expected).max() < 3.01 * step
    assert np.median(np.abs(given - expected)) < 1.01 * step
