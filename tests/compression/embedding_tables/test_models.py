"""Compressed tables inside models: they train, are stored, and leave the original alone."""

from __future__ import annotations

import numpy as np
import pytest

from recsys_lib.compression import named_weights, with_weights
from recsys_lib.compression.embedding_tables import (
    Hashing,
    LowRank,
    MixedDimension,
    ProductCodes,
    QuotientRemainder,
    RowwiseBits,
    TableScheme,
    compress_embeddings,
    store_embeddings,
)
from recsys_lib.compression.quantization import quantize
from recsys_lib.compression.quantization.codebooks import CodebookQuantization
from recsys_lib.compression.quantization.product import ProductQuantization
from recsys_lib.compression.quantization.uniform import UniformQuantization
from recsys_lib.data import Interactions
from recsys_lib.models import IALS, RatingModelConfig, build_rating_model, inner_product_vectors
from recsys_lib.training import KerasRecommender, fit

USERS, ITEMS = 40, 30
RANDOM = np.random.default_rng(0)
PAIRS = np.unique(RANDOM.integers(0, [USERS, ITEMS], (400, 2)), axis=0)
DATA = Interactions(PAIRS[:, 0], PAIRS[:, 1], num_users=USERS, num_items=ITEMS)
COUNTS = {
    "user_embedding": np.bincount(PAIRS[:, 0], minlength=USERS),
    "item_embedding": np.bincount(PAIRS[:, 1], minlength=ITEMS),
}
SCHEMES = [
    Hashing(10),
    QuotientRemainder(6),
    LowRank(2),
    MixedDimension(2, 0.5),
    RowwiseBits(3),
    ProductCodes(2, 3),
]


def build(kind: str = "dot_product", dim: int = 8) -> object:
    hidden = (8, 4) if kind in ("two_tower", "mlp_ranker") else None
    return build_rating_model(RatingModelConfig(kind, USERS, ITEMS, dim, hidden_units=hidden))


CASES = [("dot_product", s) for s in SCHEMES] + [
    ("matrix_factorization", Hashing(10)),
    ("two_tower", MixedDimension(2)),
    ("mlp_ranker", RowwiseBits(3)),
]


@pytest.mark.parametrize(("kind", "scheme"), CASES, ids=repr)
def test_compressed_models_train_store_and_score(kind: str, scheme: TableScheme) -> None:
    import keras

    model = build(kind)
    before = named_weights(model)
    small = compress_embeddings(model, scheme, counts=COUNTS, seed=1)
    start = [w.copy() for w in small.get_weights()]
    adam = keras.optimizers.Adam(0.03)
    run = fit(small, DATA, epochs=5, batch_size=128, optimizer=adam, progress=False)
    assert run.loss[-1] < run.loss[0]
    assert any((a != b).any() for a, b in zip(start, small.get_weights(), strict=True))
    stored = store_embeddings(small, "float32")
    pairs = [DATA.user_ids.astype(np.int32), DATA.item_ids.astype(np.int32)]
    np.testing.assert_allclose(stored.score(*pairs), np.asarray(small(pairs)), rtol=1e-4, atol=1e-5)
    assert stored.nbytes == stored.report.bytes_after
    plain = sum(w.size * 4 for w in before.values())
    assert stored.report.bytes_before == plain
    for name, values in named_weights(model).items():  # the original has not moved
        np.testing.assert_array_equal(values, before[name])


@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
def test_a_start_from_the_table_scores_like_the_post_training_transform(
    scheme: TableScheme,
) -> None:
    model = build()
    fit(model, DATA, epochs=3, batch_size=128, progress=False)
    small = compress_embeddings(model, scheme, counts=COUNTS, start="table")
    after = quantize(model, scheme, counts={f"{name}/embeddings": c for name, c in COUNTS.items()})
    pairs = [DATA.user_ids.astype(np.int32), DATA.item_ids.astype(np.int32)]
    np.testing.assert_allclose(after.score(*pairs), np.asarray(small(pairs)), atol=2e-3)


def test_only_the_tables_asked_for_are_replaced() -> None:
    model = build("matrix_factorization")
    small = compress_embeddings(model, {"item_embedding": Hashing(5)})
    names = [layer.name for layer in small.layers]
    assert "item_embedding_hashing" in names and "user_embedding" in names
    assert "item_bias" in names
    np.testing.assert_array_equal(
        small.get_layer("user_embedding").get_weights()[0],
        model.get_layer("user_embedding").get_weights()[0],  # type: ignore[attr-defined]
    )


