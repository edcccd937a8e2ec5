"""TFMOT on the twin, Keras 3 all the while; and what we wrote by hand against TFMOT and LiteRT."""

import importlib.util
import os
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest

# Not imported here: that would turn the Keras of TensorFlow's name space into tf_keras.
if importlib.util.find_spec("tensorflow_model_optimization") is None:
    pytest.skip("an extra: recsys-lib[tfmot]", allow_module_level=True)

from recsys_lib.compression import named_weights, tfmot, with_weights
from recsys_lib.compression.pruning import WeightPruning, magnitude_mask, prune
from recsys_lib.compression.quantization import IntegerQuantization, quantization_aware
from recsys_lib.compression.tfmot import TfmotPruning, TfmotQuantization, TwinTraining
from recsys_lib.data import Interactions
from recsys_lib.models import IALS, RatingModelConfig
from recsys_lib.training import KerasRecommender, fit

USERS, ITEMS = 40, 60
IDS = np.random.default_rng(0).integers(0, [USERS, ITEMS], (1000, 2)).T
DATA = Interactions(*IDS, num_users=USERS, num_items=ITEMS)
PAIRS = DATA.user_ids[:200].astype(np.int32), DATA.item_ids[:200].astype(np.int32)
DEEP = ("two_tower", "mlp_ranker", "neumf")
STEPS = {
    "prune": (tfmot.prune_with_tfmot, TfmotPruning(0.75, training=TwinTraining(1, 500))),
    "qat": (tfmot.qat_with_tfmot, TfmotQuantization(training=TwinTraining(1, 500))),
}


def config(kind="mlp_ranker"):
    hidden = (16, 8) if kind in DEEP else None
    bias = 3.5 if kind == "matrix_factorization" else 0.0
    return RatingModelConfig(kind, USERS, ITEMS, 8, hidden_units=hidden, global_bias=bias)


@pytest.fixture(scope="module")
def model(random_model):
    return lambda kind="mlp_ranker": random_model(config(kind), 0.05)


@pytest.mark.parametrize("kind", ["dot_product", "matrix_factorization", *DEEP])
def test_the_twin_scores_the_same_and_shares_nothing(kind, model):
    original = model(kind)
    twin, expected = tfmot.to_twin(original), np.asarray(original(PAIRS))
    assert type(twin).__module__.startswith("tf_keras")
    for same in (twin, with_weights(original, tfmot.twin_weights(twin))):
        np.testing.assert_array_equal(np.asarray(same(PAIRS)), expected)
    twin.set_weights([w * 0 for w in twin.get_weights()])
    np.testing.assert_array_equal(np.asarray(original(PAIRS)), expected)


def test_training_the_twin_is_training_the_model(model):
    """The same batches, draws and objective as our own ``fit``, in the other Keras."""
    original, options = model("neumf"), {"epochs": 2, "batch_size": 300, "seed": 3}
    before, twin = named_weights(original), tfmot.to_twin(original)
    tfmot._fit_twin(twin, DATA, TwinTraining(optimizer="sgd", learning_rate=1.0, **options))
    fit(original, DATA, optimizer=keras.optimizers.SGD(1.0), progress=False, **options)
    for name, values in named_weights(original).items():
        np.testing.assert_allclose(named_weights(twin)[name], values, atol=1e-6)
        assert np.abs(values - before[name]).max() > 1e-3


