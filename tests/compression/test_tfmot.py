"""TFMOT on the twin: the same model before, what was asked for after, Keras 3 all the while."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

# Not imported here: that would turn the Keras of TensorFlow's name space into tf_keras.
if importlib.util.find_spec("tensorflow_model_optimization") is None:
    pytest.skip("an extra: recsys-lib[tfmot]", allow_module_level=True)

from recsys_lib.compression import CompressedModel, named_weights, with_weights
from recsys_lib.compression.pruning import magnitude_mask
from recsys_lib.compression.tfmot import (
    TfmotClustering,
    TfmotPruning,
    TfmotQuantization,
    TwinTraining,
    cluster_with_tfmot,
    from_twin,
    prune_with_tfmot,
    qat_with_tfmot,
    quantization_aware_twin,
    to_twin,
)
from recsys_lib.compression.tfmot.training import fit_twin
from recsys_lib.data import Interactions
from recsys_lib.models import IALS, RatingModelConfig, build_rating_model
from recsys_lib.training import KerasRecommender, fit

USERS, ITEMS = 40, 60
RANDOM = np.random.default_rng(0)
DATA = Interactions(
    RANDOM.integers(0, USERS, 1000),
    RANDOM.integers(0, ITEMS, 1000),
    ratings=RANDOM.normal(size=1000).astype(np.float32),
    num_users=USERS,
    num_items=ITEMS,
)
PAIRS = DATA.user_ids[:200].astype(np.int32), DATA.item_ids[:200].astype(np.int32)
KINDS = ("dot_product", "matrix_factorization", "two_tower", "mlp_ranker", "neumf")
BRIEF = TwinTraining(epochs=1, batch_size=500)
Step = Callable[[Any, Interactions, Any], CompressedModel]
STEPS: dict[str, tuple[Step, Any]] = {
    "prune": (prune_with_tfmot, TfmotPruning(0.75, training=BRIEF)),
    "cluster": (cluster_with_tfmot, TfmotClustering(8, training=BRIEF)),
    "qat": (qat_with_tfmot, TfmotQuantization(training=BRIEF)),
}


def config(kind: str = "mlp_ranker") -> RatingModelConfig:
    hidden = (16, 8) if kind in ("two_tower", "mlp_ranker", "neumf") else None
    bias = 3.5 if kind == "matrix_factorization" else 0.0
    return RatingModelConfig(kind, USERS, ITEMS, 8, hidden_units=hidden, global_bias=bias)


def model(kind: str = "mlp_ranker") -> Any:
    """A model whose biases are not zero either."""
    plain, random = build_rating_model(config(kind)), np.random.default_rng(1)
    return with_weights(
        plain,
        {
            name: values + random.normal(0, 0.05, values.shape).astype(np.float32)
            for name, values in named_weights(plain).items()
        },
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_twin_scores_the_same_and_shares_nothing(kind: str) -> None:
    original = model(kind)
    before = named_weights(original)
    twin = to_twin(original)
    assert type(twin).__module__.startswith("tf_keras")
    expected = np.asarray(original(PAIRS))
    assert np.abs(np.asarray(twin(PAIRS)) - expected).max() == 0.0
    again = from_twin(twin, config(kind))
    assert isinstance(again, keras.Model)
    assert np.abs(np.asarray(again(PAIRS)) - expected).max() == 0.0
    twin.set_weights([w * 0 for w in twin.get_weights()])
    again.set_weights([w * 0 for w in again.get_weights()])
    for name, values in named_weights(original).items():
        np.testing.assert_array_equal(values, before[name])


@pytest.mark.parametrize("objective", ["sigmoid_cross_entropy", "squared_error"])
def test_training_the_twin_is_training_the_model(objective: str) -> None:
    """The same batches, draws and objective as our own ``fit``, in the other Keras."""
    original, options = model("neumf"), {"epochs": 2, "batch_size": 300, "seed": 3}
    twin = to_twin(original)
    fit_twin(
        twin,
        DATA,
        TwinTraining(optimizer="sgd", learning_rate=1.0, objective=objective, **options),  # type: ignore[arg-type]
    )
    before = named_weights(original)
    fit(
        original,
        DATA,
        objective=objective,
        optimizer=keras.optimizers.SGD(1.0),
        progress=False,
        **options,  # type: ignore[arg-type]
    )
    for name, values in named_weights(original).items():
        np.testing.assert_allclose(named_weights(twin)[name], values, atol=1e-6)
        assert np.abs(values - before[name]).max() > 1e-3


@pytest.mark.parametrize(
    ("schedule", "batch_size"),
    [
        ("polynomial", 1000),
        ("constant", 7),
        pytest.param("polynomial", 7, marks=pytest.mark.slow),
        pytest.param("constant", 1000, marks=pytest.mark.slow),
    ],
)
def test_any_number_of_updates_reaches_the_sparsity(schedule: str, batch_size: int) -> None:
    """TFMOT left to its defaults acts every 100 updates, so that a short run prunes nothing."""
    training = TwinTraining(epochs=1, batch_size=batch_size)
    layers = ("dense_0", "user_embedding")
    pruned = prune_with_tfmot(
        model(), DATA, TfmotPruning(0.75, schedule=schedule, layers=layers, training=training)
    )
    weights = named_weights(pruned.model)
    for name in ("dense_0/kernel", "user_embedding/embeddings"):
        assert np.mean(weights[name] == 0) == 0.75
        assert pruned.tensors[name].kind in ("csr", "bitmap")
    assert np.mean(weights["dense_1/kernel"] == 0) == 0


@pytest.mark.parametrize(
    "step", ["prune", *(pytest.param(s, marks=pytest.mark.slow) for s in ("cluster", "qat"))]
)
def test_the_original_stays_and_a_recommender_comes_back(step: str) -> None:
    recommender = KerasRecommender(config("two_tower"), epochs=1, progress=False).fit(DATA)
    before = named_weights(recommender)
    run, options = STEPS[step]
    result = run(recommender, DATA, options)
    for name, values in named_weights(recommender).items():
        np.testing.assert_array_equal(values, before[name])
    assert isinstance(result.model, KerasRecommender)
    assert result.score_all_items([0, 3]).shape == (2, ITEMS)
    assert result.report.bytes_before == 4 * sum(values.size for values in before.values())
    assert result.report.bytes_after == result.nbytes
    assert "TFMOT" in result.report.method and result.report.config is options


def test_clusters_are_as_few_as_asked_for_and_stay_at_zero() -> None:
    original = model()
    sparse = with_weights(
        original,
        {
            name: values * magnitude_mask(values, 0.6)
            for name, values in named_weights(original).items()
            if name.endswith(("kernel", "embeddings"))
        },
    )
    training = TwinTraining(epochs=1, batch_size=250, learning_rate=0.01)
    options = TfmotClustering(8, preserve_sparsity=True, training=training)
    kept = named_weights(cluster_with_tfmot(sparse, DATA, options).model)
    for name in ("dense_0/kernel", "user_embedding/embeddings", "dense_1/kernel"):
        assert 2 < len(np.unique(kept[name])) <= 8
        assert (kept[name][named_weights(sparse)[name] == 0] == 0).all()
    few = named_weights(
        cluster_with_tfmot(sparse, DATA, TfmotClustering(8, training=training)).model
    )
    assert len(np.unique(few["dense_0/kernel"])) <= 8
    assert len(np.unique(few["dense_1/bias"])) == 8  # not a kernel or a table: left alone


@pytest.mark.parametrize("bits", [pytest.param(4, marks=pytest.mark.slow), 8])
def test_rounded_weights_are_what_the_twin_computes_with(bits: int) -> None:
    original = model()
    options = TfmotQuantization(bits, training=TwinTraining(epochs=2, batch_size=100))
    twin = quantization_aware_twin(original, DATA, options)
    rounded = from_twin(twin, config())
    scores = np.asarray(rounded(PAIRS))
    error = np.abs(np.asarray(twin(PAIRS)) - scores).max()
    assert 0 < error < 0.05 * np.ptp(scores)  # the twin rounds activations too
    compressed = qat_with_tfmot(original, DATA, options)
    for name, values in named_weights(compressed.model).items():
        np.testing.assert_allclose(values, named_weights(rounded)[name], rtol=1e-6, atol=1e-9)
        if not name.endswith("bias"):
            assert compressed.tensors[name].kind == "uniform"
            assert len(np.unique(values)) < 2**bits
    codes = sum(values.size for values in named_weights(original).values()) * bits / 8
    assert codes < compressed.nbytes < codes + 200 * len(compressed.tensors)


def test_training_goes_on_in_keras_3_afterwards() -> None:
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    run, options = STEPS["prune"]
    pruned = run(model(), DATA, options).model
    assert keras.__version__.startswith("3") and isinstance(pruned, keras.Model)
    assert os.environ.get("TF_USE_LEGACY_KERAS") == before
    history = fit(pruned, DATA, epochs=2, optimizer=keras.optimizers.Adam(0.01), progress=False)
    assert history.loss[-1] < history.loss[0]


@pytest.mark.slow
def test_the_keras_of_tensorflow_stays_keras_3() -> None:
    """TFMOT alone turns it into tf_keras for the rest of the process."""
    ours = "from recsys_lib.compression.tfmot.twin import load_tfmot; load_tfmot()"
    code = (
        "{}; import os, tensorflow as tf; "
        "print(tf.keras.Model.__module__.split('.')[0], os.environ.get('TF_USE_LEGACY_KERAS'))"
    )
    clean = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    running = [  # side by side: loading is all that takes time
        subprocess.Popen([sys.executable, "-c", code.format(load)], text=True, env=clean,
                         stdout=subprocess.PIPE)
        for load in (ours, "import tensorflow_model_optimization")
    ]  # fmt: skip
    printed = [process.communicate()[0] for process in running]
    assert [text.split() for text in printed] == [["keras", "None"], ["tf_keras", "1"]]


@pytest.mark.parametrize("step", STEPS)
def test_wrong_arguments_are_refused_before_any_work(step: str) -> None:
    run, options = STEPS[step]
    with pytest.raises(
        TypeError, match=f"config is of type dict: expected {type(options).__name__}"
    ):
        run(model(), DATA, {})
    with pytest.raises(TypeError, match="interactions is of type list: expected Interactions"):
        run(model(), [], options)
    with pytest.raises(ValueError, match=r"of 3 users and 60 items: expected .* of 40 and 60"):
        run(model(), Interactions([0], [0], num_users=3, num_items=60), options)
    with pytest.raises(ValueError, match="not built"):
        run(keras.Sequential([keras.layers.Dense(2)]), DATA, options)
    with pytest.raises(TypeError, match="model is of type IALS"):
        run(IALS(), DATA, options)
    with pytest.raises(RuntimeError, match="fit"):
        run(KerasRecommender(config()), DATA, options)
    broken = model()
    broken.get_layer("score").bias.assign([np.nan])
    with pytest.raises(ValueError, match="score/bias holds 1 NaN"):
        run(broken, DATA, options)

    def with_layers(*layers: str) -> Any:
        return type(options)(layers=layers, training=BRIEF)

    with pytest.raises(ValueError, match="layers names 'dense_9': expected some of concatenate"):
        run(model(), DATA, with_layers("dense_9"))
    with pytest.raises(ValueError, match="'concatenate', of class Concatenate: expected Dense or"):
        run(model(), DATA, with_layers("concatenate"))
    with pytest.raises(ValueError, match="layers is empty"):
        run(model(), DATA, with_layers())
    with pytest.raises(TypeError, match="layers is 'dense_0': expected a sequence"):
        run(model(), DATA, type(options)(layers="dense_0"))


def test_only_rating_models_have_a_twin() -> None:
    inputs = [keras.Input((), dtype="int32"), keras.Input((), dtype="int32")]
    rows = [keras.layers.Embedding(3, 2)(x) for x in inputs]
    other = keras.Model(inputs, keras.ops.sum(rows[0] * rows[1], axis=-1), name="other")
    with pytest.raises(ValueError, match=r"'other'.*that build_rating_model makes"):
        to_twin(other)
    with pytest.raises(TypeError, match="twin is of type Functional: expected a tf_keras model"):
        from_twin(model(), config())
    with pytest.raises(ValueError, match="expected those of a neumf of this config"):
        from_twin(to_twin(model()), config("neumf"))
    changed = model()
    changed.get_layer("dense_1").activation = keras.activations.tanh
    with pytest.raises(ValueError, match="other scores than a mlp_ranker with its weights"):
        to_twin(changed)


@pytest.mark.parametrize("missing", ["tensorflow_model_optimization", "tf_keras"])
def test_a_missing_package_is_named_with_its_extra(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    run, options = STEPS["prune"]
    with pytest.raises(ModuleNotFoundError, match=rf"{missing} is .* recsys-lib\[tfmot\]"):
        run(model(), DATA, options)


def test_choices_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"block_size is \(4, 4\): expected one that divides"):
        prune_with_tfmot(model(), DATA, TfmotPruning(0.5, "block", layers=("score",)))
    with pytest.raises(ValueError, match=r"divides user_embedding/embeddings .* two or more"):
        wide = TfmotPruning(0.5, "block", block_size=(1, 8), layers=("user_embedding",))
        prune_with_tfmot(model(), DATA, wide)
    with pytest.raises(ValueError, match="num_clusters is 16: expected fewer than the 8 numbers"):
        cluster_with_tfmot(model(), DATA, TfmotClustering(16, layers=("score",)))
    with pytest.raises(ValueError, match="objective is 'squared_error', but interactions has no"):
        ratings = TwinTraining(objective="squared_error")
        bare = Interactions([0], [0], num_users=USERS, num_items=ITEMS)
        qat_with_tfmot(model(), bare, TfmotQuantization(training=ratings))
    with pytest.raises(ValueError, match="optimizer is 'adagard': expected a name"):
        qat_with_tfmot(model(), DATA, TfmotQuantization(training=TwinTraining(optimizer="adagard")))
    with pytest.raises(FloatingPointError, match=r"no longer finite in epoch ., .* try"):
        huge = TwinTraining(optimizer="sgd", learning_rate=1e30)
        qat_with_tfmot(model(), DATA, TfmotQuantization(training=huge))
    for wrong in (
        lambda: TfmotPruning(1.0),
        lambda: TfmotPruning(granularity="row"),
        lambda: TfmotPruning(ramp=1.5),
        lambda: TfmotPruning(schedule="linear"),
        lambda: TfmotClustering(1),
        lambda: TfmotClustering(2, preserve_sparsity=True),
        lambda: TfmotClustering(257),
        lambda: TfmotClustering(start="best"),
        lambda: TfmotQuantization(9),
        lambda: TwinTraining(epochs=0),
        lambda: TwinTraining(objective="bpr"),
        lambda: TwinTraining(learning_rate=-1.0),
    ):
        with pytest.raises(ValueError, match=r" is .*: expected"):
            wrong()