def test_nobody_takes_the_parts_for_vectors() -> None:
    # inner_product_vectors reads the table of a layer called user_embedding.
    small = compress_embeddings(build(), Hashing(5))
    assert inner_product_vectors(small) is None
    assert inner_product_vectors(store_embeddings(small).model) is not None


def test_new_weights_and_saving_keep_scores(tmp_path: object) -> None:
    import keras

    small = compress_embeddings(build(), {"user_embedding": MixedDimension(2), **{
        "item_embedding": ProductCodes(2, 3)}}, counts=COUNTS)  # fmt: skip
    pairs = [np.arange(5, dtype=np.int32), np.arange(5, dtype=np.int32)]
    expected = np.asarray(small(pairs))
    np.testing.assert_array_equal(np.asarray(with_weights(small, {})(pairs)), expected)
    path = f"{tmp_path}/model.keras"
    small.save(path)
    np.testing.assert_array_equal(np.asarray(keras.models.load_model(path)(pairs)), expected)


@pytest.mark.parametrize(
    "config",
    [
        UniformQuantization(4, granularity="row"),
        CodebookQuantization(3),
        ProductQuantization(4, 4, "principal"),
        LowRank(4),
        {"item_vectors": Hashing(9)},
    ],
    ids=repr,
)
def test_tables_of_a_factor_model(config: object) -> None:
    model = IALS(embedding_dim=8, epochs=3).fit(DATA)
    before = model.item_vectors.copy()
    small = quantize(model, config)  # type: ignore[arg-type]
    assert isinstance(small.model, IALS)
    assert 0 < small.report.tensors[1].relative_error < 1
    np.testing.assert_array_equal(model.item_vectors, before)
    assert small.score([0, 1], [2, 3]).shape == (2,)
    if isinstance(config, dict):
        assert small.report.tensors[0].relative_error == 0


def test_weighting_by_scores_lowers_the_error_of_scores() -> None:
    pairs = np.unique(RANDOM.integers(0, 300, (9000, 2)) ** 2 // 300, axis=0)
    model = IALS(embedding_dim=16, epochs=4).fit(Interactions(pairs[:, 0], pairs[:, 1]))
    users = np.arange(model.num_users)
    exact = model.score_all_items(users)
    config = ProductQuantization(4, 4)
    plain, weighted = (quantize(model, config, weighting=w) for w in ("none", "scores"))
    errors = [((x.score_all_items(users) - exact) ** 2).sum() for x in (plain, weighted)]
    assert errors[1] < 0.9 * errors[0]
    assert weighted.nbytes <= plain.nbytes


def test_keras_recommender() -> None:
    config = RatingModelConfig("dot_product", USERS, ITEMS, 8)
    recommender = KerasRecommender(config, epochs=1, progress=False).fit(DATA)
    small = quantize(recommender, RowwiseBits(8))
    assert small.recommend([0], k=3).shape == (1, 3) if hasattr(small, "recommend") else True
    assert small.score_all_items([0]).shape == (1, ITEMS)
    assert compress_embeddings(recommender, LowRank(1)).count_params() == 1 * (USERS + ITEMS) + 16


def test_bad_input_is_named() -> None:
    model = build()
    with pytest.raises(ValueError, match="scheme names 'user_table'"):
        compress_embeddings(model, {"user_table": Hashing(3)})
    with pytest.raises(TypeError, match="scheme is of type int"):
        compress_embeddings(model, {"user_embedding": 3})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="start is 'zeros'"):
        compress_embeddings(model, Hashing(3), start="zeros")
    with pytest.raises(ValueError, match="counts is None"):
        compress_embeddings(model, MixedDimension())
    with pytest.raises(TypeError, match="IALS"):
        compress_embeddings(IALS(embedding_dim=2, epochs=1).fit(DATA), Hashing(3))
    with pytest.raises(ValueError, match="no compressed tables"):
        store_embeddings(model)
    with pytest.raises(ValueError, match="expected a factor model"):
        quantize(model, LowRank(1), weighting="scores")
    with pytest.raises(TypeError, match="config is '4 bits'"):
        quantize(model, "4 bits")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="config names 'logits/kernel'"):
        quantize(model, {"logits/kernel": LowRank(1)})
