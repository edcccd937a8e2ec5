"""Layers: what a removed layer did is folded into its reader, and measured by ablation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recsys_lib.compression import named_weights, with_weights
from recsys_lib.compression.pruning import LayerRemoval, ablate_layers, prune, sample_pairs
from recsys_lib.compression.pruning.rating_models import read_config
from recsys_lib.data import Interactions
from recsys_lib.models import RatingModelConfig, build_rating_model

RANDOM = np.random.default_rng(0)
DATA = Interactions(RANDOM.integers(0, 30, 400), RANDOM.integers(0, 20, 400))
USERS, ITEMS = (RANDOM.integers(0, count, 50).astype(np.int32) for count in (30, 20))
KINDS = ("mlp_ranker", "neumf", "two_tower")


def built(kind: str, activation: str = "relu", units: tuple[int, ...] = (8, 6, 4)) -> Any:
    config = RatingModelConfig(
        kind, 30, 20, embedding_dim=5, hidden_units=units, activation=activation, init_std=1.0
    )
    model = build_rating_model(config)
    random = np.random.default_rng(1)
    model.set_weights(
        [w + 0.1 * random.normal(size=w.shape).astype(np.float32) for w in model.get_weights()]
    )
    return model


def scores(model: Any) -> np.ndarray:
    return np.asarray(model([USERS, ITEMS]))


REMOVABLE = [(kind, n) for kind in KINDS for n in range(3) if (kind, n) != ("two_tower", 2)]


@pytest.mark.parametrize(("kind", "position"), REMOVABLE)
def test_linear_layers_fold_without_any_change(kind: str, position: int) -> None:
    model = built(kind, "linear")
    smaller = prune(model, LayerRemoval(position))
    left = tuple(np.delete([8, 6, 4], position).tolist())
    assert read_config(smaller.model).hidden_units == left
    np.testing.assert_allclose(scores(smaller.model), scores(model), rtol=1e-3, atol=1e-4)
    fitted = prune(model, LayerRemoval(position, ridge=1e-9), DATA).model
    np.testing.assert_allclose(scores(fitted), scores(model), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_the_fit_is_closer_than_the_fold_and_both_serve(kind: str) -> None:
    from recsys_lib.serving import CandidateScorer

    model = built(kind)
    folded, fitted = (prune(model, LayerRemoval(1), data).model for data in (None, DATA))
    error = [np.mean((scores(m) - scores(model)) ** 2) for m in (folded, fitted)]
    assert 0 < error[1] < error[0]
    np.testing.assert_allclose(
        CandidateScorer(fitted).score(USERS, ITEMS), scores(fitted), atol=1e-4
    )


def test_the_bridge_is_the_ridge_regression_of_another_library_of_equations() -> None:
    """With a tiny penalty: NumPy's least squares on the inputs of the removed layer."""
    model = built("mlp_ranker")
    weights = named_weights(model)
    users, items, _ = sample_pairs(model, DATA)
    inputs = np.hstack(
        [weights["user_embedding/embeddings"][users], weights["item_embedding/embeddings"][items]]
    )
    hidden = np.maximum(inputs @ weights["dense_0/kernel"] + weights["dense_0/bias"], 0)
    targets = hidden @ weights["dense_1/kernel"] + weights["dense_1/bias"]
    design = np.hstack([inputs, np.ones((len(inputs), 1))])
    expected = np.linalg.lstsq(design, targets, rcond=None)[0]
    found = named_weights(prune(model, LayerRemoval(0, ridge=1e-9), DATA).model)
    np.testing.assert_allclose(found["dense_0/kernel"], expected[:-1], atol=1e-4)
    np.testing.assert_allclose(found["dense_0/bias"], expected[-1], atol=1e-4)


def test_ablation_finds_the_layer_that_does_nothing() -> None:
    """Layer 1 passes on what is positive already: it can go, or layer 0 into it; layer 2 not."""
    model = built("mlp_ranker", units=(6, 6, 4))
    same = with_weights(
        model,
        {"dense_1/kernel": np.eye(6, dtype=np.float32), "dense_1/bias": np.zeros(6, np.float32)},
    )
    whole = scores(same)
    errors = ablate_layers(same, lambda smaller: float(np.abs(scores(smaller) - whole).max()))
    assert list(errors) == [0, 1, 2]
    assert max(errors[0], errors[1]) < 1e-4 < 1e-2 < errors[2]
    np.testing.assert_array_equal(scores(same), whole)


def test_the_report_says_which_layer_is_gone() -> None:
    frame = prune(built("neumf"), LayerRemoval(1)).report.to_frame().set_index("name")
    assert frame.loc["dense_2/kernel", "stored_as"] == "removed"
    assert frame.loc["dense_1/kernel", "shape_after"] == (8, 4)


def test_errors() -> None:
    other = Interactions([0], [0])
    for error, message, call in (
        (ValueError, "position is 3", lambda: prune(built("mlp_ranker"), LayerRemoval(3))),
        (ValueError, "position is 2", lambda: prune(built("two_tower"), LayerRemoval(2))),
        (ValueError, "1 hidden layers", lambda: ablate_layers(built("neumf", units=(3,)), scores)),
        (ValueError, r"\(1, 1\) users", lambda: prune(built("neumf"), LayerRemoval(0), other)),
        (ValueError, "position is -1", lambda: LayerRemoval(-1)),
        (TypeError, "position is 'dense_0'", lambda: LayerRemoval("dense_0")),  # type: ignore[arg-type]
        (ValueError, "ridge is 0", lambda: LayerRemoval(0, ridge=0.0)),
    ):
        with pytest.raises(error, match=message):
            call()
