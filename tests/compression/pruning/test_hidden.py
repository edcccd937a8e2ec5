"""Hidden layers: what goes is what matters least, what is left is smaller, dense and the same."""

import functools

import numpy as np
import pytest
from scipy.stats import spearmanr

from recsys_lib.compression import named_weights, with_weights
from recsys_lib.compression.pruning import LayerRemoval, NeuronPruning, ablate_layers, prune
from recsys_lib.compression.pruning.hidden import neuron_importance, remove_neurons
from recsys_lib.compression.pruning.rating_models import hidden_layers, read_config, sample_pairs
from recsys_lib.data import Interactions
from recsys_lib.models import IALS, RatingModelConfig, build_rating_model
from recsys_lib.serving import CandidateScorer, export_litert, load_scorer
from recsys_lib.training import fit

RANDOM = np.random.default_rng(0)
DATA = Interactions(RANDOM.integers(0, 30, 600), RANDOM.integers(0, 40, 600) // 2)
USERS, ITEMS = (RANDOM.integers(0, count, 50).astype(np.int32) for count in (30, 20))


@pytest.fixture(scope="module")
def built(random_model):
    @functools.cache
    def build(kind, units=(8, 6, 4), activation="relu", keras=None):
        config = RatingModelConfig(kind, 30, 20, 5, units, activation=activation, init_std=1.0)
        return random_model(config, 0.1, keras)

    return build


every_kind = pytest.mark.parametrize("kind", ["mlp_ranker", "neumf", "two_tower"])


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
def test_without_dead_neurons_nothing_changes_but_the_shapes(kind, built):
    before = named_weights(built(kind))
    for layer in hidden_layers(read_config(built(kind))):  # nobody reads the neurons
        ids = np.array(CHOICES[kind].get(layer.name, []), int)
        if layer.reader is None:  # a product of towers: zero outputs
            before[f"{layer.name}/kernel"][:, ids] = before[f"{layer.name}/bias"][ids] = 0
        else:
            before[f"{layer.reader}/kernel"][ids + layer.offset] = 0
    dead = with_weights(built(kind), before)
    smaller = remove_neurons(dead, CHOICES[kind])
    np.testing.assert_equal(named_weights(dead), before)  # the model itself is as it was
    assert units_of(smaller) == UNITS_LEFT[kind]
    served = CandidateScorer(smaller.model).score(USERS, ITEMS)
    for found in (scores(smaller.model), served):
        np.testing.assert_allclose(found, scores(dead), rtol=1e-4, atol=1e-4)
    assert smaller.report.bytes_before == 4 * dead.count_params()


def test_a_twin_stays_one(built):
    import tf_keras

    twin, original = (
        remove_neurons(built("neumf", keras=keras), CHOICES["neumf"]).model
        for keras in (tf_keras, None)
    )
    assert isinstance(twin, tf_keras.Model)
    np.testing.assert_allclose(scores(twin), scores(original), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("config", [NeuronPruning(0.5), LayerRemoval(1)], ids=["neurons", "layer"])
def test_litert_takes_the_smaller_model(config, built, tmp_path):
    smaller = prune(built("neumf"), config, DATA).model
    export_litert(smaller, tmp_path / "smaller.tflite")
    served = load_scorer(tmp_path / "smaller.tflite").score(USERS, ITEMS)
    np.testing.assert_allclose(served, scores(smaller), atol=1e-4)


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.99])
@every_kind
def test_budgets(kind, sparsity, built):
    by_layer, together = (
        units_of(prune(built(kind), NeuronPruning(sparsity, scope=scope), DATA))
        for scope in ("layer", "global")
    )
    assert by_layer == tuple(max(w - round(sparsity * w), 1) for w in (8, 6, 4))
    assert sum(together) == max(18 - round(sparsity * 18), 3) and min(together) >= 1


