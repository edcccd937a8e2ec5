"""A recipe is checked before it runs, measured after each step, and works on any data."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys_lib.compression import load_compressed, with_weights
from recsys_lib.compression.pruning import WeightPruning
from recsys_lib.compression.quantization import (
    ProductQuantization,
    RateDistortion,
    TransformCoding,
    UniformQuantization,
)
from recsys_lib.data import (
    Split,
    make_synthetic,
    sample_negatives,
)
from recsys_lib.data.synthetic import PRESETS, SyntheticConfig
from recsys_lib.evaluation import evaluate_full_ranking, evaluate_leave_one_out
from recsys_lib.models import EASE, IALS, as_factors
from recsys_lib.models.factors import Factors
from recsys_lib.recipe import (
    Distill,
    EntropyCode,
    Prune,
    Quantize,
    ReduceDimensions,
    compress,
)
from recsys_lib.recipe.measure import interval, requests, resampled_means
from recsys_lib.recipe.steps import ordered_steps
from recsys_lib.serving import compare_latency

SYMMETRIC = UniformQuantization(4, symmetric=True)
TIMER = functools.partial(compare_latency, rounds=5, calls_per_round=5)
RECIPE = [ReduceDimensions(12), Quantize(UniformQuantization(4, scale_search="mse")), EntropyCode()]


@pytest.fixture(scope="module")
def split() -> Split:
    data = make_synthetic(SyntheticConfig("video", num_users=400, num_items=300))
    train, test = data.split_leave_one_out()
    return Split(train, test, sample_negatives(train, test, 50))


@pytest.fixture(scope="module")
def model(split: Split) -> IALS:
    return IALS(embedding_dim=24, epochs=4).fit(split.train)


def test_every_stage_is_what_its_file_says(model: IALS, split: Split, tmp_path: Path) -> None:
    before = model.user_vectors.copy(), model.item_vectors.copy()
    result = compress(model, RECIPE, split, TIMER)
    np.testing.assert_array_equal(before[0], model.user_vectors)
    np.testing.assert_array_equal(before[1], model.item_vectors)
    assert [stage.name for stage in result.stages] == [
        "start", "ReduceDimensions 12", "Quantize uniform 4 bits", "EntropyCode",
    ]  # fmt: skip
    start, *_, last = result.stages
    assert start.ndcg == pytest.approx(evaluate_leave_one_out(model, split).ndcg, abs=1e-6)
    assert result.save(tmp_path / "m") == (tmp_path / "m").stat().st_size == last.file_bytes
    loaded = load_compressed(tmp_path / "m")
    assert evaluate_leave_one_out(loaded, split).ndcg == last.ndcg
    assert last.change == pytest.approx(last.ndcg / start.ndcg - 1)
    sizes = [stage.file_bytes for stage in result.stages]
    assert sizes[0] > 1.8 * sizes[1] > 3 * sizes[2] and last.ratio == sizes[0] / sizes[-1]
    for stage in result.stages:
        assert stage.ndcg_interval[0] <= stage.ndcg <= stage.ndcg_interval[1]
        assert stage.change_interval[0] <= stage.change <= stage.change_interval[1]
        assert 0 < stage.top_p50_us <= stage.top_p99_us
        assert 0 < stage.candidates_p50_us <= stage.candidates_p99_us
    frame = result.to_frame()
    assert len(frame) == 4 and not frame.isna().to_numpy().any()
    low, high = last.ndcg_interval
    assert frame.ndcg_pm.iloc[-1] == (high - low) / 2
    assert frame.change_low.iloc[-1] == last.change_interval[0]
    assert np.isnan(compress(model, RECIPE[:1], split, None).stages[0].top_p50_us)


def test_items_only_folds_the_training_items_in(model: IALS, split: Split) -> None:
    recipe = [Quantize(TransformCoding(0.05))]
    result = compress(model, recipe, split, TIMER, account="items")
    assert result.factors.user_vectors is None
    folded = as_factors(model).with_folded_users(split.train).user_vectors
    exact = evaluate_leave_one_out(with_weights(model, {"user_vectors": folded}), split)
    assert result.stages[0].ndcg == pytest.approx(exact.ndcg, abs=2e-3)
    whole = compress(model, recipe, split, None)
    assert result.stages[-1].file_bytes < 0.7 * whole.stages[-1].file_bytes


def test_what_is_timed_is_what_a_service_answers(split: Split) -> None:
    """With biases, and with histories of which one is empty."""
    random = np.random.default_rng(0)
    items = random.normal(size=(300, 5)).astype(np.float32)
    users = random.normal(size=(400, 5)).astype(np.float32)
    biases = random.normal(size=300).astype(np.float32)
    whole = Factors(items, users, item_biases=biases)
    served = requests(whole, split, 7)
    best = {tuple(row) for row in whole.recommend(np.arange(400), k=7)}
    assert all(tuple(served["top"]().item_ids[0]) in best for _ in range(20))
    assert served["candidates"]().shape == (300,)
    model = as_factors(IALS(embedding_dim=5, epochs=2).fit(split.train))
    items_only = Factors(model.item_vectors, fold_in=model.how_to_fold_in)
    known = np.isin(split.train.user_ids, split.test.user_ids[5:])  # five users without history
    fewer = Split(split.train.take(known), split.test)
    histories = [row.indices for row in fewer.train.to_csr() if row.nnz]
    best = {tuple(row) for row in items_only.recommend(histories=histories, k=7)}
    calls = requests(items_only, fewer, 7)
    assert all(tuple(calls["top"]().item_ids[0]) in best for _ in range(300))


def test_steps_act(model: IALS, split: Split) -> None:
    recipe = [Prune(WeightPruning(0.7)), Quantize(SYMMETRIC), EntropyCode()]
    result = compress(model, recipe, split, None)
    tables = result.factors.item_vectors
    assert np.mean(tables == 0) >= 0.7  # still there in the end
    assert all(len(np.unique(np.abs(row))) <= 8 for row in tables)  # 15 codes, symmetric
    dense = compress(model, recipe[1:], split, None)
    assert result.stages[-1].file_bytes < 0.8 * dense.stages[-1].file_bytes
    other = compress(model, [recipe[1], recipe[0], recipe[2]], split, None)
    assert np.mean(other.factors.item_vectors == 0) >= 0.7


def test_distillation_starts_anew(model: IALS, split: Split) -> None:
    options = {"epochs": 2, "progress": False}
    recipe = [Quantize(SYMMETRIC), Distill(8, options=options), Quantize()]
    result = compress(model, recipe, split, None)
    sizes = [stage.file_bytes for stage in result.stages]
    assert result.factors.embedding_dim == 8
    assert sizes[2] > (400 + 300) * 8 * 4 and sizes[3] < 0.3 * sizes[2]
    with pytest.raises(TypeError, match="no Distill"):
        compress(model, recipe, split, None, account="items")
    recipe = [Prune(), Quantize(SYMMETRIC), Distill(8), Prune(), Quantize(SYMMETRIC), EntropyCode()]
    assert ordered_steps(recipe, 24) == recipe


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ([], "recipe is empty"),
        ([EntropyCode()], "Quantize before it"),
        ([Quantize(), Quantize()], "one Quantize"),
        ([Quantize(), ReduceDimensions(4)], "ReduceDimensions before"),
        ([Prune(), ReduceDimensions(4)], "ReduceDimensions before"),
        ([Prune(), Quantize()], "zeros stay zeros"),
        ([Prune(), Quantize(TransformCoding())], "zeros stay zeros"),
        ([Quantize(ProductQuantization(4)), Prune()], "zero is one of its numbers"),
        ([Quantize(TransformCoding()), EntropyCode()], "coded already"),
        ([Quantize(), EntropyCode(), Distill(4)], "nothing after EntropyCode"),
        ([ReduceDimensions(8), ReduceDimensions(12)], "at most 8 dimensions"),
        ([ReduceDimensions(25)], "at most 24 dimensions"),
        ([Distill(4), ReduceDimensions(5)], "at most 4 dimensions"),
        ([Distill(4), EntropyCode()], "Quantize before it"),
    ],
)
def test_orders_that_make_no_sense_are_refused_before_anything_runs(
    model: IALS, split: Split, recipe: list[Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules[compress.__module__]
    monkeypatch.setattr(module, "measure", lambda *_: pytest.fail("something ran"))
    with pytest.raises(ValueError, match=message):
        compress(model, recipe, split, None)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"data": None}, TypeError, "data is of type NoneType: expected Split"),
        ({"recipe": Quantize()}, TypeError, "recipe"),
        ({"recipe": [SYMMETRIC]}, TypeError, r"recipe\[0\]"),
        ({"model": EASE()}, TypeError, "EASE"),
        ({"timer": 3}, TypeError, "timer"),
        ({"model": Factors(np.ones((3, 2)), np.ones((2, 2)))}, ValueError, "data counts 400"),
        ({"account": "users"}, ValueError, "account"),
    ],
)
def test_bad_input_is_named(
    model: IALS, split: Split, arguments: Any, error: type[Exception], message: str
) -> None:
    given = {"model": model, "recipe": RECIPE, "data": split, "timer": None} | arguments
    with pytest.raises(error, match=message):
        compress(**given)


@pytest.mark.parametrize(
    ("step", "error", "message"),
    [
        (lambda: Quantize(4), TypeError, "config is of type int"),
        (lambda: Prune(0.5), TypeError, "config is of type float"),
        (lambda: Distill(8, "mlp_ranker"), ValueError, "kind is 'mlp_ranker'"),
        (lambda: Quantize({"items": SYMMETRIC}), ValueError, "config is 'items'"),
        (lambda: Quantize(SYMMETRIC, teacher=EASE()), ValueError, "teacher is given"),
    ],
)
def test_a_wrong_step_is_named(step: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        step()


def test_intervals_agree_with_the_normal_approximation_and_are_paired(
    model: IALS, split: Split
) -> None:
    result = compress(model, [Quantize(UniformQuantization(8))], split, None)
    low, high = evaluate_leave_one_out(model, split).confidence_interval("ndcg")
    found = result.stages[0].ndcg_interval
    assert found[1] - found[0] == pytest.approx(high - low, rel=0.15)
    # Eight bits change little for each user, so the difference is known far better than the mean.
    low, high = result.stages[1].change_interval
    assert high - low < 0.3 * (found[1] - found[0]) / result.stages[0].ndcg


def test_bootstrap_resamples_users_with_all_their_rows() -> None:
    users = np.repeat(np.arange(100), 9)
    values = np.repeat(np.random.default_rng(0).normal(size=100), 9)
    few = interval(resampled_means(np.arange(100), values[::9]))
    assert interval(resampled_means(users, values)) == pytest.approx(few)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_the_same_call_on_all_domains(preset: Any) -> None:
    data = Split(*make_synthetic(preset).split_leave_one_out())
    model = IALS(embedding_dim=16, epochs=3).fit(data.train)
    for account in ("self-contained", "items"):
        result = compress(model, RECIPE, data, None, account=account)
        assert "full ranking" in result.protocol
        assert result.stages[-1].ratio > 5
        assert result.stages[0].ndcg > 0


def test_the_same_call_on_ml_100k(real_data: Any) -> None:
    data = Split(*real_data("ml-100k").split_leave_one_out())
    model = IALS(embedding_dim=32, epochs=4).fit(data.train)
    result = compress(model, [Quantize(TransformCoding(0.1))], data, TIMER)
    start, last = result.stages
    assert start.ndcg == pytest.approx(evaluate_full_ranking(model, data.train, data.test).ndcg)
    assert last.ratio > 6 and last.change > -0.1


def test_a_teacher_goes_through_a_recipe_and_is_checked_before_any_step_runs(
    model: IALS, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RateDistortion(1e-3, epochs=10)
    alone, taught = (
        compress(model, [Quantize(config, teacher=one)], split, None).compressed.model.item_vectors
        for one in (None, EASE(l2=50.0).fit(split.train))
    )
    assert alone.shape != taught.shape or not np.allclose(alone, taught)
    monkeypatch.setattr(sys.modules[compress.__module__], "start", None)  # nothing may start
    other = IALS(4, epochs=1).fit(make_synthetic("music"))
    for teacher, error in ((other, ValueError), (3, TypeError)):
        with pytest.raises(error, match="teacher"):
            compress(model, [Quantize(config, teacher=teacher)], split, None)
