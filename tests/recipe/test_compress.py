"""A recipe is checked before it runs, measured after each step, and works on any data."""

import functools
import sys

import numpy as np
import pytest

from recsys_lib.compression import load_compressed, with_weights
from recsys_lib.compression import quantization as q
from recsys_lib.compression.pruning import WeightPruning
from recsys_lib.data import Split, make_synthetic, sample_negatives
from recsys_lib.data.synthetic import PRESETS, SyntheticConfig
from recsys_lib.evaluation import evaluate_leave_one_out
from recsys_lib.models import EASE, IALS, as_factors
from recsys_lib.models.factors import Factors
from recsys_lib.recipe import Distill, EntropyCode, Prune, Quantize, ReduceDimensions, compress
from recsys_lib.recipe.measure import interval, requests, resampled_means
from recsys_lib.recipe.steps import ordered_steps
from recsys_lib.serving import compare_latency

SYMMETRIC = q.UniformQuantization(4, symmetric=True)
TIMER = functools.partial(compare_latency, rounds=5, calls_per_round=5)
RECIPE = [
    ReduceDimensions(12),
    Quantize(q.UniformQuantization(4, scale_search="mse")),
    EntropyCode(),
]


@pytest.fixture(scope="module")
def split():
    data = make_synthetic(SyntheticConfig("video", num_users=400, num_items=300))
    train, test = data.split_leave_one_out()
    return Split(train, test, sample_negatives(train, test, 50))


@pytest.fixture(scope="module")
def model(split):
    return IALS(embedding_dim=24, epochs=4).fit(split.train)


def test_every_stage_is_what_its_file_says(model, split, tmp_path):
    before = model.user_vectors.copy(), model.item_vectors.copy()
    result = compress(model, RECIPE, split, TIMER)
    np.testing.assert_equal((model.user_vectors, model.item_vectors), before)
    assert [stage.name for stage in result.stages][:2] == ["start", "ReduceDimensions 12"]
    start, *_, last = result.stages
    assert start.ndcg == pytest.approx(evaluate_leave_one_out(model, split).ndcg, abs=1e-6)
    assert result.save(tmp_path / "m") == (tmp_path / "m").stat().st_size == last.file_bytes
    assert evaluate_leave_one_out(load_compressed(tmp_path / "m"), split).ndcg == last.ndcg
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
    assert frame.ndcg_pm.iloc[-1] == np.ptp(last.ndcg_interval) / 2
    assert frame.change_low.iloc[-1] == last.change_interval[0]


def test_items_only_folds_the_training_items_in(model, split):
    recipe = [Quantize(q.TransformCoding(0.05))]
    result = compress(model, recipe, split, TIMER, account="items")
    assert result.factors.user_vectors is None
    folded = as_factors(model).with_folded_users(split.train).user_vectors
    exact = evaluate_leave_one_out(with_weights(model, {"user_vectors": folded}), split)
    assert result.stages[0].ndcg == pytest.approx(exact.ndcg, abs=2e-3)
    whole = compress(model, recipe, split, None)
    assert result.stages[-1].file_bytes < 0.7 * whole.stages[-1].file_bytes


def test_what_is_timed_is_what_a_service_answers(split):
    """With biases, and with histories of which one is empty."""
    random = np.random.default_rng(0)
    items, users, biases = (random.normal(size=s).astype("f4") for s in ((300, 5), (400, 5), 300))
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
    best, calls = items_only.recommend(histories=histories, k=7), requests(items_only, fewer, 7)
    best = set(map(tuple, best))
    assert all(tuple(calls["top"]().item_ids[0]) in best for _ in range(300))


def test_steps_act(model, split):
    recipe = [Prune(WeightPruning(0.7)), Quantize(SYMMETRIC), EntropyCode()]
    result = compress(model, recipe, split, None)
    tables = result.factors.item_vectors
    assert np.isnan(result.stages[0].top_p50_us)  # not timed
    assert np.mean(tables == 0) >= 0.7  # still there in the end
    assert all(len(np.unique(np.abs(row))) <= 8 for row in tables)  # 15 codes, symmetric
    dense = compress(model, recipe[1:], split, None)
    assert result.stages[-1].file_bytes < 0.8 * dense.stages[-1].file_bytes
    other = compress(model, [recipe[1], recipe[0], recipe[2]], split, None)
    assert np.mean(other.factors.item_vectors == 0) >= 0.7
    again = [Prune(), Quantize(SYMMETRIC), Distill(8), *recipe]
    assert ordered_steps(again, 24) == again
    config, ease = q.RateDistortion(1e-3, epochs=10), EASE(l2=50.0).fit(split.train)
    recipes = [[Quantize(config, teacher=one)] for one in (None, ease)]
    alone, taught = (compress(model, r, split, None).factors.item_vectors for r in recipes)
    assert alone.shape != taught.shape or not np.allclose(alone, taught)


