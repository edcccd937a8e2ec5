"""Hidden layers: what goes is what matters least, what is left is smaller, dense and the same."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from recsys_lib.compression import named_weights, with_weights
from recsys_lib.compression.pruning import LayerRemoval, NeuronPruning, ablate_layers, prune
from recsys_lib.compression.pruning.hidden import neuron_importance, remove_neurons
from recsys_lib.compression.pruning.rating_models import hidden_layers, read_config, sample_pairs
from recsys_lib.data import Interactions
from recsys_lib.models import IALS, RatingModelConfig, build_rating_model
from recsys_lib.training import KerasRecommender, fit

RANDOM = np.random.default_rng(0)
DATA = Interactions(RANDOM.integers(0, 30, 600), RANDOM.integers(0, 40, 600) // 2)
USERS, ITEMS = (RANDOM.integers(0, count, 50).astype(np.int32) for count in (30, 20))


def built(kind, units=(8, 6, 4), activation="relu", keras=None):
    """A model whose biases are not zero either."""
    config = RatingModelConfig(kind, 30, 20, 5, hidden_units=units, activation=activation)
    model = build_rating_model(replace(config, init_std=1.0), keras=keras)
    random = np.random.default_rng(1)
    model.set_weights([w + 0.1 * random.normal(size=w.shape) for w in model.get_weights()])
    return model


MODELS = {kind: built(kind) for kind in ("mlp_ranker", "neumf", "two_tower")}
every_kind = pytest.mark.parametrize("kind", MODELS)


def scores(model):
    return np.asarray(model([USERS, ITEMS]))


def units_of(compressed):
    return read_config(compressed.model).hidden_units


CHOICES = {
    "mlp_ranker": {"dense_0": [0, 7, 3], "dense_2": [1]},
    "neumf": {"dense_1": [5], "dense_2": [0, 1, 2]},
    "two_tower": {f"{side}_dense_2": [1] for side in ("user", "item")}
    | {"user_dense_0": [0, 7], "item_dense_0": [2, 3]},
}
UNITS_LEFT = {"mlp_ranker": (5, 6, 3), "neumf": (8, 5, 1), "two_tower": (6, 6, 3)}


@every_kind
def test_without_dead_neurons_nothing_changes_but_the_shapes(kind):
    before = named_weights(MODELS[kind])
    for layer in hidden_layers(read_config(MODELS[kind])):  # nobody reads the neurons
        ids = np.array(CHOICES[kind].get(layer.name, []), int)
        if layer.reader is None:  # a product of towers: zero outputs
            before[f"{layer.name}/kernel"][:, ids] = before[f"{layer.name}/bias"][ids] = 0
        else:
            before[f"{layer.reader}/kernel"][ids + layer.offset] = 0
    dead = with_weights(MODELS[kind], before)
    smaller = remove_neurons(dead, CHOICES[kind])
    np.testing.assert_equal(named_weights(dead), before)  # the model itself is as it was
    assert units_of(smaller) == UNITS_LEFT[kind]
    np.testing.assert_allclose(scores(smaller.model), scores(dead), rtol=1e-5, atol=1e-5)
    assert smaller.report.bytes_before == 4 * dead.count_params()


def test_a_twin_and_a_recommender_stay_what_they_are(tmp_path):
    import tf_keras

    choice = CHOICES["neumf"]
    twin = remove_neurons(built("neumf", keras=tf_keras), choice).model
    assert isinstance(twin, tf_keras.Model)
    original = remove_neurons(MODELS["neumf"], choice).model
    np.testing.assert_allclose(scores(twin), scores(original), atol=1e-5)
    config = RatingModelConfig("neumf", 30, 20, embedding_dim=5, hidden_units=(8, 6, 4))
    trained = KerasRecommender(config, epochs=1, progress=False).fit(DATA)
    fewer = remove_neurons(trained, choice).model
    assert fewer.config == replace(config, hidden_units=UNITS_LEFT["neumf"])
    assert trained.config == config
    fewer.save(tmp_path / "fewer")
    again = KerasRecommender.load(tmp_path / "fewer")
    np.testing.assert_array_equal(again.score(USERS, ITEMS), fewer.score(USERS, ITEMS))


@pytest.mark.parametrize("config", [NeuronPruning(0.5), LayerRemoval(1)], ids=["neurons", "layer"])
@every_kind
def test_serving_takes_the_smaller_model(kind, config, tmp_path):
    from recsys_lib.serving import CandidateScorer, export_litert, load_scorer

    smaller = prune(MODELS[kind], config, DATA).model
    scorers = [CandidateScorer(smaller)]
    if kind == "neumf":
        export_litert(smaller, tmp_path / "smaller.tflite")
        scorers.append(load_scorer(tmp_path / "smaller.tflite"))
    for scorer in scorers:
        np.testing.assert_allclose(scorer.score(USERS, ITEMS), scores(smaller), atol=1e-4)


@every_kind
def test_budgets(kind):
    for sparsity in (0.0, 0.3, 0.99):
        by_layer, together = (
            units_of(prune(MODELS[kind], NeuronPruning(sparsity, scope=scope), DATA))
            for scope in ("layer", "global")
        )
        assert by_layer == tuple(max(w - round(sparsity * w), 1) for w in (8, 6, 4))
        assert sum(together) == max(18 - round(sparsity * 18), 3) and min(together) >= 1


@every_kind
def test_a_fit_to_data_is_closer_to_the_whole_model(kind):
    model, whole = MODELS[kind], scores(MODELS[kind])
    pairs = [
        [prune(model, NeuronPruning(0.5, refit=refit), DATA) for refit in (False, True)],
        [prune(model, LayerRemoval(1), data) for data in (None, DATA)],
    ]
    for cut, fitted in pairs:
        assert units_of(cut) == units_of(fitted)
        errors = [np.mean((scores(m.model) - whole) ** 2) for m in (cut, fitted)]
        assert 0 < errors[1] < errors[0]


@pytest.mark.parametrize(
    ("units", "config", "reader", "tolerance"),
    [
        ((8,), NeuronPruning(0.4, "magnitude", refit=True), "score", 2e-2),
        ((8, 6, 4), LayerRemoval(0, ridge=1e-9), "dense_1", 1e-4),
    ],
)
def test_fits_are_the_least_squares_of_numpy(units, config, reader, tolerance):
    """Of the last layer after neurons went, and of the bridge over a layer."""
    model = built("mlp_ranker", units)
    users, items, _ = sample_pairs(model, DATA)
    before, found = named_weights(model), named_weights(prune(model, config, DATA).model)
    tables = [before[f"{side}_embedding/embeddings"] for side in ("user", "item")]
    inputs = np.hstack([tables[0][users], tables[1][items]])
    outputs, fewer = (
        np.maximum(inputs @ w["dense_0/kernel"] + w["dense_0/bias"], 0) for w in (before, found)
    )
    given, fitted = (fewer, "score") if reader == "score" else (inputs, "dense_0")
    design = np.hstack([given, np.ones((len(given), 1))])
    targets = outputs @ before[f"{reader}/kernel"] + before[f"{reader}/bias"]
    expected = np.linalg.lstsq(design, targets, rcond=None)[0]
    solution = np.vstack([found[f"{fitted}/kernel"], found[f"{fitted}/bias"]])
    np.testing.assert_allclose(solution, expected, rtol=tolerance, atol=tolerance)


def test_importance_is_what_it_says():
    """By hand: one user, one item, two neurons."""
    model = build_rating_model(RatingModelConfig("mlp_ranker", 1, 1, 1, hidden_units=(2,)))
    values = [[[1]], [[2]], [[1, -3], [0.5, -1]], [0.25, 6], [[4], [-2]], [0]]
    model.set_weights([np.float32(v) for v in values])
    # z = relu(1 + 1 + .25, -3 - 2 + 6) = (2.25, 1)
    # logit = 4 * 2.25 - 2 = 7; dL/dz = (sigmoid(7) - label) w: label 1 once and 0 four times
    sigmoid = 1 / (1 + np.exp(-7))
    size = (1 - sigmoid + 4 * sigmoid) / 5
    expected = {"magnitude": [1.5, 4], "activation": [2.25, 1], "taylor": [9 * size, 2 * size]}
    for method, wanted in expected.items():
        found = neuron_importance(model, method, Interactions([0], [0]))["dense_0"]
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.slow
def test_taylor_agrees_with_brute_force_ablation():
    """The outside: remove each neuron in turn, and measure how far the loss of a pair moves."""
    import keras

    random = np.random.default_rng(3)
    tastes = random.normal(size=(60, 4)) @ random.normal(size=(4, 50))
    data = Interactions(*np.nonzero(tastes > 1.5), num_users=60, num_items=50)
    model = build_rating_model(RatingModelConfig("mlp_ranker", 60, 50, 8, hidden_units=(32, 16)))
    options = {"jit_compile": False, "progress": False, "batch_size": 256}
    fit(model, data, epochs=40, optimizer=keras.optimizers.Adam(0.01), **options)
    users, items, labels = sample_pairs(model, data, num_samples=500)

    def losses(model):
        logits = np.asarray(model([users, items]), np.float64)
        return np.logaddexp(0, logits) - labels * logits

    whole, agreement = losses(model), {"magnitude": [], "activation": [], "taylor": []}
    for layer, width in (("dense_0", 32), ("dense_1", 16)):
        without = [remove_neurons(model, {layer: [n]}).model for n in range(width)]
        moved = [np.abs(losses(smaller) - whole).mean() for smaller in without]
        for method, values in agreement.items():
            importance = neuron_importance(model, method, data, num_samples=500)[layer]
            values.append(spearmanr(importance, moved).statistic)
    assert min(agreement["taylor"]) > 0.85
    assert np.mean(agreement["taylor"]) > np.mean(agreement["magnitude"])


@every_kind
def test_linear_layers_fold_without_any_change(kind):
    model = built(kind, activation="linear")
    for position in range(2 if kind == "two_tower" else 3):
        smaller = prune(model, LayerRemoval(position))
        assert units_of(smaller) == tuple(np.delete([8, 6, 4], position).tolist())
        np.testing.assert_allclose(scores(smaller.model), scores(model), rtol=1e-3, atol=1e-4)
        fitted = prune(model, LayerRemoval(position, ridge=1e-9), DATA).model
        np.testing.assert_allclose(scores(fitted), scores(model), rtol=1e-2, atol=1e-2)
    assert "removed" in set(smaller.report.to_frame().stored_as)


def test_ablation_finds_the_layer_that_does_nothing():
    """Layer 1 passes on what is positive already: it can go, or layer 0 into it; layer 2 not."""
    passes = {"dense_1/kernel": np.eye(6), "dense_1/bias": np.zeros(6)}
    same = with_weights(built("mlp_ranker", (6, 6, 4)), passes)
    whole = scores(same)
    errors = ablate_layers(same, lambda smaller: float(np.abs(scores(smaller) - whole).max()))
    assert list(errors) == [0, 1, 2]
    assert max(errors[0], errors[1]) < 1e-4 < 1e-2 < errors[2]
    np.testing.assert_array_equal(scores(same), whole)


def test_refuses():
    import keras

    mlp, neumf, towers = MODELS.values()
    flat = build_rating_model(RatingModelConfig("dot_product", 2, 3))
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name="mlp_ranker")
    config, few = NeuronPruning, Interactions([0], [0])
    different = {"user_dense_2": [1], "item_dense_2": [2]}
    for message, call in (
        ("neurons names 'dense_9'", lambda: remove_neurons(mlp, {"dense_9": [0]})),
        (r"\['dense_0'\] holds 8", lambda: remove_neurons(mlp, {"dense_0": [8]})),
        ("expected different", lambda: remove_neurons(mlp, {"dense_0": [1, 1]})),
        ("not all 8", lambda: remove_neurons(mlp, {"dense_0": range(8)})),
        ("expected integers", lambda: remove_neurons(mlp, {"dense_0": [0.5]})),
        ("of user_dense_0 and", lambda: remove_neurons(towers, {"user_dense_0": [1]})),
        ("the same outputs", lambda: remove_neurons(towers, different)),
        ("model is of type IALS", lambda: prune(IALS(2), config(0.5), DATA)),
        ("dot_product: .* hidden", lambda: prune(flat, config(0.5), DATA)),
        ("build_rating_model makes", lambda: prune(other, config(0.5), DATA)),
        ("expected Interactions", lambda: prune(neumf, config(0.5))),
        ("interactions counts 1", lambda: prune(neumf, config(0.5), few)),
        ("position is 3", lambda: prune(mlp, LayerRemoval(3))),
        ("position is 2", lambda: prune(towers, LayerRemoval(2))),
        ("1 hidden layers", lambda: ablate_layers(built("neumf", (3,)), scores)),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            call()
