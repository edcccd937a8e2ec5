"""Whole models: what is stored, what scores, and what LiteRT stores for the same model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recsys_lib.compression import named_weights
from recsys_lib.compression.quantization import UniformQuantization, quantize, quantize_uniform
from recsys_lib.data import Interactions
from recsys_lib.models import IALS, Popularity, RatingModelConfig, build_rating_model
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
        rounded = quantize_uniform(before[name], UniformQuantization(3, "column")).decode()
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
    assert half.report.method == "float16"
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
        ours = quantize_uniform(
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


def test_a_model_or_config_that_cannot_be_quantized_is_refused() -> None:
    model = build_rating_model(RatingModelConfig("dot_product", 3, 4, embedding_dim=2))
    with pytest.raises(ValueError, match="config names 'user_table': expected some of"):
        quantize(model, {"user_table": UniformQuantization()})
    with pytest.raises(TypeError, match="config is 'int8' for user_embedding/embeddings"):
        quantize(model, "int8")
    with pytest.raises(TypeError, match="config is 8 for"):
        quantize(model, {"user_embedding/embeddings": 8})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="expected a factor model"):
        quantize(Popularity(), UniformQuantization())
    with pytest.raises(RuntimeError, match="fit"):
        quantize(IALS(), UniformQuantization())
    broken = build_rating_model(RatingModelConfig("dot_product", 3, 4, embedding_dim=2))
    table = broken.get_layer("item_embedding")
    table.set_weights([np.full((4, 2), np.nan, np.float32)])
    with pytest.raises(ValueError, match="item_embedding/embeddings holds 8 NaN"):
        quantize(broken, UniformQuantization())
    import keras

    with pytest.raises(ValueError, match="model is not built"):
        quantize(keras.Sequential([keras.layers.Dense(2)]), UniformQuantization())
