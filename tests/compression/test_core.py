"""The stored forms, the weights by name, and the report that every method shares."""

from __future__ import annotations

import numpy as np
import pytest

from recsys_lib.checks import check_bits, check_names, check_sparsity, check_weights
from recsys_lib.compression import named_weights, store_weights, with_weights
from recsys_lib.compression.tensors import DenseTensor, read_tensor
from recsys_lib.data import Interactions
from recsys_lib.models import IALS, Popularity, RatingModelConfig, build_rating_model
from recsys_lib.training import KerasRecommender

DATA = Interactions([0, 0, 1, 1, 2, 3], [0, 1, 1, 2, 3, 4])
CONFIG = RatingModelConfig("mlp_ranker", 4, 5, embedding_dim=3, hidden_units=(4, 2))


def fitted(kind: str) -> object:
    if kind == "ials":
        return IALS(embedding_dim=3, epochs=2).fit(DATA)
    if kind == "recommender":
        return KerasRecommender(CONFIG, epochs=1, progress=False).fit(DATA)
    if kind == "tf_keras":
        import tf_keras

        return build_rating_model(CONFIG, keras=tf_keras)
    return build_rating_model(CONFIG)


KINDS = ["ials", "recommender", "keras", "tf_keras"]


@pytest.mark.parametrize("kind", KINDS)
def test_new_weights_make_a_new_model_and_leave_the_old_one(kind: str) -> None:
    model = fitted(kind)
    before = named_weights(model)
    new = with_weights(model, {name: values + 1 for name, values in before.items()})
    assert type(new) is type(model)
    for name, values in named_weights(new).items():
        np.testing.assert_array_equal(values, before[name] + 1)
        np.testing.assert_array_equal(named_weights(model)[name], before[name])


@pytest.mark.parametrize("kind", KINDS)
def test_a_compressed_model_scores_with_its_decoded_weights(kind: str) -> None:
    model = fitted(kind)
    compressed = store_weights(
        "float16",
        None,
        model,
        {n: DenseTensor(w, "float16") for n, w in named_weights(model).items()},
    )
    expected = with_weights(
        model, {n: w.astype(np.float16).astype(np.float32) for n, w in named_weights(model).items()}
    )
    if hasattr(expected, "score"):
        np.testing.assert_array_equal(
            compressed.score([1, 2], [3, 0]), expected.score([1, 2], [3, 0])
        )
    assert compressed.score([1, 2], [3, 0]).shape == (2,)
    assert 0 < compressed.report.relative_error < 1e-3
    frame = compressed.report.to_frame()
    assert frame.bytes_after.sum() == compressed.nbytes
    assert compressed.report.bytes_before == 4 * sum(w.size for w in named_weights(model).values())


def test_the_names_are_the_same_in_both_kinds_of_keras() -> None:
    assert list(named_weights(fitted("keras"))) == list(named_weights(fitted("tf_keras")))


def test_a_tensor_comes_back_from_its_parts() -> None:
    tensor = DenseTensor(np.float32([[1, 2], [3, 4]]), "float16")
    again = read_tensor(tensor.kind, tensor.header(), tensor.arrays())
    np.testing.assert_array_equal(again.decode(), tensor.decode())
    assert again.nbytes == tensor.nbytes
    with pytest.raises(ValueError, match="kind is 'dens': expected one of"):
        read_tensor("dens", tensor.header(), tensor.arrays())


def test_only_a_recommender_scores_all_items() -> None:
    stored = store_weights("nothing", None, fitted("recommender"), {})
    assert stored.score_all_items([0, 3]).shape == (2, 5)
    with pytest.raises(TypeError, match="expected a Recommender"):
        store_weights("nothing", None, fitted("keras"), {}).score_all_items([0])


def test_errors_name_what_came_and_what_was_expected() -> None:
    import keras

    model = fitted("keras")
    with pytest.raises(ValueError, match="weights names 'dense_9/kernel'"):
        with_weights(model, {"dense_9/kernel": np.zeros(3)})
    with pytest.raises(ValueError, match="score/bias has shape"):
        with_weights(model, {"score/bias": np.zeros(3)})
    for wrong in (Popularity().fit(DATA), {}):
        with pytest.raises(TypeError, match="expected a factor model"):
            named_weights(wrong)
    with pytest.raises(RuntimeError, match="fit"):
        named_weights(IALS())
    with pytest.raises(ValueError, match="not built"):
        named_weights(keras.Sequential([keras.layers.Dense(2)]))
    broken = with_weights(model, {})
    broken.get_layer("score").bias.assign([np.nan])
    with pytest.raises(ValueError, match="score/bias holds 1 NaN"):
        named_weights(broken)
    with pytest.raises(ValueError, match="65504"):
        DenseTensor(np.array([1e6]), "float16")


def test_checks_of_numbers() -> None:
    for value in (1.0, -0.1, float("nan"), 7):
        with pytest.raises(ValueError, match="sparsity is"):
            check_sparsity(value)
    for bits in (0, 1, 9):
        with pytest.raises(ValueError, match="from 2 to 8"):
            check_bits(bits)
    with pytest.raises(TypeError):
        check_bits(4.0)
    with pytest.raises(TypeError, match="kernel is of type int64"):
        check_weights("kernel", [1, 2])
    with pytest.raises(ValueError, match="kernel has shape"):
        check_weights("kernel", np.zeros(0))
    check_names("bits", {"a": 1}, ["a"])
