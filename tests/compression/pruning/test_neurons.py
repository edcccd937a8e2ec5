"""Neurons: what goes is what matters least, and what is left is smaller, dense and the same."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from recsys_lib.compression import named_weights, with_weights
from recsys_lib.compression.pruning import (
    NeuronPruning,
    neuron_importance,
    prune,
    remove_neurons,
    sample_pairs,
)
from recsys_lib.compression.pruning.neurons import refit_readers
from recsys_lib.compression.pruning.rating_models import hidden_layers, read_config
from recsys_lib.data import Interactions
from recsys_lib.models import IALS, RatingModelConfig, build_rating_model
from recsys_lib.training import KerasRecommender, fit

KINDS = ("mlp_ranker", "neumf", "two_tower")
RANDOM = np.random.default_rng(0)
DATA = Interactions(RANDOM.integers(0, 30, 600), RANDOM.integers(0, 40, 600) // 2)
USERS, ITEMS = RANDOM.integers(0, 30, 50), RANDOM.integers(0, 20, 50)


def built(kind: str, units: tuple[int, ...] = (8, 6, 4), keras: Any = None) -> Any:
    """A model whose biases are not zero either."""
    config = RatingModelConfig(kind, 30, 20, embedding_dim=5, hidden_units=units, init_std=1.0)
    model = build_rating_model(config, keras=keras)
    random = np.random.default_rng(1)
    model.set_weights(
        [w + 0.1 * random.normal(size=w.shape).astype(np.float32) for w in model.get_weights()]
    )
    return model


def scores(model: Any) -> np.ndarray:
    return np.asarray(model([USERS.astype(np.int32), ITEMS.astype(np.int32)]))


def without_outputs(model: Any, neurons: dict[str, list[int]]) -> Any:
    """The same model, full size, where nobody reads the neurons: an independent reference."""
    weights = dict(named_weights(model))
    for layer in hidden_layers(read_config(model)):
        ids = np.array(neurons.get(layer.name, []), int)
        if layer.reader is None:  # a product of towers: zero outputs
            weights[f"{layer.name}/kernel"][:, ids] = 0
            weights[f"{layer.name}/bias"][ids] = 0
        else:
            weights[f"{layer.reader}/kernel"][ids + layer.offset] = 0
    return with_weights(model, weights)


CHOICES = {
    "mlp_ranker": {"dense_0": [0, 7, 3], "dense_2": [1]},
    "neumf": {"dense_1": [5], "dense_2": [0, 1, 2]},
    "two_tower": {
        "user_dense_0": [0, 7],
        "item_dense_0": [2, 3],
        "user_dense_2": [1],
        "item_dense_2": [1],
    },
}
UNITS_LEFT = {"mlp_ranker": (5, 6, 3), "neumf": (8, 5, 1), "two_tower": (6, 6, 3)}


@pytest.mark.parametrize("kind", KINDS)
def test_without_dead_neurons_nothing_changes_but_the_shapes(kind: str) -> None:
    dead = without_outputs(built(kind), CHOICES[kind])
    before = named_weights(dead)
    smaller = remove_neurons(dead, CHOICES[kind])
    for name, values in named_weights(dead).items():
        np.testing.assert_array_equal(values, before[name])  # the model itself is as it was
    assert read_config(smaller.model).hidden_units == UNITS_LEFT[kind]
    np.testing.assert_allclose(scores(smaller.model), scores(dead), rtol=1e-5, atol=1e-5)
    assert smaller.report.bytes_before == 4 * dead.count_params()
    assert smaller.model.count_params() * 4 == sum(
        tensor.nbytes - len(json.dumps(tensor.header())) for tensor in smaller.tensors.values()
    )


MODELS = {kind: built(kind) for kind in KINDS}


def test_a_twin_and_a_recommender_stay_what_they_are(tmp_path: Any) -> None:
    import tf_keras

    twin = built("neumf", keras=tf_keras)
    smaller = remove_neurons(twin, CHOICES["neumf"]).model
    assert isinstance(smaller, tf_keras.Model)
    np.testing.assert_allclose(
        scores(smaller), scores(remove_neurons(MODELS["neumf"], CHOICES["neumf"]).model), atol=1e-5
    )
    config = RatingModelConfig("neumf", 30, 20, embedding_dim=5, hidden_units=(8, 6, 4))
    trained = KerasRecommender(config, epochs=1, progress=False).fit(DATA)
    fewer = remove_neurons(trained, CHOICES["neumf"]).model
    assert fewer.config == replace(config, hidden_units=UNITS_LEFT["neumf"])
    assert trained.config == config
    fewer.save(tmp_path / "fewer.npz")
    again = KerasRecommender.load(tmp_path / "fewer.npz")
    np.testing.assert_array_equal(again.score(USERS, ITEMS), fewer.score(USERS, ITEMS))


@pytest.mark.parametrize("kind", KINDS)
def test_serving_takes_the_smaller_model(kind: str, tmp_path: Any) -> None:
    from recsys_lib.serving import CandidateScorer, export_litert, load_scorer

    smaller = prune(MODELS[kind], NeuronPruning(0.5), DATA).model
    expected = scores(smaller)
    np.testing.assert_allclose(CandidateScorer(smaller).score(USERS, ITEMS), expected, atol=1e-4)
    export_litert(smaller, tmp_path / "smaller.tflite")
    exported = load_scorer(tmp_path / "smaller.tflite").score(USERS, ITEMS)
    np.testing.assert_allclose(exported, expected, atol=1e-4)


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("kind", KINDS)
def test_budgets(kind: str, scope: str) -> None:
    model = MODELS[kind]
    whole = sum(read_config(model).hidden_units or ())
    for sparsity in (0.0, 0.3, 0.5, 0.99):
        units = read_config(
            prune(model, NeuronPruning(sparsity, scope=scope), DATA).model
        ).hidden_units
        assert units is not None and min(units) >= 1
        if scope == "global":
            assert sum(units) == max(whole - round(sparsity * whole), 3)
        else:
            assert units == tuple(max(w - round(sparsity * w), 1) for w in (8, 6, 4))


@pytest.mark.parametrize("kind", KINDS)
def test_a_refit_is_closer_to_the_whole_model(kind: str) -> None:
    model = MODELS[kind]
    users, items, _ = sample_pairs(model, DATA)
    cut, fitted = (
        prune(model, NeuronPruning(0.5, refit=refit), DATA).model for refit in (False, True)
    )
    assert read_config(cut) == read_config(fitted)
    whole, *others = (np.asarray(m([users, items])) for m in (model, cut, fitted))
    errors = [np.mean((other - whole) ** 2) for other in others]
    assert errors[1] < errors[0]


def test_a_refit_of_one_layer_is_the_least_squares_of_numpy() -> None:
    model = built("neumf", units=(8,))
    users, items, _ = sample_pairs(model, DATA)
    smaller = remove_neurons(model, {"dense_0": [1, 2, 6]}).model
    before, cut = named_weights(model), named_weights(smaller)
    inputs = np.hstack([before[f"{s}_embedding/embeddings"][i] for s, i in by_side(users, items)])
    outputs, fewer = (
        np.maximum(inputs @ w["dense_0/kernel"] + w["dense_0/bias"], 0) for w in (before, cut)
    )
    design = np.hstack([fewer, np.ones((len(fewer), 1))])
    expected = np.linalg.lstsq(design, outputs @ before["score/kernel"][5:], rcond=None)[0]
    (layer,) = hidden_layers(read_config(model))
    removed = {layer: np.array([1, 2, 6])}
    found = named_weights(refit_readers(model, smaller, removed, users, items))
    np.testing.assert_array_equal(found["score/kernel"][:5], before["score/kernel"][:5])
    np.testing.assert_allclose(found["score/kernel"][5:], expected[:-1], atol=2e-2)
    np.testing.assert_allclose(
        found["score/bias"], expected[-1] + before["score/bias"], rtol=2e-2, atol=2e-2
    )


def by_side(users: Any, items: Any) -> list[tuple[str, Any]]:
    return [("user", users), ("item", items)]


def test_budgets_by_layer() -> None:
    pruned = prune(MODELS["mlp_ranker"], NeuronPruning({"dense_1": 0.5}, "magnitude"))
    assert read_config(pruned.model).hidden_units == (8, 3, 4)
    with pytest.raises(ValueError, match="sparsity differs between towers"):
        prune(MODELS["two_tower"], NeuronPruning({"user_dense_0": 0.5}, "magnitude"))


def test_magnitude_and_activation_are_what_they_say() -> None:
    """By hand: one user, one item, two neurons."""
    model = build_rating_model(RatingModelConfig("mlp_ranker", 1, 1, 1, hidden_units=(2,)))
    model.set_weights(
        [
            np.float32([[1]]),
            np.float32([[2]]),
            np.float32([[1, -3], [0.5, -1]]),
            np.float32([0.25, 6]),
            np.float32([[4], [-2]]),
            np.float32([0]),
        ]
    )
    data = Interactions([0], [0])
    weights = neuron_importance(model, "magnitude")["dense_0"]
    np.testing.assert_allclose(weights, [1.5, 4])
    # z = relu(1 + 1 + .25, -3 - 2 + 6) = (2.25, 1)
    activations = neuron_importance(model, "activation", data)["dense_0"]
    np.testing.assert_allclose(activations, [2.25, 1])
    # logit = 4 * 2.25 - 2 = 7; dL/dz = (sigmoid(7) - label) w: label 1 once and 0 four times
    sigmoid = 1 / (1 + np.exp(-7))
    size = (1 - sigmoid + 4 * sigmoid) / 5
    taylor = neuron_importance(model, "taylor", data)["dense_0"]
    np.testing.assert_allclose(taylor, [2.25 * 4 * size, 2 * size], rtol=1e-5)


def pair_losses(model: Any, users: Any, items: Any, labels: Any) -> np.ndarray:
    logits = np.asarray(model([users, items]), np.float64)
    return np.logaddexp(0, logits) - labels * logits


@pytest.fixture(scope="module")
def trained() -> tuple[Any, Interactions]:
    random = np.random.default_rng(3)
    tastes = random.normal(size=(60, 4)) @ random.normal(size=(4, 50))
    users, items = np.nonzero(tastes > 1.5)
    data = Interactions(users, items, num_users=60, num_items=50)
    model = build_rating_model(
        RatingModelConfig("mlp_ranker", 60, 50, embedding_dim=8, hidden_units=(32, 16))
    )
    import keras

    fit(
        model,
        data,
        epochs=60,
        batch_size=256,
        optimizer=keras.optimizers.Adam(0.01),
        jit_compile=False,
        progress=False,
    )
    return model, data


def test_taylor_agrees_with_brute_force_ablation(trained: tuple[Any, Interactions]) -> None:
    """The outside: remove each neuron in turn, and measure how far the loss of a pair moves."""
    model, data = trained
    pairs = sample_pairs(model, data, num_samples=500)
    whole = pair_losses(model, *pairs)
    agreement = {method: [] for method in ("magnitude", "activation", "taylor")}
    for layer, width in (("dense_0", 32), ("dense_1", 16)):
        moved = [
            np.abs(pair_losses(remove_neurons(model, {layer: [n]}).model, *pairs) - whole).mean()
            for n in range(width)
        ]
        for method, values in agreement.items():
            importance = neuron_importance(model, method, data, num_samples=500)[layer]
            values.append(spearmanr(importance, moved).statistic)
    assert min(agreement["taylor"]) > 0.85
    assert np.mean(agreement["taylor"]) > np.mean(agreement["magnitude"])


@pytest.mark.parametrize(
    ("error", "message", "kind", "neurons"),
    [
        (ValueError, "neurons names 'dense_9'", "mlp_ranker", {"dense_9": [0]}),
        (ValueError, r"neurons\['dense_0'\] holds 8", "mlp_ranker", {"dense_0": [8]}),
        (ValueError, "holds -1", "mlp_ranker", {"dense_0": [-1]}),
        (ValueError, "twice", "mlp_ranker", {"dense_0": [1, 1]}),
        (ValueError, "names all 8 neurons", "mlp_ranker", {"dense_0": range(8)}),
        (TypeError, "expected integers", "mlp_ranker", {"dense_0": [0.5]}),
        (ValueError, "takes 1 from user_dense_0", "two_tower", {"user_dense_0": [1]}),
        (ValueError, "other outputs", "two_tower", {"user_dense_2": [1], "item_dense_2": [2]}),
    ],
)
def test_errors_of_neurons(error: Any, message: str, kind: str, neurons: Any) -> None:
    with pytest.raises(error, match=message):
        remove_neurons(MODELS[kind], neurons)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": 1.0}, "sparsity is 1.0"),
        ({"sparsity": {"dense_0": 1.5}}, r"sparsity\['dense_0'\] is 1.5"),
        ({"sparsity": 0.5, "method": "size"}, "method is 'size'"),
        ({"sparsity": 0.5, "scope": "all"}, "scope is 'all'"),
        ({"sparsity": 0.5, "num_samples": 0}, "num_samples is 0"),
        ({"sparsity": {"dense_0": 0.5}, "scope": "global"}, "given by layer"),
    ],
)
def test_errors_of_the_configuration(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NeuronPruning(**arguments)


def test_models_and_data_that_do_not_fit() -> None:
    import keras

    flat = build_rating_model(RatingModelConfig("dot_product", 2, 3))
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name="mlp_ranker")
    unbuilt = keras.Sequential([keras.layers.Dense(2)])
    unfitted = KerasRecommender(RatingModelConfig("neumf", 2, 3))
    broken = with_weights(MODELS["neumf"], {})
    broken.get_layer("dense_0").bias.assign(np.full(8, np.nan))
    for error, message, model, data in (
        (TypeError, "model is of type IALS", IALS(2, epochs=1).fit(DATA), DATA),
        (ValueError, "dot_product: .* hidden layers", flat, DATA),
        (ValueError, "build_rating_model makes", other, DATA),
        (ValueError, "not built", unbuilt, DATA),
        (RuntimeError, "fit", unfitted, DATA),
        (ValueError, "dense_0/bias holds 8 NaN", broken, DATA),
        (ValueError, "interactions is None", MODELS["neumf"], None),
        (TypeError, "expected Interactions", MODELS["neumf"], [(0, 1)]),
        (ValueError, r"interactions counts \(1, 2\)", MODELS["neumf"], Interactions([0], [1])),
    ):
        with pytest.raises(error, match=message):
            prune(model, NeuronPruning(0.5), data)