@pytest.mark.parametrize("batch_size", [1000, pytest.param(7, marks=pytest.mark.slow)])
def test_any_number_of_updates_reaches_the_sparsity(batch_size, model):
    """TFMOT left to its defaults acts every 100 updates, so that a short run prunes nothing."""
    before, training = os.environ.get("TF_USE_LEGACY_KERAS"), TwinTraining(1, batch_size)
    options = TfmotPruning(0.75, layers=("dense_0", "user_embedding"), training=training)
    pruned = tfmot.prune_with_tfmot(model(), DATA, options)
    weights = named_weights(pruned.model)
    for name in ("dense_0/kernel", "user_embedding/embeddings"):
        assert np.mean(weights[name] == 0) == 0.75
        assert pruned.tensors[name].kind in ("csr", "bitmap")
    assert np.mean(weights["dense_1/kernel"] == 0) == 0
    # Training goes on in Keras 3 afterwards.
    assert keras.__version__.startswith("3") and isinstance(pruned.model, keras.Model)
    assert os.environ.get("TF_USE_LEGACY_KERAS") == before
    history = fit(pruned.model, DATA, epochs=2, optimizer="adam", progress=False)
    assert history.loss[-1] < history.loss[0]


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_the_original_stays_and_a_recommender_comes_back(step):
    recommender = KerasRecommender(config("two_tower"), epochs=1, progress=False).fit(DATA)
    (run, options), before = STEPS[step], named_weights(recommender)
    result = run(recommender, DATA, options)
    np.testing.assert_equal(named_weights(recommender), before)
    assert isinstance(result.model, KerasRecommender)
    assert result.score_all_items([0, 3]).shape == (2, ITEMS)
    assert result.report.bytes_after == result.nbytes and result.report.config is options


@pytest.mark.parametrize("bits", [pytest.param(4, marks=pytest.mark.slow), 8])
def test_rounded_weights_are_what_the_twin_computes_with(bits, monkeypatch, model):
    original = model()
    options = TfmotQuantization(bits, training=TwinTraining(epochs=2, batch_size=100))
    twin = tfmot.quantization_aware_twin(original, DATA, options)
    rounded = tfmot.twin_weights(twin)
    scores = np.asarray(with_weights(original, rounded)(PAIRS))
    error = np.abs(np.asarray(twin(PAIRS)) - scores).max()
    assert 0 < error < 0.05 * np.ptp(scores)  # the twin rounds activations too
    monkeypatch.setattr(tfmot, "quantization_aware_twin", lambda *given: twin)
    compressed = tfmot.qat_with_tfmot(original, DATA, options)
    for name, values in named_weights(compressed.model).items():
        np.testing.assert_allclose(values, rounded[name], rtol=1e-6, atol=1e-9)
        if not name.endswith("bias"):
            assert compressed.tensors[name].kind == "uniform" and len(np.unique(values)) < 2**bits
    codes = sum(values.size for values in rounded.values()) * bits / 8
    assert codes < compressed.nbytes < codes + 200 * len(compressed.tensors)


@pytest.mark.slow
def test_the_keras_of_tensorflow_stays_keras_3():
    """TFMOT alone turns it into tf_keras for the rest of the process."""
    code = """from recsys_lib.compression.tfmot import load_tfmot
load_tfmot()
import os, tensorflow as tf
print(tf.keras.Model.__module__.split(".")[0], os.environ.get("TF_USE_LEGACY_KERAS"))"""
    clean = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    printed = subprocess.check_output([sys.executable, "-c", code], text=True, env=clean)
    assert printed.split() == ["keras", "None"]


@pytest.mark.parametrize("step", STEPS)
def test_refuses_before_any_work(step, monkeypatch, refuses, model):
    (run, options), broken = STEPS[step], model()
    broken.get_layer("score").bias.assign([np.nan])
    few = Interactions([0], [0], num_users=3, num_items=60)
    layers = [type(options)(layers=names) for names in (("dense_9",), ("concatenate",), (), "a")]
    refuses(
        ("config", lambda: run(model(), DATA, {})),
        ("interactions is", lambda: run(model(), [], options)),
        ("interactions counts", lambda: run(model(), few, options)),
        ("model is of type IALS", lambda: run(IALS(), DATA, options)),
        ("score/bias", lambda: run(broken, DATA, options)),
        *(("layers", lambda wrong=wrong: run(model(), DATA, wrong)) for wrong in layers),
    )
    for missing in ("tensorflow_model_optimization", "tf_keras"):
        with monkeypatch.context() as context:
            context.setitem(sys.modules, missing, None)
            refuses((missing, lambda: run(model(), DATA, options)))


