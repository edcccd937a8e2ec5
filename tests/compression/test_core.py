"""The stored forms, the weights by name, and the report that every method shares."""

import functools
import importlib

import numpy as np
import pytest

from recsys_lib.checks import check_bits, check_sparsity, check_weights
from recsys_lib.compression import named_weights, store_weights, with_weights
from recsys_lib.compression import pruning as p
from recsys_lib.compression.distillation import SoftLabels, distill, train_with_average
from recsys_lib.compression.pruning import WeightPruning, magnitude_mask, prune
from recsys_lib.compression.quantization import UniformQuantization, quantize, quantize_dynamic
from recsys_lib.compression.tensors import DenseTensor, read_tensor
from recsys_lib.data import Interactions
from recsys_lib.models import IALS, Popularity, RatingModelConfig, build_rating_model
from recsys_lib.training import KerasRecommender

DATA = Interactions([0, 0, 1, 1, 2, 3], [0, 1, 1, 2, 3, 4])
CONFIG = RatingModelConfig("mlp_ranker", 4, 5, embedding_dim=3, hidden_units=(4, 2))


@functools.cache
def fitted(kind):
    if kind == "ials":
        return IALS(embedding_dim=3, epochs=2).fit(DATA)
    if kind == "recommender":
        return KerasRecommender(CONFIG, epochs=1, progress=False).fit(DATA)
    return build_rating_model(CONFIG, keras=importlib.import_module(kind))


KINDS = ["ials", "recommender", "keras", "tf_keras"]