@pytest.mark.slow
def test_distillation_starts_anew(model, split):
    distill = Distill(np.int64(8), options={"epochs": 1, "progress": False})
    result = compress(model, [Quantize(SYMMETRIC), distill, Quantize()], split, None)
    sizes = [stage.file_bytes for stage in result.stages]
    assert result.factors.embedding_dim == 8
    assert sizes[2] > (400 + 300) * 8 * 4 and sizes[3] < 0.3 * sizes[2]


def test_orders_that_make_no_sense_are_refused():
    eight, coding = ReduceDimensions(8), q.TransformCoding()
    for recipe, word in (
        ([], "recipe is empty"),
        ([EntropyCode()], "Quantize before it"),
        ([Quantize(), Quantize()], "one Quantize"),
        ([Prune(), eight], "ReduceDimensions before"),
        ([Prune(), Quantize(coding)], "zeros stay zeros"),
        ([Quantize(q.ProductQuantization(4)), Prune()], "zero is one of its numbers"),
        ([Quantize(coding), EntropyCode()], "coded already"),
        ([Quantize(), EntropyCode(), Distill(4)], "nothing after EntropyCode"),
        ([eight, ReduceDimensions(12)], "at most 8 dimensions"),
        ([ReduceDimensions(25)], "at most 24 dimensions"),
        ([Distill(4), eight], "at most 4 dimensions"),
    ):
        with pytest.raises(ValueError, match=word):
            ordered_steps(recipe, 24)


def test_refuses_before_anything_runs(model, split, monkeypatch):
    other = IALS(4, epochs=1).fit(make_synthetic(SyntheticConfig("music", 60, 100)))
    given = {"model": model, "recipe": RECIPE, "data": split, "timer": None}
    run = functools.partial(functools.partial, compress, **given)
    taught = functools.partial(Quantize, q.RateDistortion(1e-3, epochs=10))
    monkeypatch.setattr(sys.modules[compress.__module__], "start", lambda _: pytest.fail("ran"))
    for call, error, word in (
        (run(data=None), TypeError, "data is of type NoneType"),
        (run(recipe=[SYMMETRIC]), TypeError, r"recipe\[0\]"),
        (run(model=EASE()), TypeError, "EASE"),
        (run(timer=3), TypeError, "timer"),
        (run(model=Factors(np.ones((3, 2)), np.ones((2, 2)))), ValueError, "data counts 400"),
        (run(account="users"), ValueError, "account"),
        (run(recipe=[Distill(8)], account="items"), TypeError, "no Distill"),
        (run(recipe=[taught(teacher=other)]), ValueError, "teacher"),
        (lambda: Quantize(4), TypeError, "config is of type int"),
        (lambda: Quantize({"items": SYMMETRIC}), ValueError, "config names 'items'"),
        (lambda: Quantize(SYMMETRIC, teacher=EASE()), ValueError, "teacher is given"),
    ):
        with pytest.raises(error, match=word):
            call()


def test_intervals_agree_with_the_normal_approximation_and_are_paired(model, split):
    result = compress(model, [Quantize(q.UniformQuantization(8))], split, None)
    normal = np.ptp(evaluate_leave_one_out(model, split).confidence_interval("ndcg"))
    found = np.ptp(result.stages[0].ndcg_interval)
    assert found == pytest.approx(normal, rel=0.15)
    # Eight bits change little for each user, so the difference is known far better than the mean.
    assert np.ptp(result.stages[1].change_interval) < 0.3 * found / result.stages[0].ndcg
    users, values = np.arange(100), np.random.default_rng(0).normal(size=100)
    few = interval(resampled_means(users, values))  # users are drawn with all their rows
    assert interval(resampled_means(users.repeat(9), values.repeat(9))) == pytest.approx(few)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_the_same_call_on_all_domains(preset):
    data = Split(*make_synthetic(SyntheticConfig(preset, 300, 200)).split_leave_one_out())
    model = IALS(embedding_dim=8, epochs=1).fit(data.train)
    for account in ("self-contained", "items"):
        recipe = [ReduceDimensions(4), Quantize(SYMMETRIC)]
        result = compress(model, recipe, data, None, account=account)
        assert "full ranking" in result.protocol
        assert result.stages[-1].ratio > 4 and result.stages[0].ndcg > 0
