"""Dynamic-range quantization: whole numbers, near the float model and near LiteRT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recsys_lib.compression.quantization import (
    UniformQuantization,
    dynamic_dense,
    quantize_dynamic,
    quantize_rows,
    quantize_uniform,
)
from recsys_lib.data import Interactions
from recsys_lib.models import IALS, RatingModelConfig, build_rating_model
from recsys_lib.notebook import quiet
from recsys_lib.serving import export_litert, load_scorer
from recsys_lib.training import KerasRecommender

RANDOM = np.random.default_rng(0)
INT8 = UniformQuantization(8, "column", symmetric=True, scale_dtype="float32")
USERS, ITEMS = RANDOM.integers(0, 50, 500), RANDOM.integers(0, 70, 500)


def model(kind: str = "mlp_ranker"):
    return build_rating_model(RatingModelConfig(kind, 50, 70, embedding_dim=64))


def test_sums_are_exact_and_scaled_back() -> None:
    inputs = RANDOM.normal(size=(9, 3000)).astype(np.float32)  # too many for float32 sums
    kernel = quantize_uniform(RANDOM.normal(size=(3000, 5)).astype(np.float32), INT8)
    codes, scale = quantize_rows(inputs)
    sums = codes.astype(np.int64) @ (kernel.codes.astype(np.int64) - 127)
    expected = sums.astype(np.float32) * scale * kernel.scale
    np.testing.assert_array_equal(dynamic_dense(inputs, kernel), expected)
    with_bias = dynamic_dense(inputs, kernel, np.arange(5))
    np.testing.assert_array_equal(with_bias, expected + np.arange(5, dtype=np.float32))


def test_rows_are_rounded_by_themselves() -> None:
    rows = np.float32([[1, -2], [0.001, 0.002], [0, 0]])
    codes, scale = quantize_rows(rows)
    assert np.abs(codes).max(axis=1).tolist() == [127, 127, 0]
    assert (np.abs(codes * scale - rows) <= scale / 2 + 1e-9).all()


@pytest.mark.parametrize("kind", ["mlp_ranker", "neumf", "two_tower"])
def test_the_keras_layer_computes_the_same_whole_numbers(kind: str) -> None:
    small = quantize_dynamic(model(kind))
    layer = next(layer for layer in small.model.layers if "dense_0" in layer.name)
    name = f"{layer.name}/kernel"
    inputs = RANDOM.normal(size=(20, small.tensors[name].shape[0])).astype(np.float32)
    expected = dynamic_dense(
        inputs, small.tensors[name], small.tensors[f"{layer.name}/bias"].decode()
    )
    np.testing.assert_allclose(layer(inputs), np.maximum(expected, 0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["mlp_ranker", "neumf", "two_tower", "dot_product"])
def test_scores_are_near_those_of_the_model_and_bytes_a_quarter(kind: str) -> None:
    exact = model(kind)
    before = exact.get_weights()
    small = quantize_dynamic(exact)
    scores, expected = small.score(USERS, ITEMS), np.asarray(exact([USERS, ITEMS]))
    error = np.abs(scores - expected).max() / expected.std()
    assert 0 < error < 0.15
    assert 3 < small.report.ratio < 4
    for old, new in zip(before, exact.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_scores_are_near_those_of_litert(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    exact = model()
    with quiet():
        export_litert(exact, tmp_path / "dynamic.tflite", "dynamic")
        theirs = load_scorer(tmp_path / "dynamic.tflite").score(USERS, ITEMS)
    ours = quantize_dynamic(exact).score(USERS, ITEMS)
    expected = np.asarray(exact([USERS, ITEMS]))
    rounding = np.sqrt(np.mean((ours - expected) ** 2))
    # LiteRT gives each row a zero point too, and so a finer step where ReLU leaves one side.
    assert rounding < 1.5 * np.sqrt(np.mean((theirs - expected) ** 2))
    assert np.corrcoef(ours, theirs)[0, 1] > 0.999


def test_a_recommender_stays_one() -> None:
    data = Interactions(USERS, ITEMS, num_users=50, num_items=70)
    fitted = KerasRecommender(
        RatingModelConfig("mlp_ranker", 50, 70), epochs=1, progress=False
    ).fit(data)
    small = quantize_dynamic(fitted)
    assert isinstance(small.model, KerasRecommender)
    scores = small.score_all_items([3, 4])
    assert scores.shape == (2, 70)
    np.testing.assert_allclose(scores[0, :5], small.score([3] * 5, range(5)), rtol=1e-4, atol=1e-6)


def test_what_does_not_fit_is_refused() -> None:
    kernel = quantize_uniform(np.ones((3, 2), np.float32), INT8)
    with pytest.raises(ValueError, match="inputs has shape"):
        dynamic_dense(np.ones((1, 4), np.float32), kernel)
    with pytest.raises(ValueError, match="expected 8 bits, symmetric"):
        wrong = UniformQuantization(8, "column")
        dynamic_dense(np.ones((1, 3)), quantize_uniform(np.ones((3, 2), np.float32), wrong))
    with pytest.raises(ValueError, match="inputs holds 1 NaN"):
        dynamic_dense(np.float32([[1, np.nan, 1]]), kernel)
    with pytest.raises(TypeError, match="model is of type str"):
        quantize_dynamic("model")
    with pytest.raises(TypeError, match="model is of type IALS"):
        quantize_dynamic(IALS(embedding_dim=2).fit(Interactions([0, 1], [0, 1])))
