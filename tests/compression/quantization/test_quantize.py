"""Whole models: what is stored, what scores, what LiteRT stores, and what Guan et al. report."""

from __future__ import annotations

import copy

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
RANDOM = np.random.default_rng(0)
PAIRS = RANDOM.integers(0, 30, 300), RANDOM.integers(0, 40, 300)
DATA = Interactions(*PAIRS, num_users=30, num_items=41)  # nobody has met item 40
TABLES = ("user_embedding/embeddings", "item_embedding/embeddings")


def test_a_factor_model_in_four_bits_keeps_its_ranking_and_its_unseen_item():
    model = IALS(embedding_dim=64).fit(DATA)
    assert not model.item_vectors[40].any()  # a constant row
    small = quantize(model, UniformQuantization(bits=4, scale_search="mse"))
    assert isinstance(small.model, IALS)
    scores, exact = (m.score_all_items(np.arange(30)) for m in (small, model))
    assert np.isfinite(scores).all() and (scores[:, 40] == 0).all()
    assert np.corrcoef(scores.ravel(), exact.ravel())[0, 1] > 0.99
    assert small.report.bytes_before == 4 * 64 * 71
    assert small.nbytes == small.report.bytes_after
    assert 5 < small.report.ratio < 8  # 32 bytes of codes and 4 of scales a row, and two headers


@pytest.mark.parametrize("kind", ["keras", "recommender", "tf_keras"])
def test_keras_models_of_each_kind_score_with_rounded_weights(kind):
    config = RatingModelConfig("mlp_ranker", 30, 41, embedding_dim=8, hidden_units=(8,))
    if kind == "recommender":
        model = KerasRecommender(config, epochs=1, progress=False).fit(DATA)
    else:
        model = build_rating_model(config, keras=pytest.importorskip(kind))
    before = named_weights(model)
    small = quantize(model, UniformQuantization(bits=3, granularity="column"))
    for name, values in named_weights(small.model).items():
        rounded = quantize(before[name], UniformQuantization(3, "column")).decode()
        np.testing.assert_array_equal(values, rounded if values.ndim > 1 else before[name])
    for name, values in named_weights(model).items():
        np.testing.assert_array_equal(values, before[name])
    assert small.score([1, 2], [3, 4]).shape == (2,)


def test_each_weight_can_have_its_own_form():
    forms = {
        TABLES[0]: UniformQuantization(bits=4, granularity="row"),
        TABLES[1]: "float16",
        "dense_0/kernel": UniformQuantization(bits=8, granularity="column", symmetric=True),
        "dense_1/kernel": None,
    }
    small = quantize(build_rating_model(CONFIG), forms)
    kinds = [small.tensors[name].kind for name in forms]
    assert kinds == ["uniform", "dense", "uniform", "dense"]
    assert small.tensors[TABLES[1]].nbytes < 400 * 32 * 2 + 60
    assert small.tensors["dense_1/kernel"].nbytes > 64 * 32 * 4
    assert small.report.tensors[0].relative_error > 0


def test_float16_halves_the_bytes_and_hardly_changes_a_score():
    model, ids = build_rating_model(CONFIG), np.arange(300)
    half = quantize(model, "float16")
    assert half.report.ratio == pytest.approx(2, abs=0.05)
    exact = np.asarray(model([ids, ids]))
    np.testing.assert_allclose(half.score(ids, ids), exact, atol=2e-3 * np.abs(exact).max())


def test_litert_stores_the_same_integers(tmp_path):
    """Its dynamic-range file: kernels by output, tables in all, symmetric, 8 bits."""
    interpreter_module = pytest.importorskip("ai_edge_litert.interpreter")
    model = build_rating_model(CONFIG)
    with quiet():
        export_litert(model, tmp_path / "dynamic.tflite", "dynamic")
        interpreter = interpreter_module.Interpreter(str(tmp_path / "dynamic.tflite"))
        interpreter.allocate_tensors()
    compared = 0
    for detail in interpreter.get_tensor_details():
        if detail["dtype"] != np.int8 or "Gather" in detail["name"]:
            continue
        name, values = next(
            (n, w)
            for n, w in named_weights(model).items()
            if n.split("/")[0] + "_" in detail["name"]
        )
        theirs, granularity = interpreter.get_tensor(detail["index"]), "tensor"
        if "kernel" in name:
            theirs, granularity = theirs.T, "column"
        config = UniformQuantization(8, granularity, symmetric=True, scale_dtype="float32")
        ours = quantize(values, config)
        np.testing.assert_array_equal(theirs, ours.codes.astype(int) - 127)
        scales = detail["quantization_parameters"]["scales"]
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


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: type(c).__name__)
def test_a_model_with_biases_scores_as_before_within_its_rounding(config):
    ratings = 3 + np.sin(np.arange(300))
    rated = Interactions(*PAIRS, ratings=ratings, num_users=30, num_items=41)
    model = ALS(embedding_dim=8, epochs=3).fit(rated)
    assert model.item_biases.any() and model.global_mean > 1
    small = quantize(model, config)
    exact = model.score_all_items(np.arange(30))
    np.testing.assert_allclose(small.score_all_items(np.arange(30)), exact, atol=0.05)
    for name in ("user_biases", "item_biases"):
        np.testing.assert_array_equal(getattr(small.model, name), getattr(model, name))


