"""Pruning models: budgets, bytes, and models that stay as they were."""

from __future__ import annotations

import numpy as np
import pytest

from recsys_lib.compression import named_weights, with_weights
from recsys_lib.compression.pruning import WeightPruning, magnitude_mask, prune
from recsys_lib.data import Interactions
from recsys_lib.models import IALS, RatingModelConfig, build_rating_model
from recsys_lib.training import KerasRecommender

CONFIG = RatingModelConfig("mlp_ranker", 200, 150, embedding_dim=16, hidden_units=(32, 16))
DATA = Interactions(np.arange(200), np.arange(200) % 150, num_users=200, num_items=150)


def ranker() -> object:
    return build_rating_model(CONFIG)


@pytest.mark.parametrize("kind", ["keras", "tf_keras", "ials", "recommender"])
def test_each_kind_of_model_is_pruned_into_a_new_one(kind: str) -> None:
    if kind == "ials":
        model = IALS(embedding_dim=16, epochs=1).fit(DATA)
    elif kind == "recommender":
        model = KerasRecommender(CONFIG, epochs=1, progress=False).fit(DATA)
    else:
        keras = pytest.importorskip("tf_keras") if kind == "tf_keras" else None
        model = build_rating_model(CONFIG, keras=keras)
    before = named_weights(model)
    pruned = prune(model, WeightPruning(0.8))
    assert type(pruned.model) is type(model)
    for name, values in named_weights(pruned.model).items():
        mask = magnitude_mask(before[name], 0.8) if values.ndim > 1 else 1
        np.testing.assert_array_equal(values, before[name] * mask)
        np.testing.assert_array_equal(named_weights(model)[name], before[name])
        np.testing.assert_array_equal(pruned.tensors[name].decode(), values)
    assert pruned.nbytes < 0.35 * pruned.report.bytes_before
    assert pruned.nbytes == pruned.report.bytes_after
    assert pruned.score([3], [4]).shape == (1,)


def test_a_budget_for_each_weight() -> None:
    sparsity = {"dense_0/kernel": 0.5, "item_embedding/embeddings": 0.9}
    report = prune(ranker(), WeightPruning(sparsity)).report
    found = {tensor.name: tensor.sparsity for tensor in report.tensors if tensor.sparsity > 0}
    biases = {name: 1.0 for name in found if name.endswith("bias")}  # zeros from the start
    assert found == pytest.approx(sparsity | biases, abs=1e-3)


def test_a_global_budget_is_kept_in_all_and_differs_by_layer() -> None:
    model = ranker()
    names = ("dense_0/kernel", "item_embedding/embeddings")
    pruned = prune(model, WeightPruning(0.9, budget="global", names=names))
    weights = named_weights(pruned.model)
    zeros = sum(int((weights[name] == 0).sum()) for name in names)
    assert zeros == pytest.approx(0.9 * sum(weights[name].size for name in names), abs=1)
    shares = [float((weights[name] == 0).mean()) for name in names]
    assert abs(shares[0] - shares[1]) > 0.1
    np.testing.assert_array_equal(
        weights["user_embedding/embeddings"], named_weights(model)["user_embedding/embeddings"]
    )


@pytest.mark.parametrize("granularity", ["row", "block", "n_of_m"])
def test_patterns(granularity: str) -> None:
    names = ("dense_0/kernel", "dense_1/kernel")
    pruned = prune(ranker(), WeightPruning(0.5, granularity, names=names))
    for name in names:
        zeros = named_weights(pruned.model)[name] == 0
        assert zeros.mean() == 0.5
        if granularity == "row":
            assert set(zeros.mean(axis=1)) == {0, 1}
        if granularity == "n_of_m":
            assert (zeros.reshape(-1, 4, zeros.shape[1]).sum(axis=1) == 2).all()


def test_layouts() -> None:
    kinds = {}
    for layout in ("csr", "bitmap", "dense", "smallest"):
        pruned = prune(ranker(), WeightPruning(0.5, layout=layout))
        kinds[layout] = pruned.tensors["user_embedding/embeddings"].kind
    assert kinds == {"csr": "csr", "bitmap": "bitmap", "dense": "dense", "smallest": "bitmap"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sparsity": 1.0}, ValueError, "sparsity is 1.0"),
        ({"sparsity": {"a": -0.5}}, ValueError, r"sparsity\['a'\] is -0.5"),
        ({"granularity": "filter"}, ValueError, "granularity is 'filter'"),
        ({"budget": "total"}, ValueError, "budget is 'total': expected one of layer, global"),
        ({"budget": "global", "sparsity": {"a": 0.5}}, ValueError, "sparsity is given by name"),
        ({"names": ("a",), "sparsity": {"a": 0.5}}, ValueError, "sparsity is given by name"),
        ({"budget": "global", "granularity": "row"}, ValueError, "expected 'element'"),
        ({"names": "dense_0/kernel"}, TypeError, "names is 'dense_0/kernel': expected a tuple"),
        ({"layout": "coo"}, ValueError, "layout is 'coo'"),
    ],
)
def test_errors_of_the_config(options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        WeightPruning(**options)


def test_errors_of_the_model() -> None:
    import keras

    broken = with_weights(ranker(), {})
    broken.get_layer("dense_0").kernel.assign(np.full((32, 32), np.nan))
    unbuilt = keras.Sequential([keras.layers.Dense(2)])
    for error, message, model, config in (
        (ValueError, "names names 'x'", ranker(), WeightPruning(names=("x",))),
        (ValueError, "sparsity names 'x'", ranker(), WeightPruning({"x": 0.5})),
        (ValueError, "expected at least one", ranker(), WeightPruning({})),
        (ValueError, "dense_0/bias has", ranker(), WeightPruning({"dense_0/bias": 0.5}, "row")),
        (TypeError, "config is of type float", ranker(), 0.5),
        (ValueError, "not built", unbuilt, WeightPruning()),
        (RuntimeError, "fit", IALS(), WeightPruning()),
        (ValueError, "dense_0/kernel holds 1024 NaN", broken, WeightPruning()),
    ):
        with pytest.raises(error, match=message):
            prune(model, config)  # type: ignore[arg-type]
