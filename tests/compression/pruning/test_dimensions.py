"""Dimensions: rotation changes no score, and what is cut after it is what matters least."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recsys_lib.compression import named_weights, with_weights
from recsys_lib.compression.pruning import DimensionReduction, prune, rotate_to_principal_axes
from recsys_lib.compression.pruning.rating_models import read_config
from recsys_lib.data import Interactions
from recsys_lib.models import ALS, IALS, Popularity, RatingModelConfig, build_rating_model
from recsys_lib.models.factors import Factors, FoldIn

RANDOM = np.random.default_rng(0)
DATA = Interactions(
    RANDOM.integers(0, 40, 500), RANDOM.integers(0, 30, 500), RANDOM.uniform(1, 5, 500)
)
USERS, ITEMS = (RANDOM.integers(0, count, 60).astype(np.int32) for count in (40, 30))
KINDS = ("dot_product", "matrix_factorization", "two_tower", "mlp_ranker", "neumf")


def built(kind: str, width: int = 8, keras: Any = None) -> Any:
    units = (6, 4) if kind in ("two_tower", "mlp_ranker", "neumf") else None
    config = RatingModelConfig(kind, 40, 30, width, hidden_units=units, init_std=0.5)
    model = build_rating_model(config, keras=keras)
    random = np.random.default_rng(1)
    model.set_weights(
        [w + 0.2 * random.normal(size=w.shape).astype(np.float32) for w in model.get_weights()]
    )
    return model


def scores(model: Any) -> np.ndarray:
    return np.asarray(model([USERS, ITEMS]))


@pytest.mark.parametrize("shape", [(50, 40, 6), (50, 3, 6), (2, 40, 6), (1, 1, 1)])
def test_cut_axes_are_the_truncated_svd_of_all_scores(shape: tuple[int, int, int]) -> None:
    num_users, num_items, width = shape
    users = RANDOM.normal(size=(num_users, width)) * np.geomspace(1, 0.1, width)
    items = RANDOM.normal(size=(num_items, width)) @ RANDOM.normal(size=(width, width))
    left, values, right = np.linalg.svd(users @ items.T)
    axes = rotate_to_principal_axes(users, items)
    assert axes.user_vectors.shape == users.shape and axes.item_vectors.shape == items.shape
    np.testing.assert_allclose(
        axes.singular_values[: len(values)], values[:width], rtol=1e-4, atol=1e-5
    )
    for k in range(1, min(shape) + 1):
        best = (left[:, :k] * values[:k]) @ right[:k]
        found = axes.user_vectors[:, :k] @ axes.item_vectors[:, :k].T
        np.testing.assert_allclose(found, best, atol=1e-4)


tables = st.integers(1, 5).flatmap(
    lambda width: st.tuples(
        *[
            arrays(
                np.float64, st.tuples(st.integers(1, 9), st.just(width)), elements=st.floats(-9, 9)
            )
            for _ in range(2)
        ]
    )
)


@settings(max_examples=60, deadline=None)
@given(tables)
def test_rotation_keeps_every_inner_product(both: tuple[np.ndarray, np.ndarray]) -> None:
    """Also of tables without full rank, of zeros, and of fewer rows than columns."""
    users, items = both
    axes = rotate_to_principal_axes(users, items)
    np.testing.assert_allclose(
        axes.user_vectors @ axes.item_vectors.T,
        users @ items.T,
        atol=1e-4 * max(1, np.abs(users @ items.T).max()),
    )
    lengths = [np.linalg.norm(table, axis=0) for table in axes[:2]]
    np.testing.assert_allclose(lengths[0], lengths[1], atol=1e-3)  # balanced
    np.testing.assert_allclose(lengths[0] ** 2, axes.singular_values, atol=1e-2)
    assert (np.diff(axes.singular_values) <= 1e-6).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axes", ["principal", "given"])
def test_all_dimensions_in_other_axes_score_the_same(kind: str, axes: str) -> None:
    model = built(kind)
    turned = prune(model, DimensionReduction(8, axes))
    np.testing.assert_allclose(scores(turned.model), scores(model), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_fewer_dimensions_are_a_smaller_model_that_serves(kind: str) -> None:
    from recsys_lib.serving import CandidateScorer

    model = built(kind)
    before = named_weights(model)
    errors = []
    for axes in ("principal", "given"):
        smaller = prune(model, DimensionReduction(3, axes)).model
        assert read_config(smaller).embedding_dim == 3
        assert smaller.get_layer("user_embedding").embeddings.shape == (40, 3)
        np.testing.assert_allclose(
            CandidateScorer(smaller).score(USERS, ITEMS), scores(smaller), atol=1e-4
        )
        errors.append(np.mean((scores(smaller) - scores(model)) ** 2))
    assert errors[0] < errors[1]
    for name, values in named_weights(model).items():
        np.testing.assert_array_equal(values, before[name])


@pytest.mark.parametrize("kind", ["mlp_ranker", "neumf", "two_tower"])
def test_a_table_of_low_rank_loses_nothing(kind: str) -> None:
    """Rows that lie in a plane beside the origin: three dimensions, if it were not for the mean."""
    model = built(kind)
    weights = named_weights(model)
    for name in list(weights):
        if name.endswith("embeddings"):
            rows = RANDOM.normal(size=(len(weights[name]), 2)) @ RANDOM.normal(size=(2, 8))
            shift = 0 if "gmf" in name else RANDOM.normal(size=8)
            weights[name] = (rows + shift).astype(np.float32)
    flat = with_weights(model, weights)
    smaller = prune(flat, DimensionReduction(2)).model
    np.testing.assert_allclose(scores(smaller), scores(flat), rtol=1e-3, atol=1e-3)
    cut = prune(flat, DimensionReduction(2, "given")).model
    assert np.abs(scores(cut) - scores(flat)).max() > 0.01


@pytest.mark.parametrize("kind", [IALS, ALS])
def test_factor_models(kind: Any, tmp_path: Any) -> None:
    model = kind(embedding_dim=8, epochs=3).fit(DATA)
    full = model.score_all_items(np.arange(40))
    same = prune(model, DimensionReduction(8)).model
    np.testing.assert_allclose(same.score_all_items(np.arange(40)), full, atol=1e-4)
    smaller = prune(model, DimensionReduction(3))
    assert smaller.model.embedding_dim == 3 and model.embedding_dim == 8
    assert smaller.model.item_vectors.shape == (30, 3) and model.item_vectors.shape == (30, 8)
    rest = full - model.user_vectors @ model.item_vectors.T  # biases, of ALS
    best = np.linalg.svd(model.user_vectors @ model.item_vectors.T)
    expected = rest + (best[0][:, :3] * best[1][:3]) @ best[2][:3]
    np.testing.assert_allclose(smaller.score_all_items(np.arange(40)), expected, atol=1e-4)
    smaller.model.save(tmp_path / "smaller.npz")
    again = kind.load(tmp_path / "smaller.npz")
    np.testing.assert_array_equal(again.score(USERS, ITEMS), smaller.score(USERS, ITEMS))


def test_a_new_user_can_still_be_folded_in() -> None:
    model = IALS(embedding_dim=8, epochs=8).fit(DATA)
    turned = prune(model, DimensionReduction(8)).model
    before, after = (m.score_histories([[1, 2, 3]])[0] for m in (model, turned))
    assert np.corrcoef(before, after)[0, 1] > 0.95
    smaller = prune(model, DimensionReduction(2)).model
    assert smaller.fold_in([[1, 2]]).shape == (1, 2)


def test_biases_stay() -> None:
    random = np.random.default_rng(0)
    items, users = (random.normal(size=(n, 6)).astype(np.float32) for n in (30, 40))
    biases = {"user_biases": users[:, 0].copy(), "item_biases": items[:, 1].copy()}
    model = Factors(items, users, global_mean=3.0, **biases)
    turned = prune(model, DimensionReduction(np.int64(6)))
    assert turned.report.config.embedding_dim == 6
    np.testing.assert_allclose(turned.score(USERS, ITEMS), model.score(USERS, ITEMS), atol=1e-4)


def test_errors() -> None:
    model, items_only = built("mlp_ranker"), Factors(np.eye(3), fold_in=FoldIn(0.1, 0.1))
    popularity, one, turn = Popularity().fit(DATA), np.ones((3, 1)), rotate_to_principal_axes
    for error, message, call in (
        (ValueError, "embedding_dim is 9", lambda: prune(model, DimensionReduction(9))),
        (ValueError, "embedding_dim is 0", lambda: DimensionReduction(0)),
        (ValueError, "axes is 'pca'", lambda: DimensionReduction(2, "pca")),
        (ValueError, "items only", lambda: prune(items_only, DimensionReduction(2))),
        (TypeError, "Popularity", lambda: prune(popularity, DimensionReduction(2))),
        (TypeError, "config is of type int", lambda: prune(model, 2)),  # type: ignore[arg-type]
        (RuntimeError, "fit", lambda: prune(IALS(), DimensionReduction(2))),
        (ValueError, r"item_vectors \(3, 1\)", lambda: turn(np.ones((3, 2)), one)),
        (ValueError, "item_vectors holds 3 NaN", lambda: turn(one, one * np.nan)),
        (TypeError, "user_vectors is of", lambda: turn(one.astype(int), one)),
    ):
        with pytest.raises(error, match=message):
            call()