def test_arrays_and_compressed_models_go_through_the_same_verb():
    model, config = IALS(embedding_dim=16).fit(DATA), UniformQuantization(4)
    small, tables = quantize(model, config), named_weights(model)
    for name, tensor in quantize(tables, config).items():
        np.testing.assert_array_equal(tensor.decode(), small.tensors[name].decode())
        np.testing.assert_array_equal(tensor.decode(), quantize(tables[name], config).decode())
    some = quantize(tables, {"user_vectors": "float16", "item_vectors": None})
    assert list(some) == ["user_vectors"] and some["user_vectors"].kind == "dense"
    items = quantize(model, {"item_vectors": CodebookQuantization(4)})
    both = quantize(items, {"user_vectors": config})
    assert {tensor.kind for tensor in both.tensors.values()} == {"uniform", "codebook"}
    np.testing.assert_array_equal(both.model.item_vectors, items.model.item_vectors)


def test_codes_of_rows_are_for_tables_and_leave_kernels_alone():
    small = quantize(build_rating_model(CONFIG), ProductQuantization(8, bits=4))
    assert all(small.tensors[name].kind == "product" for name in TABLES)
    assert small.tensors["dense_0/kernel"].kind == "dense"


def refused(name):
    import keras

    if name == "unbuilt":
        return keras.Sequential([keras.layers.Dense(2)])
    model = build_rating_model(RatingModelConfig("dot_product", 3, 4, embedding_dim=2))
    model.get_layer("item_embedding").set_weights([np.full((4, 2), np.nan, np.float32)])
    return model


@pytest.mark.parametrize(
    ("model", "config", "error", "message"),
    [
        (CONFIG, {"user_table": UniformQuantization()}, ValueError, "config names 'user_table'"),
        (CONFIG, "int8", TypeError, "for user_embedding"),
        (CONFIG, {"user_embedding/embeddings": 8}, TypeError, "for user_embedding"),
        (Popularity(), UniformQuantization(), TypeError, "expected a factor model"),
        (IALS(), UniformQuantization(), RuntimeError, "fit"),
        ("NaN", UniformQuantization(), ValueError, "item_embedding/embeddings holds 8 NaN"),
        ("unbuilt", UniformQuantization(), ValueError, "model is not built"),
    ],
)
def test_refuses(model, config, error, message):
    if isinstance(model, RatingModelConfig):
        model = build_rating_model(model)
    model = refused(model) if isinstance(model, str) else model
    with pytest.raises(error, match=message):
        quantize(model, config)
    with pytest.raises(ValueError, match="teacher is given"):
        quantize(model, config, teacher=model)


@pytest.fixture(scope="module")
def fitted(published_ials):
    split, model, _ = published_ials
    ndcg = evaluate_leave_one_out(model, split, k=10).ndcg
    assert ndcg >= 0.453
    return model, lambda other: evaluate_leave_one_out(other, split, k=10).ndcg / ndcg - 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bits", "search", "smaller", "change", "tolerance"),
    [
        (8, "minmax", 3.9, 0.001, 0.003),
        (4, "minmax", 7.7, -0.002, 0.004),
        (4, "mse", 7.7, 0.0, 0.003),
        (3, "minmax", 10.1, -0.009, 0.006),
        (2, "minmax", 14.8, -0.075, 0.02),
    ],
)
def test_the_curve_of_bits(fitted, bits, search, smaller, change, tolerance):
    model, changed = fitted
    small = quantize(model, UniformQuantization(bits=bits, scale_search=search))
    assert small.report.ratio == pytest.approx(smaller, abs=0.05)
    assert changed(small) == pytest.approx(change, abs=tolerance)


@pytest.mark.slow
def test_the_search_for_the_range_halves_the_loss_at_two_bits(fitted):
    model, changed = fitted
    minmax, mse = (
        changed(quantize(model, UniformQuantization(bits=2, scale_search=search)))
        for search in ("minmax", "mse")
    )
    assert -mse < -minmax / 2


@pytest.mark.slow
def test_users_folded_in_from_quantized_items_need_no_table(fitted, published_ials):
    model, changed = fitted
    matrix = published_ials[0].train.to_csr()
    histories = np.split(matrix.indices, matrix.indptr[1:-1])
    small = quantize(model, {"item_vectors": UniformQuantization(bits=4)})
    served = copy.copy(small.model)
    with threadpool_limits(1):
        served.user_vectors = small.model.fold_in(histories)
    assert small.report.bytes_before / small.tensors["item_vectors"].nbytes > 20
    assert changed(served) >= -0.005
