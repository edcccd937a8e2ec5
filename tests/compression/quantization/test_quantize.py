"""Whole models: what is stored, what scores, what LiteRT stores, and what Guan et al. report."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from recsys_lib.compression import named_weights
from recsys_lib.compression.quantization import (
    CodebookQuantization,
    MixedPrecision,
    ProductQuantization,
    TransformCoding,
    UniformQuantization,
    quantize,
)
from recsys_lib.data import Interactions
from recsys_lib.evaluation import evaluate_leave_one_out
from recsys_lib.models import ALS, IALS, Popularity, RatingModelConfig, build_rating_model
from recsys_lib.notebook import quiet
from recsys_lib.serving import export_litert
from recsys_lib.training import KerasRecommender

CONFIG = RatingModelConfig("mlp_ranker", 300, 400, embedding_dim=32, hidden_units=(64, 32))


def interactions() -> Interactions:
    random = np.random.default_rng(0)
    return Interactions(
        random.integers(0, 30, 300), random.integers(0, 40, 300), num_users=30, num_items=41
    )


def test_a_factor_model_in_four_bits_keeps_its_ranking_and_its_unseen_item() -> None:
    model = IALS(embedding_dim=64).fit(interactions())
    assert not model.item_vectors[40].any()  # nobody touched it: a constant row
    small = quantize(model, UniformQuantization(bits=4, scale_search="mse"))
    assert isinstance(small.model, IALS)
    scores = small.score_all_items(np.arange(30))
    assert np.isfinite(scores).all() and (scores[:, 40] == 0).all()
    assert np.corrcoef(scores.ravel(), model.score_all_items(np.arange(30)).ravel())[0, 1] > 0.99
    assert small.report.bytes_before == 4 * 64 * 71
    assert small.nbytes == small.report.bytes_after
    assert 5 < small.report.ratio < 8  # 32 bytes of codes and 4 of scales a row, and two headers


@pytest.mark.parametrize("kind", ["keras", "recommender", "tf_keras"])
def test_keras_models_of_each_kind_score_with_rounded_weights(kind: str) -> None:
    config = RatingModelConfig("mlp_ranker", 30, 41, embedding_dim=8, hidden_units=(8,))
    if kind == "recommender":
        model = KerasRecommender(config, epochs=1, progress=False).fit(interactions())
    elif kind == "tf_keras":
        model = build_rating_model(config, keras=pytest.importorskip("tf_keras"))
    else:
        model = build_rating_model(config)
    before = named_weights(model)
    small = quantize(model, UniformQuantization(bits=3, granularity="column"))
    for name, values in named_weights(small.model).items():
        rounded = quantize(before[name], UniformQuantization(3, "column")).decode()
        np.testing.assert_array_equal(values, rounded if values.ndim > 1 else before[name])
    for name, values in named_weights(model).items():
        np.testing.assert_array_equal(values, before[name])
    assert small.score([1, 2], [3, 4]).shape == (2,)


def test_each_weight_can_have_its_own_form() -> None:
    model = build_rating_model(CONFIG)
    small = quantize(
        model,
        {
            "user_embedding/embeddings": UniformQuantization(bits=4, granularity="row"),
            "item_embedding/embeddings": "float16",
            "dense_0/kernel": UniformQuantization(bits=8, granularity="column", symmetric=True),
            "dense_1/kernel": None,
        },
    )
    stored = {name: tensor.kind for name, tensor in small.tensors.items()}
    assert stored["user_embedding/embeddings"] == stored["dense_0/kernel"] == "uniform"
    assert stored["item_embedding/embeddings"] == stored["dense_1/kernel"] == "dense"
    half, full = (small.tensors[n].nbytes for n in ("item_embedding/embeddings", "dense_1/kernel"))
    assert half < 400 * 32 * 2 + 60 and full > 64 * 32 * 4
    assert small.report.tensors[0].relative_error > 0


def test_float16_halves_the_bytes_and_hardly_changes_a_score() -> None:
    model = build_rating_model(CONFIG)
    half = quantize(model, "float16")
    assert half.report.ratio == pytest.approx(2, abs=0.05)
    users, items = np.arange(300), np.arange(300)
    exact = np.asarray(model([users, items]))
    np.testing.assert_allclose(half.score(users, items), exact, atol=2e-3 * np.abs(exact).max())


def test_litert_stores_the_same_integers(tmp_path: Path) -> None:
    """Its dynamic-range file: kernels by output, tables in all, symmetric, 8 bits."""
    interpreter_module = pytest.importorskip("ai_edge_litert.interpreter")
    model = build_rating_model(CONFIG)
    weights = named_weights(model)
    with quiet():
        export_litert(model, tmp_path / "dynamic.tflite", "dynamic")
        interpreter = interpreter_module.Interpreter(str(tmp_path / "dynamic.tflite"))
        interpreter.allocate_tensors()
    compared = 0
    for detail in interpreter.get_tensor_details():
        if detail["dtype"] != np.int8 or "Gather" in detail["name"]:
            continue
        name = next((n for n in weights if n.split("/")[0] + "_" in detail["name"]), None)
        assert name is not None, detail["name"]
        kernel = "kernel" in name
        granularity = "column" if kernel else "tensor"
        ours = quantize(
            weights[name],
            UniformQuantization(8, granularity, symmetric=True, scale_dtype="float32"),
        )
        codes = ours.codes.astype(int) - 127
        theirs = interpreter.get_tensor(detail["index"])
        scales = detail["quantization_parameters"]["scales"]
        np.testing.assert_array_equal(theirs.T if kernel else theirs, codes)
        np.testing.assert_allclose(scales, ours.scale.ravel(), rtol=1e-6)
        compared += 1
    assert compared == 4  # two tables, two kernels; the last, of 32 numbers, stays float32


CONFIGS = [
    "float16",
    UniformQuantization(8),
    CodebookQuantization(8),
    ProductQuantization(8),
    MixedPrecision({"user_vectors": 8, "item_vectors": 8}),
    TransformCoding(0.01),
]


@pytest.mark.parametrize(
    "config", CONFIGS, ids=lambda c: c if isinstance(c, str) else type(c).__name__
)
def test_a_model_with_biases_scores_as_before_within_its_rounding(config) -> None:
    data = interactions()
    rated = Interactions(
        data.user_ids, data.item_ids, ratings=3 + np.sin(np.arange(300)), num_users=30, num_items=41
    )
    model = ALS(embedding_dim=8, epochs=3).fit(rated)
    assert model.item_biases.any() and model.global_mean > 1
    small = quantize(model, config)
    exact = model.score_all_items(np.arange(30))
    np.testing.assert_allclose(small.score_all_items(np.arange(30)), exact, atol=0.05)
    for name in ("user_biases", "item_biases"):
        np.testing.assert_array_equal(getattr(small.model, name), getattr(model, name))


def test_arrays_and_compressed_models_go_through_the_same_verb() -> None:
    model = IALS(embedding_dim=16).fit(interactions())
    config = UniformQuantization(4)
    small = quantize(model, config)
    tables = named_weights(model)
    for name, tensor in quantize(tables, config).items():
        np.testing.assert_array_equal(tensor.decode(), small.tensors[name].decode())
        np.testing.assert_array_equal(tensor.decode(), quantize(tables[name], config).decode())
    some = quantize(tables, {"user_vectors": "float16", "item_vectors": None})
    assert list(some) == ["user_vectors"] and some["user_vectors"].kind == "dense"
    items = quantize(model, {"item_vectors": CodebookQuantization(4)})
    both = quantize(items, {"user_vectors": config})
    assert [both.tensors[n].kind for n in ("user_vectors", "item_vectors")] == [
        "uniform",
        "codebook",
    ]
    np.testing.assert_array_equal(both.model.item_vectors, items.model.item_vectors)


def test_codes_of_rows_are_for_tables_and_leave_kernels_alone() -> None:
    small = quantize(build_rating_model(CONFIG), ProductQuantization(8, bits=4))
    kinds = {name: tensor.kind for name, tensor in small.tensors.items()}
    assert kinds["user_embedding/embeddings"] == kinds["item_embedding/embeddings"] == "product"
    assert kinds["dense_0/kernel"] == "dense"


def test_a_model_or_config_that_cannot_be_quantized_is_refused() -> None:
    import keras

    config = RatingModelConfig("dot_product", 3, 4, embedding_dim=2)
    model = build_rating_model(config)
    with pytest.raises(ValueError, match="config names 'user_table'"):
        quantize(model, {"user_table": UniformQuantization()})
    for wrong in ("int8", {"user_embedding/embeddings": 8}):
        with pytest.raises(TypeError, match="for user_embedding"):
            quantize(model, wrong)
    with pytest.raises(TypeError, match="expected a factor model"):
        quantize(Popularity(), UniformQuantization())
    with pytest.raises(ValueError, match="teacher is given"):
        quantize(model, UniformQuantization(), teacher=model)
    with pytest.raises(RuntimeError, match="fit"):
        quantize(IALS(), UniformQuantization())
    broken = build_rating_model(config)
    broken.get_layer("item_embedding").set_weights([np.full((4, 2), np.nan, np.float32)])
    with pytest.raises(ValueError, match="item_embedding/embeddings holds 8 NaN"):
        quantize(broken, UniformQuantization())
    with pytest.raises(ValueError, match="model is not built"):
        quantize(keras.Sequential([keras.layers.Dense(2)]), UniformQuantization())


@pytest.fixture(scope="module")
def fitted(published_ials):
    split, model, _ = published_ials
    result = evaluate_leave_one_out(model, split, k=10)
    assert result.ndcg >= 0.453
    return split, model, result.ndcg


@pytest.mark.slow
def test_four_bits_lose_at_most_three_tenths_of_a_percent(fitted):
    split, model, ndcg = fitted
    small = quantize(model, UniformQuantization(bits=4, scale_search="mse"))
    assert small.nbytes <= 0.14 * small.report.bytes_before
    assert evaluate_leave_one_out(small, split, k=10).ndcg >= 0.997 * ndcg


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bits", "smaller", "change", "tolerance"),
    [
        (8, 3.9, 0.001, 0.003),
        (4, 7.7, -0.002, 0.004),
        (3, 10.1, -0.009, 0.006),
        (2, 14.8, -0.075, 0.02),
    ],
)
def test_the_curve_of_minmax_ranges(fitted, bits, smaller, change, tolerance):
    split, model, ndcg = fitted
    small = quantize(model, UniformQuantization(bits=bits))
    assert small.report.ratio == pytest.approx(smaller, abs=0.05)
    changed = evaluate_leave_one_out(small, split, k=10).ndcg / ndcg - 1
    assert changed == pytest.approx(change, abs=tolerance)


@pytest.mark.slow
def test_the_search_for_the_range_halves_the_loss_at_two_bits(fitted):
    split, model, ndcg = fitted
    lost = {}
    for search in ("minmax", "mse"):
        small = quantize(model, UniformQuantization(bits=2, scale_search=search))
        lost[search] = 1 - evaluate_leave_one_out(small, split, k=10).ndcg / ndcg
    assert lost["mse"] < lost["minmax"] / 2


@pytest.mark.slow
def test_users_folded_in_from_quantized_items_need_no_table(fitted):
    split, model, ndcg = fitted
    matrix = split.train.to_csr()
    histories = np.split(matrix.indices, matrix.indptr[1:-1])
    small = quantize(model, {"item_vectors": UniformQuantization(bits=4)})
    served = copy.copy(small.model)
    with threadpool_limits(1):
        served.user_vectors = small.model.fold_in(histories)
    assert small.report.bytes_before / small.tensors["item_vectors"].nbytes > 20
    assert evaluate_leave_one_out(served, split, k=10).ndcg >= 0.995 * ndcg