@pytest.mark.parametrize("kind", KINDS)
def test_new_pruned_and_rounded_weights_make_a_new_model_and_leave_the_old_one(kind):
    model, column = fitted(kind), UniformQuantization(3, "column")
    before = named_weights(model)
    higher = {name: values + 1 for name, values in before.items()}
    new = with_weights(model, higher)
    np.testing.assert_equal([type(new), named_weights(new)], [type(model), higher])
    for small, change in (
        (prune(model, WeightPruning(0.8)), lambda w: w * magnitude_mask(w, 0.8)),
        (quantize(model, column), lambda w: column.encode(w).decode()),
    ):
        assert type(small.model) is type(model) and small.nbytes == small.report.bytes_after
        for name, values in named_weights(small.model).items():
            expected = change(before[name]) if values.ndim > 1 else before[name]
            np.testing.assert_array_equal(values, expected)
            np.testing.assert_array_equal(small.tensors[name].decode(), values)
    np.testing.assert_equal(named_weights(model), before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_compressed_model_scores_with_its_decoded_weights(kind, through_bytes):
    model = fitted(kind)
    weights = named_weights(model)
    half = {name: through_bytes(DenseTensor(w, "float16")) for name, w in weights.items()}
    compressed = store_weights("float16", None, model, half)
    expected = with_weights(model, {name: w.astype(np.float16) for name, w in weights.items()})
    found = compressed.score([1, 2], [3, 0])
    if hasattr(expected, "score"):
        np.testing.assert_array_equal(found, expected.score([1, 2], [3, 0]))
    else:
        ids = [np.array([1, 2]), np.array([3, 0])]
        np.testing.assert_allclose(found, np.asarray(expected(ids)), rtol=1e-6)
    assert 0 < compressed.report.relative_error < 1e-3
    assert compressed.report.to_frame().bytes_after.sum() == compressed.nbytes
    assert compressed.report.bytes_before == 4 * sum(w.size for w in weights.values())


def nested(kind):
    """A model whose towers are models or layers with layers in them, named as Keras names them."""
    import keras
    from keras import layers

    towers, inputs = [], [keras.Input((), dtype="int32") for _ in range(2)]
    for rows in (4, 5):
        upper = [layers.Dense(3, "relu"), layers.Dense(2)]
        if kind == "gru":
            upper = [layers.Reshape((3, 1)), layers.Bidirectional(layers.GRU(2))]
        ids = keras.Input((), dtype="int32")
        towers.append(keras.Sequential([ids, layers.Embedding(rows, 3), *upper]))
    if kind == "deep":
        towers[0] = keras.Sequential([keras.Input((), dtype="int32"), towers[0]])
    outputs = [tower(ids) for tower, ids in zip(towers, inputs, strict=True)]
    return keras.Model(inputs, layers.Reshape(())(layers.Dot(1)(outputs)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sequential", "deep", "gru"])
def test_weights_of_models_in_models_have_names_of_their_own(kind):
    model, ids = nested(kind), [np.array([1, 2, 3]), np.array([4, 0, 2])]
    weights = named_weights(model)
    assert len(weights) == len(model.weights)
    assert all(name.count("/") > 1 for name in weights)
    higher = {name: values + 0.5 for name, values in weights.items()}
    moved = with_weights(model, higher)
    np.testing.assert_equal(named_weights(moved), higher)
    exact = np.asarray(moved(ids))
    for result in (quantize(moved, UniformQuantization(8)), quantize_dynamic(moved)):
        assert np.abs(result.score(*ids) - exact).max() < 0.1 * np.abs(exact).max()
    pruned = prune(moved, WeightPruning(0.5))
    assert all(np.mean(w == 0) >= 0.3 for w in named_weights(pruned.model).values() if w.ndim > 1)


def test_both_kinds_of_keras_have_the_same_names_and_neither_recommends():
    model, twin = map(fitted, ("keras", "tf_keras"))
    assert list(named_weights(model)) == list(named_weights(twin))
    with pytest.raises(TypeError, match="Recommender"):
        store_weights("nothing", None, model, {}).score_all_items([0])


SOON = {"epochs": 1, "progress": False}
VERBS = {
    "neurons": lambda model: prune(model, p.NeuronPruning(0.5), DATA),
    "layer": lambda model: prune(model, p.LayerRemoval(0)),
    "dimensions": lambda model: prune(model, p.DimensionReduction(2)),
    "rows": lambda model: prune(model, p.RowRemoval(2), DATA),
    "training": lambda model: p.fit_pruned(model, DATA, WeightPruning(0.5), **SOON),
    "float16": lambda model: quantize(model, "float16"),
    "average": lambda model: train_with_average(model, DATA, **SOON),
    "distil": lambda model: distill(fitted("ials"), model, DATA, SoftLabels(0.5), **SOON),
}


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_a_recommender_becomes_a_new_one_that_scores_and_is_saved(verb, tmp_path):
    model = fitted("recommender")
    before, config = named_weights(model), model.config
    result = VERBS[verb](model)
    np.testing.assert_equal(named_weights(model), before)
    assert model.config == config and type(result.model) is KerasRecommender
    scorer = result if hasattr(result, "score") else result.model
    users, items = np.indices((4, 5))
    table = scorer.score_all_items(np.arange(4))
    pairs = scorer.score(users.ravel(), items.ravel()).reshape(4, 5)
    np.testing.assert_allclose(pairs, table, rtol=1e-4, atol=1e-6)
    assert (table != model.score_all_items(np.arange(4))).any()
    if hasattr(result, "report"):
        assert result.report.bytes_after == result.nbytes
        assert result.report.bytes_before == 4 * sum(w.size for w in before.values())
    result.model.save(tmp_path / "model")
    again = KerasRecommender.load(tmp_path / "model")
    np.testing.assert_array_equal(again.score([0, 2], [0, 1]), result.model.score([0, 2], [0, 1]))


def test_refuses(refuses):
    import keras

    model, unbuilt = fitted("keras"), keras.Sequential([keras.layers.Dense(2)])
    broken, popularity = with_weights(model, {}), Popularity().fit(DATA)
    broken.get_layer("score").bias.assign([np.nan])
    refuses(
        ("'dense_9'", lambda: with_weights(model, {"dense_9": np.zeros(3)})),
        ("score/bias has", lambda: with_weights(model, {"score/bias": np.zeros(3)})),
        ("model is of type Popularity", lambda: named_weights(popularity)),
        ("model is of type dict", lambda: named_weights({})),
        ("fit", lambda: named_weights(IALS())),
        ("not built", lambda: named_weights(unbuilt)),
        ("score/bias holds", lambda: named_weights(broken)),
        ("65504", lambda: DenseTensor(np.array([1e6]), "float16")),
        ("kind", lambda: read_tensor("dens", {}, {})),
        *(("sparsity", lambda s=s: check_sparsity(s)) for s in (1.0, -0.1, np.nan, 7)),
        *(("bits", lambda b=b: check_bits(b)) for b in (0, 1, 9, 4.0)),
        ("kernel is of type int64", lambda: check_weights("kernel", [1, 2])),
        ("kernel has shape", lambda: check_weights("kernel", np.zeros(0))),
    )