@every_kind
def test_a_fit_to_data_is_closer_to_the_whole_model(kind, built):
    model, whole = built(kind), scores(built(kind))
    for cut, fitted in (
        [prune(model, NeuronPruning(0.5, refit=refit), DATA) for refit in (False, True)],
        [prune(model, LayerRemoval(1), data) for data in (None, DATA)],
    ):
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
def test_fits_are_the_least_squares_of_numpy(units, config, reader, tolerance, built):
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
    random = np.random.default_rng(3)
    tastes = random.normal(size=(60, 4)) @ random.normal(size=(4, 50))
    data = Interactions(*np.nonzero(tastes > 1.5), num_users=60, num_items=50)
    model = build_rating_model(RatingModelConfig("mlp_ranker", 60, 50, 8, hidden_units=(32, 16)))
    fit(model, data, epochs=40, batch_size=64, jit_compile=False, progress=False)
    users, items, labels = sample_pairs(model, data, num_samples=500)

    def losses(model):
        logits = np.asarray(model([users, items]), np.float64)
        return np.logaddexp(0, logits) - labels * logits

    whole, agreement = losses(model), {"magnitude": [], "taylor": []}
    for layer, width in (("dense_0", 32), ("dense_1", 16)):
        without = [remove_neurons(model, {layer: [n]}).model for n in range(width)]
        moved = [np.abs(losses(smaller) - whole).mean() for smaller in without]
        for method, values in agreement.items():
            importance = neuron_importance(model, method, data, num_samples=500)[layer]
            values.append(spearmanr(importance, moved).statistic)
    assert min(agreement["taylor"]) > 0.85
    assert np.mean(agreement["taylor"]) > np.mean(agreement["magnitude"])


@every_kind
def test_linear_layers_fold_without_any_change(kind, built):
    model = built(kind, activation="linear")
    for position in range(2 if kind == "two_tower" else 3):
        smaller = prune(model, LayerRemoval(position))
        assert units_of(smaller) == tuple(np.delete([8, 6, 4], position).tolist())
        served = CandidateScorer(smaller.model).score(USERS, ITEMS)
        np.testing.assert_allclose(served, scores(model), rtol=1e-3, atol=1e-4)
        fitted = prune(model, LayerRemoval(position, ridge=1e-9), DATA).model
        np.testing.assert_allclose(scores(fitted), scores(model), rtol=1e-2, atol=1e-2)
    assert "removed" in set(smaller.report.to_frame().stored_as)


def test_ablation_finds_the_layer_that_does_nothing(built):
    """Layer 1 passes on what is positive already: it can go, or layer 0 into it; layer 2 not."""
    passes = {"dense_1/kernel": np.eye(6), "dense_1/bias": np.zeros(6)}
    same = with_weights(built("mlp_ranker", (6, 6, 4)), passes)
    whole = scores(same)
    errors = ablate_layers(same, lambda smaller: float(np.abs(scores(smaller) - whole).max()))
    assert list(errors) == [0, 1, 2]
    assert max(errors[0], errors[1]) < 1e-4 < 1e-2 < errors[2]
    np.testing.assert_array_equal(scores(same), whole)


def test_refuses(built, refuses):
    import keras

    mlp, neumf, towers = map(built, ("mlp_ranker", "neumf", "two_tower"))
    flat = build_rating_model(RatingModelConfig("dot_product", 2, 3))
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name="mlp_ranker")
    half, few = NeuronPruning(0.5), Interactions([0], [0])
    different = {"user_dense_2": [1], "item_dense_2": [2]}
    refuses(
        ("'dense_9'", lambda: remove_neurons(mlp, {"dense_9": [0]})),
        (r"\['dense_0'\] holds 8", lambda: remove_neurons(mlp, {"dense_0": [8]})),
        ("different", lambda: remove_neurons(mlp, {"dense_0": [1, 1]})),
        ("not all 8", lambda: remove_neurons(mlp, {"dense_0": range(8)})),
        ("integers", lambda: remove_neurons(mlp, {"dense_0": [0.5]})),
        ("of user_dense_0 and", lambda: remove_neurons(towers, {"user_dense_0": [1]})),
        ("the same outputs", lambda: remove_neurons(towers, different)),
        ("model is of type IALS", lambda: prune(IALS(2), half, DATA)),
        ("dot_product: .* hidden", lambda: prune(flat, half, DATA)),
        ("build_rating_model", lambda: prune(other, half, DATA)),
        ("Interactions", lambda: prune(neumf, half)),
        ("interactions counts", lambda: prune(neumf, half, few)),
        ("position is 3", lambda: prune(mlp, LayerRemoval(3))),
        ("position is 2", lambda: prune(towers, LayerRemoval(2))),
        ("1 hidden layers", lambda: ablate_layers(built("neumf", (3,)), scores)),
    )
