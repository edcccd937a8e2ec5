"""The stored forms, the weights by name, and the report that every method shares."""

import functools
import importlib

import numpy as np
import pytest

from recsys_lib.checks import check_bits, check_sparsity, check_weights
from recsys_lib.compression import named_weights, store_weights, with_weights
from recsys_lib.compression.pruning import WeightPruning, prune
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
def test_new_weights_make_a_new_model_and_leave_the_old_one(kind):
    model = fitted(kind)
    before = named_weights(model)
    higher = {name: values + 1 for name, values in before.items()}
    new = with_weights(model, higher)
    assert type(new) is type(model)
    np.testing.assert_equal([named_weights(new), named_weights(model)], [higher, before])


@pytest.mark.parametrize("kind", KINDS)
def test_a_compressed_model_scores_with_its_decoded_weights(kind):
    model = fitted(kind)
    weights = named_weights(model)
    half = {name: DenseTensor(values, "float16") for name, values in weights.items()}
    for tensor in half.values():
        again = read_tensor(tensor.kind, tensor.header(), tensor.arrays())
        np.testing.assert_array_equal(again.decode(), tensor.decode())
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

    towers = []
    for rows in (4, 5):
        upper = [keras.layers.Dense(3, "relu"), keras.layers.Dense(2)]
        if kind == "gru":
            upper = [keras.layers.Reshape((3, 1)), keras.layers.Bidirectional(keras.layers.GRU(2))]
        layers = [keras.layers.Embedding(rows, 3), *upper]
        towers.append(keras.Sequential([keras.Input((), dtype="int32"), *layers]))
    users, items = inputs = [keras.Input((), dtype="int32") for _ in towers]
    if kind == "deep":
        towers[0] = keras.Sequential([keras.Input((), dtype="int32"), towers[0]])
    dot = keras.layers.Dot(1)([towers[0](users), towers[1](items)])
    return keras.Model(inputs, keras.layers.Reshape(())(dot))


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
        np.testing.assert_allclose(result.score(*ids), exact, rtol=0.05)
    pruned = prune(moved, WeightPruning(0.5))
    assert all(np.mean(w == 0) >= 0.3 for w in named_weights(pruned.model).values() if w.ndim > 1)


def test_both_kinds_of_keras_and_a_recommender():
    model, twin = fitted("keras"), fitted("tf_keras")
    assert list(named_weights(model)) == list(named_weights(twin))
    stored = [store_weights("nothing", None, m, {}) for m in (fitted("recommender"), model)]
    assert stored[0].score_all_items([0, 3]).shape == (2, 5)
    with pytest.raises(TypeError, match="expected Recommender"):
        stored[1].score_all_items([0])


def test_refuses():
    import keras

    model = fitted("keras")
    broken = with_weights(model, {})
    broken.get_layer("score").bias.assign([np.nan])
    unbuilt = keras.Sequential([keras.layers.Dense(2)])
    for message, call in (
        ("names 'dense_9'", lambda: with_weights(model, {"dense_9": np.zeros(3)})),
        ("score/bias has", lambda: with_weights(model, {"score/bias": np.zeros(3)})),
        ("expected a factor model", lambda: named_weights(Popularity().fit(DATA))),
        ("expected a factor model", lambda: named_weights({})),
        ("fit", lambda: named_weights(IALS())),
        ("not built", lambda: named_weights(unbuilt)),
        ("score/bias holds 1 NaN", lambda: named_weights(broken)),
        ("65504", lambda: DenseTensor(np.array([1e6]), "float16")),
        ("kind is 'dens': expected one of", lambda: read_tensor("dens", {}, {})),
        *(("sparsity", lambda s=s: check_sparsity(s)) for s in (1.0, -0.1, np.nan, 7)),
        *(("bits", lambda b=b: check_bits(b)) for b in (0, 1, 9, 4.0)),
        ("kernel is of type int64", lambda: check_weights("kernel", [1, 2])),
        ("kernel has shape", lambda: check_weights("kernel", np.zeros(0))),
    ):
        with pytest.raises((RuntimeError, TypeError, ValueError), match=message):
            call()
