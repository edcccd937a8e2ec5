"""The table at the end of a case."""

import numpy as np
import pytest

from recsys_lib.data import Split
from recsys_lib.data.synthetic import SyntheticConfig, make_synthetic
from recsys_lib.evaluation import RankingResult, evaluate_full_ranking
from recsys_lib.models import IALS
from recsys_lib.recipe import compare_models, compress, compress_seeds, hold_out_users
from recsys_lib.recipe.steps import EntropyCode, Quantize
from recsys_lib.serving import Latency

RECIPE = [Quantize(), EntropyCode()]


@pytest.fixture(scope="module")
def case():
    data = make_synthetic(SyntheticConfig("video", num_users=200, num_items=100))
    split = Split(*data.split_leave_one_out())
    return split, [IALS(embedding_dim=16, seed=seed).fit(split.train) for seed in range(2)]


@pytest.mark.parametrize("account", ["self-contained", "items"])
def test_every_seed_is_judged_as_compress_does(case, account):
    split, models = case
    runs = compress_seeds(models, RECIPE, split, account=account)
    for seed, model in enumerate(models):
        alone = compress(model, RECIPE, split, None, account=account).stages
        assert runs.before[seed].ndcg == pytest.approx(alone[0].ndcg)
        assert runs.after[seed].ndcg == pytest.approx(alone[-1].ndcg)
        assert runs.before_bytes[seed] == alone[0].file_bytes
        assert runs.after_bytes[seed] == alone[-1].file_bytes
        found = evaluate_full_ranking(runs.factors[seed], split.train, split.test)
        assert found.ndcg == pytest.approx(runs.after[seed].ndcg)
    assert runs.ratio == pytest.approx(sum(runs.before_bytes) / sum(runs.after_bytes))
    assert "2 seeds" in repr(runs)
    with pytest.raises(TypeError, match="models is of type IALS"):
        compress_seeds(models[0], RECIPE, split)


def result(values):
    return RankingResult(10, "toy", np.arange(len(values)), *[np.asarray(values, float)] * 3)


def test_table():
    ones = np.ones(100)
    runs = {"popularity": [result(ones / 4)], "teacher": [result(ones), result(ones)]}
    runs |= {"small": [result(ones * 0.995)] * 2, "smaller": [result(ones * 0.9)] * 2}
    against = {"teacher": "popularity", "small": "teacher", "smaller": "teacher"}
    times = {"small": Latency("small", np.array([10.0, 10.0]), 1.0, "")}
    table = compare_models(runs, against, file_bytes={"small": 1234}, latencies=times)
    assert table["certified"].tolist() == ["", "yes", "yes", "not certified"]
    assert table.loc["small"].tolist() == [
        "0.9950", "-0.50% (-0.50% to -0.50%)", "teacher", "yes", "1,234", "10 / 10",
    ]  # fmt: skip
    assert table.loc["popularity"].tolist() == ["0.2500", *[""] * 5]
    noisy = {"a": [result(ones)], "b": [result(np.arange(100) % 7)]}
    assert compare_models(noisy, {"b": "a"})["certified"].tolist() == ["", "better"]
    with pytest.raises(ValueError, match="against names 'teachr'"):
        compare_models(runs, {"small": "teachr"})


def test_repeats_count_where_the_split_says_so(case):
    split, models = case
    again = Split(split.train, split.train, repeats=True)
    runs = compress_seeds(models[:1], RECIPE, again)
    expected = evaluate_full_ranking(models[0], split.train, split.train, exclude_seen=False)
    assert runs.before[0].ndcg == pytest.approx(expected.ndcg)
    assert "repeats included" in runs.after[0].protocol
    with pytest.raises(ValueError, match="test has no pair that is not in train"):
        compress_seeds(models[:1], RECIPE, Split(split.train, split.train))
    for part in hold_out_users(again, 0.5):
        assert part.repeats