def test_refuses_other_models_and_choices_out_of_range(refuses, model):
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name="other")
    changed, huge = model(), TwinTraining(optimizer="sgd", learning_rate=1e30)
    changed.get_layer("dense_1").activation = keras.activations.tanh
    refuses(
        ("'other'.*build_rating_model", lambda: tfmot.to_twin(other)),
        ("other scores", lambda: tfmot.to_twin(changed)),
        ("adagard", lambda: tfmot._fit_twin(None, DATA, TwinTraining(optimizer="adagard"))),
        ("rate 1e", lambda: tfmot._fit_twin(tfmot.to_twin(model()), DATA, huge)),
        ("sparsity", lambda: TfmotPruning(1.0)),
        ("bits", lambda: TfmotQuantization(9)),
    )


@pytest.mark.slow
def test_training_with_tfmot_masks_what_our_masks_do(model):
    original = model()  # nothing moves but what TFMOT itself does to the weights
    still = TwinTraining(epochs=1, batch_size=500, optimizer="sgd", learning_rate=0.0)
    layers = ("user_embedding", "item_embedding", "dense_0")
    config = TfmotPruning(0.8, layers=layers, training=still)
    pruned = named_weights(tfmot.prune_with_tfmot(original, DATA, config).model)
    for name in ("user_embedding/embeddings", "item_embedding/embeddings", "dense_0/kernel"):
        weights = named_weights(original)[name]
        np.testing.assert_array_equal(pruned[name], weights * magnitude_mask(weights, 0.8))


@pytest.mark.slow
def test_training_for_quantization_unprunes_in_plain_tfmot_but_not_in_ours(model):
    def zeros(model):  # the share of them in tables and kernels
        values = [w.ravel() for n, w in named_weights(model).items() if not n.endswith("bias")]
        return np.mean(np.concatenate(values) == 0)

    original = model()
    fit(original, DATA, epochs=5, batch_size=500, optimizer="adam", progress=False)
    pruned = prune(original, WeightPruning(0.8)).model
    training = TwinTraining(epochs=3, batch_size=250, learning_rate=0.003)
    plain = tfmot.qat_with_tfmot(pruned, DATA, TfmotQuantization(8, training=training))
    assert zeros(pruned) == pytest.approx(0.8, abs=0.01)
    assert zeros(plain.model) < 0.2
    aware = quantization_aware(pruned, IntegerQuantization(8), DATA)
    fit(aware, DATA, epochs=3, batch_size=250, progress=False)
    moved = []
    for name, before in named_weights(pruned).items():
        if not name.endswith("bias"):
            layer, weight = name.split("/")
            values = np.asarray(getattr(aware.get_layer(layer), weight))
            assert (values[before == 0] == 0).all()
            moved.append(np.abs(values - before).max())
    assert max(moved) > 0.001


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["neumf", "two_tower"])
def test_the_converted_twin_computes_in_integers_what_the_twin_does(kind, model, run_litert):
    """Its ranges are those of training. Where branches join, LiteRT rounds once more."""
    import tensorflow as tf

    training = TwinTraining(epochs=2, batch_size=250)
    twin = tfmot.quantization_aware_twin(model(kind), DATA, TfmotQuantization(training=training))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converter, about itself
        converter = tf.lite.TFLiteConverter.from_keras_model(twin)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        content = converter.convert()
    litert, given = run_litert(content, {"user": PAIRS[0], "item": PAIRS[1]})
    types = [d["dtype"] for d in litert.get_tensor_details() if d["name"]]
    assert types.count(np.float32) == 1, "only the output is dequantized"
    levels, errors = np.unique(given), np.abs(given - np.asarray(twin(PAIRS)))
    step = np.diff(levels).min()
    assert len(levels) > 20
    assert errors.max() < 3.01 * step and np.median(errors) < 1.01 * step
