"""Rows: rare users and items share one, ids stay what they were, and the bytes are counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_lib.compression import named_weights
from recsys_lib.compression.pruning import RowRemoval, prune
from recsys_lib.compression.pruning.rating_models import read_config
from recsys_lib.compression.pruning.tables import RowMap
from recsys_lib.compression.tensors import read_tensor
from recsys_lib.data import Interactions
from recsys_lib.models import ALS, IALS, RatingModelConfig, build_rating_model
from recsys_lib.models.factors import Factors
from recsys_lib.training import KerasRecommender

# User 3 and items 3, 4 have one interaction, item 5 none.
DATA = Interactions(
    [0, 0, 0, 1, 1, 2, 2, 2, 3], [0, 1, 2, 0, 1, 0, 2, 3, 4], np.arange(9.0), num_items=6
)
KINDS = ("dot_product", "matrix_factorization", "two_tower", "mlp_ranker", "neumf")
PAIRS = tuple(np.repeat(np.arange(4), 6)), tuple(np.tile(np.arange(6), 4))


def built(kind: str) -> Any:
    units = (6, 4) if kind in ("two_tower", "mlp_ranker", "neumf") else None
    return build_rating_model(RatingModelConfig(kind, 4, 6, 3, hidden_units=units, init_std=1.0))


@pytest.mark.parametrize("kind", KINDS)
def test_kept_pairs_score_as_before_and_the_others_share(kind: str) -> None:
    model = built(kind)
    fewer = prune(model, RowRemoval(2), DATA)
    shape = read_config(fewer.model)
    assert (shape.num_users, shape.num_items) == (3 + 1, 3 + 1)
    assert fewer.user_map.rows.tolist() == [0, 1, 2, 3]
    assert fewer.item_map.rows.tolist() == [0, 1, 2, 3, 3, 3]
    ids = [np.array(side, np.int32) for side in PAIRS]
    before, after = np.asarray(model(ids)).reshape(4, 6), fewer.score(*PAIRS).reshape(4, 6)
    np.testing.assert_allclose(after[:3, :3], before[:3, :3], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(after[:, 3], after[:, 4])
    np.testing.assert_array_equal(after[:, 3], after[:, 5])


@pytest.mark.parametrize("kind", KINDS)
def test_every_table_of_a_side_has_the_weighted_mean_last(kind: str) -> None:
    model = built(kind)
    fewer = prune(model, RowRemoval(2, "item"), DATA).model
    before, after = named_weights(model), named_weights(fewer)
    for name, values in before.items():
        if name.endswith("embeddings") and name.startswith("item"):
            expected = [values[0], values[1], values[2], (values[3] + values[4]) / 2]
            np.testing.assert_allclose(after[name], expected, rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal(after[name], values)


def test_biases_and_their_mean_go_with_the_rows() -> None:
    random = np.random.default_rng(0)
    item_biases, user_biases = np.float32([0, 1, 2, 3, 5, 9]), np.float32([4, 3, 2, 1])
    vectors = [random.normal(size=(n, 3)).astype(np.float32) for n in (6, 4)]
    biases = {"user_biases": user_biases, "item_biases": item_biases}
    model = Factors(*vectors, global_mean=2.5, **biases)
    fewer = prune(model, RowRemoval(2), DATA)
    assert fewer.model.item_biases.tolist() == [0, 1, 2, 4]
    assert fewer.model.user_biases.tolist() == user_biases.tolist()
    before, after = (m.score_all_items(np.arange(4)) for m in (model, fewer))
    np.testing.assert_allclose(after[:3, :3], before[:3, :3], rtol=1e-5)
    np.testing.assert_allclose(after[:3, 5], (before[:3, 3] + before[:3, 4]) / 2, rtol=1e-5)


@pytest.mark.parametrize("kind", [IALS, ALS])
def test_factor_models(kind: Any, tmp_path: Any) -> None:
    model = kind(embedding_dim=2, epochs=3).fit(DATA)
    fewer = prune(model, RowRemoval(2, "item"), DATA)
    before, after = (m.score_all_items(np.arange(4)) for m in (model, fewer))
    assert after.shape == (4, 6)
    np.testing.assert_allclose(after[:, :3], before[:, :3], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after[:, 3], (before[:, 3] + before[:, 4]) / 2, atol=1e-5)
    assert (fewer.model.num_items, model.num_items) == (4, 6)
    fewer.model.save(tmp_path / "fewer.npz")
    again = kind.load(tmp_path / "fewer.npz")
    np.testing.assert_array_equal(again.score([0], [3]), fewer.score([0], [5]))


def test_a_recommender_stays_one() -> None:
    config = RatingModelConfig("neumf", 4, 6, 3, hidden_units=(4,))
    trained = KerasRecommender(config, epochs=1, progress=False).fit(DATA)
    fewer = prune(trained, RowRemoval(2), DATA)
    scores = fewer.score_all_items([0, 3])
    np.testing.assert_allclose(scores.ravel(), fewer.score([0] * 6 + [3] * 6, [*range(6)] * 2))
    assert fewer.model.config.num_items == 4 and trained.config.num_items == 6


def test_the_maps_are_counted_and_come_back_from_their_bits() -> None:
    fewer = prune(built("dot_product"), RowRemoval(2), DATA)
    frame = fewer.report.to_frame().set_index("name")
    assert frame.loc["item_rows", "stored_as"] == "row_map"
    assert frame.bytes_after.sum() == fewer.nbytes
    assert frame.loc["item_embedding/embeddings", "shape_after"] == (4, 3)


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_a_row_map_leads_every_id_to_a_row(kept: list[bool]) -> None:
    row_map = RowMap(np.array(kept))
    own = row_map.rows[np.array(kept)]
    assert own.tolist() == list(range(sum(kept)))
    assert set(row_map.rows.tolist()) == set(range(row_map.num_rows))
    again = read_tensor(row_map.kind, row_map.header(), row_map.arrays())
    assert isinstance(again, RowMap)
    np.testing.assert_array_equal(again.rows, row_map.rows)
    assert row_map.arrays()["kept"].nbytes == -(-len(kept) // 8)


def test_the_ends_nobody_and_everybody() -> None:
    model = built("dot_product")
    same = prune(model, RowRemoval(1, "user"), DATA)
    np.testing.assert_array_equal(
        same.score(*PAIRS), np.asarray(model([np.array(ids, np.int32) for ids in PAIRS]))
    )
    one = prune(model, RowRemoval(99, "item"), DATA)
    assert named_weights(one.model)["item_embedding/embeddings"].shape == (1, 3)
    assert len(np.unique(one.score([0] * 6, range(6)))) == 1


def test_errors() -> None:
    model, other = built("dot_product"), Interactions([0], [0])
    fewer = prune(model, RowRemoval(2), DATA)
    bits = {"kept": np.zeros(1, np.uint8)}
    for error, message, call in (
        (ValueError, "min_interactions is 0", lambda: RowRemoval(0)),
        (ValueError, "sides is 'items'", lambda: RowRemoval(1, "items")),
        (ValueError, "interactions is None", lambda: prune(model, RowRemoval(1))),
        (TypeError, "Interactions", lambda: prune(model, RowRemoval(1), [[0, 1]])),  # type: ignore[arg-type]
        (ValueError, r"counts \(1, 1\)", lambda: prune(model, RowRemoval(1), other)),
        (ValueError, "item_ids holds 6", lambda: fewer.score([0], [6])),
        (ValueError, "kept has 1 bytes", lambda: RowMap.from_parts({"shape": [9]}, bits)),
    ):
        with pytest.raises(error, match=message):
            call()
