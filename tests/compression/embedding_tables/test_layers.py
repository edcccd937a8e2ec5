"""Compressed tables inside models: they train, are stored, and leave the original alone."""

import numpy as np
import pytest

from recsys_lib.compression import named_weights, with_weights
from recsys_lib.compression.embedding_tables import (
    Hashing,
    LowRank,
    MixedDimension,
    QuotientRemainder,
    RowwiseBits,
    compress_embeddings,
    store_embeddings,
)
from recsys_lib.data import Interactions
from recsys_lib.models import IALS, RatingModelConfig, build_rating_model, inner_product_vectors
from recsys_lib.training import KerasRecommender, fit

USERS, ITEMS = 40, 30
RANDOM = np.random.default_rng(0)
PAIRS = np.unique(RANDOM.integers(0, [USERS, ITEMS], (400, 2)), axis=0)
DATA = Interactions(PAIRS[:, 0], PAIRS[:, 1], num_users=USERS, num_items=ITEMS)
IDS = [DATA.user_ids.astype(np.int32), DATA.item_ids.astype(np.int32)]
TABLES = ("user_embedding", "item_embedding")
COUNTS = {name: np.bincount(ids) for name, ids in zip(TABLES, PAIRS.T, strict=True)}
SCHEMES = [Hashing(10), QuotientRemainder(6), LowRank(2), MixedDimension(2, 0.5), RowwiseBits(3)]
CASES = [("dot_product", s) for s in SCHEMES] + [
    ("matrix_factorization", Hashing(10)),
    ("two_tower", MixedDimension(2)),
    ("mlp_ranker", RowwiseBits(3)),
]


def build(kind="dot_product"):
    hidden = (8, 4) if kind in ("two_tower", "mlp_ranker") else None
    return build_rating_model(RatingModelConfig(kind, USERS, ITEMS, 8, hidden_units=hidden))


@pytest.mark.parametrize(("kind", "scheme"), CASES, ids=repr)
def test_compressed_models_train_store_and_score(kind, scheme):
    import keras

    model = build(kind)
    before = named_weights(model)
    small = compress_embeddings(model, scheme, counts=COUNTS, seed=1)
    start = [w.copy() for w in small.get_weights()]
    adam = keras.optimizers.Adam(0.03)
    run = fit(small, DATA, epochs=5, batch_size=128, optimizer=adam, progress=False)
    assert run.loss[-1] < run.loss[0]
    assert any((a != b).any() for a, b in zip(start, small.get_weights(), strict=True))
    stored = store_embeddings(small)
    assert (inner_product_vectors(stored.model) is None) == (kind == "mlp_ranker")
    np.testing.assert_allclose(stored.score(*IDS), np.asarray(small(IDS)), rtol=1e-2, atol=1e-2)
    assert stored.nbytes == stored.report.bytes_after
    assert stored.report.bytes_before == sum(w.size * 4 for w in before.values())
    np.testing.assert_equal(named_weights(model), before)  # the original has not moved


def test_only_the_tables_asked_for_are_replaced_and_saving_keeps_scores(tmp_path):
    import keras

    model = build("matrix_factorization")
    small = compress_embeddings(model, {"item_embedding": Hashing(5)})
    names = {layer.name for layer in small.layers}
    # inner_product_vectors reads the table of a layer called user_embedding.
    assert inner_product_vectors(small) is None
    assert {"item_embedding_hashing", "user_embedding", "item_bias"} <= names
    weights = [m.get_layer("user_embedding").get_weights()[0] for m in (small, model)]
    np.testing.assert_array_equal(*weights)
    schemes = {"user_embedding": MixedDimension(2), "item_embedding": LowRank(2)}
    small = compress_embeddings(build(), schemes, counts=COUNTS)
    expected = np.asarray(small(IDS))
    np.testing.assert_array_equal(np.asarray(with_weights(small, {})(IDS)), expected)
    small.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(np.asarray(loaded(IDS)), expected)


def test_refuses_and_takes_a_recommender():
    config = RatingModelConfig("dot_product", USERS, ITEMS, 8)
    recommender = KerasRecommender(config, epochs=1, progress=False).fit(DATA)
    assert compress_embeddings(recommender, LowRank(1)).count_params() == 1 * (USERS + ITEMS) + 16
    model, factors, put = build(), IALS(embedding_dim=2, epochs=1).fit(DATA), compress_embeddings
    for error, message, call in (
        (ValueError, "scheme names 'users'", lambda: put(model, {"users": LowRank(1)})),
        (ValueError, "counts names", lambda: put(model, Hashing(3), counts={"x": [1]})),
        (ValueError, "counts is None", lambda: put(model, MixedDimension())),
        (ValueError, "no compressed tables", lambda: store_embeddings(model)),
        (TypeError, "scheme is of type int", lambda: put(model, {"user_embedding": 3})),
        (TypeError, "IALS", lambda: put(factors, LowRank(1))),
        (TypeError, "IALS", lambda: store_embeddings(factors)),
    ):
        with pytest.raises(error, match=message):
            call()
