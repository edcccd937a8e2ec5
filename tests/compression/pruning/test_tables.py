"""Tables: cut after a rotation that changes no score, and rows that rare ids share."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recsys_lib.compression import named_weights, with_weights
from recsys_lib.compression import pruning as p
from recsys_lib.compression.pruning import DimensionReduction, RowRemoval, prune
from recsys_lib.compression.pruning.rating_models import read_config
from recsys_lib.compression.pruning.tables import RowMap, rotate_to_user_axes
from recsys_lib.compression.tensors import read_tensor
from recsys_lib.data import Interactions
from recsys_lib.models import ALS, IALS, Popularity, RatingModelConfig
from recsys_lib.models.factors import Factors, FoldIn
from recsys_lib.serving import CandidateScorer

RANDOM = np.random.default_rng(0)
USERS, ITEMS = (RANDOM.integers(0, count, 60).astype(np.int32) for count in (40, 30))
EVERYBODY = np.arange(40)
DATA = Interactions(*RANDOM.integers(0, [40, 30], (500, 2)).T, RANDOM.uniform(1, 5, 500))
# User 3 and items 3, 4 have one interaction, item 5 none.
FEW = Interactions(
    [0, 0, 0, 1, 1, 2, 2, 2, 3], [0, 1, 2, 0, 1, 0, 2, 3, 4], np.arange(9.0), num_items=6
)
PAIRS = [np.repeat(np.arange(4, dtype=np.int32), 6), np.tile(np.arange(6, dtype=np.int32), 4)]
MLPS = ("two_tower", "mlp_ranker", "neumf")
every_kind = pytest.mark.parametrize("kind", ["dot_product", "matrix_factorization", *MLPS])


@pytest.fixture(scope="module")
def built(random_model):
    def build(kind, users=40, items=30):
        units = (6, 4) if kind in MLPS else None
        return random_model(RatingModelConfig(kind, users, items, 8, hidden_units=units), 0.5)

    return build


def scores(model):
    return np.asarray(model([USERS, ITEMS]))


def test_a_rotation_keeps_scores_lengths_and_what_a_history_folds_in_to():
    model = IALS(embedding_dim=6, epochs=3, check=False).fit(DATA)
    model.user_vectors *= np.geomspace(1, 0.1, 6).astype("f4")  # axes of unequal importance
    users, items = rotate_to_user_axes(model.user_vectors, model.item_vectors)
    gram, exact = users.T @ users, model.user_vectors @ model.item_vectors.T
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-4 * gram.max())
    assert (np.diff(np.diag(gram)) <= 1e-5 * gram.max()).all()
    np.testing.assert_allclose(users @ items.T, exact, atol=1e-4)
    before, same, stretched = (
        one.with_folded_users(DATA).score_all_items(EVERYBODY)
        for one in (model, *(prune(model, DimensionReduction(6, axes)).model
                             for axes in ("rotation", "principal")))
    )  # fmt: skip
    np.testing.assert_allclose(same, before, atol=1e-4)
    assert np.abs(stretched - before).max() > 0.01


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float64, st.tuples(*[st.integers(2, 9)] * 2), elements=st.floats(-9, 9)), st.data()
)
def test_cut_axes_are_the_truncated_svd_of_all_scores(table, data):
    """Also of tables without full rank, of zeros, and of fewer rows than columns."""
    both = np.split(table, [data.draw(st.integers(1, len(table) - 1))])
    axes, inner = p.rotate_to_principal_axes(*both), both[0] @ both[1].T
    values = np.zeros(table.shape[1])
    values[: min(inner.shape)] = np.linalg.svd(inner, compute_uv=False)[: len(values)]
    atol = 1e-4 * max(1, values[0])
    np.testing.assert_allclose(axes.singular_values, values, atol=atol)
    for k in range(len(values) + 1):  # Eckart & Young: no matrix of this rank is nearer
        cut = axes.user_vectors[:, :k] @ axes.item_vectors[:, :k].T
        left = np.sqrt((values[k:] ** 2).sum())
        assert np.linalg.norm(inner - cut) == pytest.approx(left, abs=atol)
    lengths = [np.linalg.norm(table, axis=0) for table in axes[:2]]
    np.testing.assert_allclose(lengths[0], lengths[1], atol=1e-3)  # balanced


@every_kind
def test_fewer_dimensions_are_a_smaller_model_that_serves(kind, built):
    model = built(kind)
    before, expected, errors = named_weights(model), scores(model), []
    for axes in ("principal", "given"):
        turned, smaller = (prune(model, DimensionReduction(n, axes)).model for n in (8, 3))
        np.testing.assert_allclose(scores(turned), expected, rtol=1e-3, atol=1e-3)
        assert read_config(smaller).embedding_dim == 3
        found = CandidateScorer(smaller).score(USERS, ITEMS)
        np.testing.assert_allclose(found, scores(smaller), rtol=1e-4, atol=1e-4)
        errors.append(np.mean((found - expected) ** 2))
    assert errors[0] < errors[1]
    np.testing.assert_equal(named_weights(model), before)


@pytest.mark.parametrize("kind", MLPS)
def test_a_table_of_low_rank_loses_nothing(kind, built):
    """Rows that lie in a plane beside the origin: three dimensions, if it were not for the mean."""
    weights = named_weights(built(kind))
    for name in [name for name in weights if name.endswith("embeddings")]:
        rows = RANDOM.normal(size=(len(weights[name]), 2)) @ RANDOM.normal(size=(2, 8))
        weights[name] = rows + (0 if "gmf" in name else RANDOM.normal(size=8))
    flat = with_weights(built(kind), weights)
    smaller, cut = (prune(flat, DimensionReduction(2, a)).model for a in ("principal", "given"))
    np.testing.assert_allclose(scores(smaller), scores(flat), rtol=1e-3, atol=1e-3)
    assert np.abs(scores(cut) - scores(flat)).max() > 0.01


@pytest.mark.parametrize("kind", [IALS, ALS])
def test_factor_models_of_fewer_dimensions(kind, tmp_path):
    model = kind(embedding_dim=8, epochs=3).fit(DATA)
    same, smaller = (prune(model, DimensionReduction(n)) for n in (np.int64(8), 3))
    full, product = model.score_all_items(EVERYBODY), model.user_vectors @ model.item_vectors.T
    np.testing.assert_allclose(same.score_all_items(EVERYBODY), full, atol=1e-4)
    assert smaller.model.item_vectors.shape == (30, 3) and model.item_vectors.shape == (30, 8)
    left, values, right = np.linalg.svd(product)
    expected = full - product + (left[:, :3] * values[:3]) @ right[:3]  # with the biases of ALS
    np.testing.assert_allclose(smaller.score_all_items(EVERYBODY), expected, atol=1e-4)
    smaller.model.save(tmp_path / "smaller")
    again = kind.load(tmp_path / "smaller")
    np.testing.assert_array_equal(again.score(USERS, ITEMS), smaller.score(USERS, ITEMS))
    if kind is IALS:
        before, after = (m.score_histories([[1, 2, 3]])[0] for m in (model, same.model))
        assert np.corrcoef(before, after)[0, 1] > 0.95
        assert smaller.model.fold_in([[1, 2]]).shape == (1, 3)


@pytest.mark.slow
@every_kind
def test_kept_pairs_score_as_before_and_the_others_share(kind, built):
    model = built(kind, 4, 6)
    fewer = prune(model, RowRemoval(2), FEW)
    assert fewer.user_map.rows.tolist() == [0, 1, 2, 3]
    assert fewer.item_map.rows.tolist() == [0, 1, 2, 3, 3, 3]
    frame = fewer.report.to_frame().set_index("name")  # the maps are counted
    assert frame.loc["item_rows", "stored_as"] == "row_map"
    assert frame.bytes_after.sum() == fewer.nbytes
    before, after = np.asarray(model(PAIRS)).reshape(4, 6), fewer.score(*PAIRS).reshape(4, 6)
    np.testing.assert_allclose(after[:3, :3], before[:3, :3], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(after[:, [3, 3]], after[:, [4, 5]])
    same, one = (prune(model, RowRemoval(*how), FEW) for how in ((1, "user"), (99, "item")))
    np.testing.assert_array_equal(same.score(*PAIRS).reshape(4, 6), before)  # the ends: nobody,
    assert len(np.unique(one.score([0] * 6, range(6)))) == one.item_map.num_rows == 1  # everybody
    old, new = named_weights(model), named_weights(prune(model, RowRemoval(2, "item"), FEW).model)
    for name, values in old.items():
        if name.endswith("embeddings") and name.startswith("item"):
            values = [*values[:3], (values[3] + values[4]) / 2]
        np.testing.assert_allclose(new[name], values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [IALS, ALS])
def test_factor_models_of_fewer_rows(kind, tmp_path):
    """In ALS the biases, too, are shared."""
    model = kind(embedding_dim=2, epochs=3).fit(FEW)
    fewer = prune(model, RowRemoval(2, "item"), FEW)
    before, after = (m.score_all_items(np.arange(4)) for m in (model, fewer))
    shared = (before[:, [3]] + before[:, [4]]) / 2
    expected = np.hstack([before[:, :3], shared, shared, shared])
    np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-5)
    assert (fewer.model.num_items, model.num_items) == (4, 6)
    fewer.model.save(tmp_path / "fewer")
    again = kind.load(tmp_path / "fewer")
    np.testing.assert_array_equal(again.score([0], [3]), fewer.score([0], [5]))


@settings(deadline=None)
@given(kept=st.lists(st.booleans(), min_size=1, max_size=40))
def test_a_row_map_leads_every_id_to_a_row(kept):
    row_map = RowMap(np.array(kept))
    assert row_map.rows[np.array(kept)].tolist() == list(range(sum(kept)))
    assert set(row_map.rows.tolist()) == set(range(row_map.num_rows))
    again = read_tensor(row_map.kind, row_map.header(), row_map.arrays())
    np.testing.assert_array_equal(again.rows, row_map.rows)
    assert row_map.arrays()["kept"].nbytes == -(-len(kept) // 8)


def test_refuses(built, refuses):
    ranker, items_only = built("mlp_ranker"), Factors(np.eye(3), fold_in=FoldIn(0.1, 0.1))
    popularity, one, turn = Popularity().fit(DATA), np.ones((3, 1)), p.rotate_to_principal_axes
    model, other, rows = built("dot_product", 4, 6), Interactions([0], [0]), RowRemoval(2)
    fewer, bits = prune(model, rows, FEW), {"kept": np.zeros(1, np.uint8)}
    refuses(
        ("embedding_dim", lambda: prune(ranker, DimensionReduction(9))),
        ("items only", lambda: prune(items_only, DimensionReduction(2))),
        ("Popularity", lambda: prune(popularity, DimensionReduction(2))),
        ("config", lambda: prune(ranker, 2)),
        ("item_vectors has shape", lambda: turn(np.ones((3, 2)), one)),
        ("item_vectors holds", lambda: turn(one, one * np.nan)),
        ("interactions is", lambda: prune(model, rows)),
        ("interactions counts", lambda: prune(model, rows, other)),
        ("item_ids", lambda: fewer.score([0], [6])),
        ("kept has 1 bytes", lambda: RowMap.from_parts({"shape": [9]}, bits)),
    )
