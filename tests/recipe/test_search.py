"""The search keeps to its budget, tests once, and survives being killed."""

import functools
import subprocess
import sys

import numpy as np
import pytest

from recsys_lib.compression.quantization import TransformCoding, UniformQuantization
from recsys_lib.data import Split, make_synthetic
from recsys_lib.data.synthetic import SyntheticConfig
from recsys_lib.evaluation import RankingResult, evaluate_full_ranking
from recsys_lib.models import IALS
from recsys_lib.recipe import Quantize, ReduceDimensions, compress, hold_out_users, search_recipe
from recsys_lib.recipe import search as search_module
from recsys_lib.recipe.families import default_recipes
from recsys_lib.recipe.measure import least_change, resampled_means

BITS = {"rounding": [[Quantize(UniformQuantization(bits))] for bits in (8, 6, 4, 3, 2)]}


@functools.cache
def split():
    data = make_synthetic(SyntheticConfig("video", num_users=300, num_items=150))
    return Split(*data.split_leave_one_out(), name="synthetic")


@functools.cache
def model():
    return IALS(embedding_dim=16, epochs=4).fit(split().train)


def search(**options):
    defaults = {"timer": None, "progress": False, "max_quality_loss": 0.05, "recipes": BITS}
    return search_recipe(model(), split(), **(defaults | options))


@pytest.mark.parametrize("account", ["self-contained", "items"])
def test_the_choice_is_the_smallest_within_the_budget(account):
    found = search(account=account, recipes=None)
    allowed = [trial for trial in found.trials if trial.change_low >= -0.05]
    assert found.best in allowed and found.result.stages[-1].ratio > 3
    assert found.best.file_bytes == min(trial.file_bytes for trial in allowed)
    frame = found.to_frame()
    assert frame.chosen.sum() == 1 and set(frame.family) == set(default_recipes(16))


def test_nothing_within_the_budget_is_a_result():
    found = search(recipes={"one": [[ReduceDimensions(1)]]}, max_quality_loss=0.001)
    assert found.best is found.result is None and "no recipe is certain" in repr(found)


def results(rng, users, change):
    """Values of users before, and after a change of which each feels another part."""
    ids, value = np.arange(users), rng.random(users) * (rng.random(users) < 0.4)
    felt = np.where(rng.random(users) < 0.2, change * 5, 0) * value
    noise = rng.normal(scale=0.03, size=users) * value
    return [RankingResult(10, "toy", ids, value, v, value) for v in (value, value + felt + noise)]


def test_the_lower_end_is_above_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    for confidence, low, high in ((0.95, 0.02, 0.09), (0.5, 0.4, 0.6)):
        found = [least_change(*results(rng, 300, -0.02), confidence) for _ in range(600)]
        assert low < np.mean(np.array(found) > -0.02) < high


def test_the_lower_end_is_that_of_a_paired_bootstrap():
    before, after = results(np.random.default_rng(1), 800, -0.03)
    old, new = (resampled_means(one.user_ids, one.ndcg_per_user) for one in (before, after))
    expected = np.quantile(new / old - 1, 0.05)
    change = after.ndcg / before.ndcg - 1
    assert least_change(before, after, 0.5) == pytest.approx(change)
    assert change - least_change(before, after) == pytest.approx(change - expected, rel=0.1)
    assert least_change(before, before) == 0


def test_more_confidence_is_more_careful_and_few_users_are_told():
    half, sure = (search(confidence=level, max_quality_loss=0.1) for level in (0.5, 0.99))
    assert half.best.file_bytes < sure.best.file_bytes
    assert all(one.change_low < one.change for one in sure.trials if one.change)
    tries = search(recipes={f"{n}": [recipe] for n, recipe in enumerate(BITS["rounding"])}).trials
    # A loss that is not significant, and a budget below what these users can tell apart.
    doubtful = next(t for t in tries if 0 < -t.change < 0.9 * (t.change - t.change_low))
    budget = (doubtful.change - doubtful.change_low - doubtful.change) / 2
    families = {"mild": [[Quantize(UniformQuantization(8, scale_dtype="float32"))]],
                "doubtful": [list(doubtful.recipe)]}  # fmt: skip
    with pytest.warns(UserWarning, match="100 validation users .* the choice is more careful"):
        assert search(recipes=families, max_quality_loss=budget).best.family == "mild"
    with pytest.warns(UserWarning, match="max_quality_loss .* nothing is certain"):
        alone = search(recipes={"doubtful": families["doubtful"]}, max_quality_loss=budget)
    assert alone.best is None


def test_default_recipes_begin_with_what_does_no_harm():
    families, judged = default_recipes(64), (split().train, split().test)
    model = IALS(embedding_dim=64, epochs=2).fit(split().train)
    before = evaluate_full_ranking(model, *judged)
    for name in ("rounding", "fewer dimensions, 8 bits", "transform coding"):
        small = compress(model, families[name][0], split(), None).factors
        assert least_change(before, evaluate_full_ranking(small, *judged)) > -0.1, name
    steps = [step for family in families.values() for recipe in family for step in recipe]
    configs = {type(step.config).__name__ for step in steps if isinstance(step, Quantize)}
    assert {"UniformQuantization", "ResidualQuantization", "dict"} <= configs
    four = Quantize(UniformQuantization(4, scale_search="mse"))
    assert four in [recipe[0] for recipe in families["rounding"]]


@pytest.mark.parametrize(("account", "kept"), [("items", True), ("self-contained", False)])
def test_recipes_for_files_of_items_leave_the_lengths_of_vectors_alone(account, kept):
    model = IALS(embedding_dim=16, epochs=2).fit(split().train)
    model.user_vectors = 9 * model.user_vectors  # principal axes make both sides equally long
    length = np.linalg.norm(model.item_vectors, axis=1)
    families = default_recipes(16, account)
    for name in ("fewer dimensions, 8 bits", "transform coding"):
        small = compress(model, families[name][0], split(), None).factors
        changed = np.abs(np.linalg.norm(small.item_vectors, axis=1) / length - 1).mean()
        assert (changed < 0.1) == kept
    with pytest.raises(ValueError, match="account is"):
        default_recipes(16, "users")


def test_test_users_are_seen_once_and_only_at_the_end(monkeypatch):
    validation, test = (one.test.user_ids for one in hold_out_users(split(), 1 / 3))
    assert not set(validation) & set(test) and len({*validation, *test}) == len(split().test)

    def noting(original, users, *given, **options):
        users.append(given[2].test.user_ids.tolist())
        return original(*given, **options)

    seen = {"measure": [], "compress": []}
    for name, users in seen.items():
        spy = functools.partial(noting, getattr(search_module, name), users)
        monkeypatch.setattr(search_module, name, spy)
    search()
    assert seen["compress"] == [test.tolist()]
    assert {*map(tuple, seen["measure"])} == {tuple(validation.tolist())}


def test_bisection_finds_what_trying_all_finds():
    apart = {f"{n}": [recipe] for n, recipe in enumerate(BITS["rounding"])}
    whole, apart = search(), search(recipes=apart)
    assert whole.best.recipe == apart.best.recipe
    assert len(whole.trials) < len(apart.trials) == 5
    assert whole.best.file_bytes > 1.2 * search(max_quality_loss=0.9).best.file_bytes


def test_a_recipe_that_the_model_refuses_is_beyond_the_budget(tmp_path):
    eight = [Quantize(UniformQuantization(8))]
    families = {"fine": [[Quantize(TransformCoding(1e-7))]], "bits": [eight]}
    for _ in range(2):  # the second time from the file
        found = search(recipes=families, checkpoint=tmp_path / "trials")
        assert [trial.change == -np.inf for trial in found.trials] == [True, False]
        assert list(found.best.recipe) == eight


@pytest.mark.slow
def test_a_killed_search_goes_on_where_it_was(tmp_path, monkeypatch):
    checkpoint, ran, write = tmp_path / "trials", [], search_module.write_file
    command = [sys.executable, __file__, str(checkpoint)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert all(process.stdout.readline() == "a trial\n" for _ in range(3))
        process.kill()
    monkeypatch.setattr(search_module, "write_file", lambda *a: (ran.append(a), write(*a)))
    resumed, whole = search(recipes=None, checkpoint=checkpoint), search(recipes=None)
    assert resumed.trials == whole.trials
    assert resumed.best.recipe == whole.best.recipe
    before = len(ran)
    assert 0 < before <= len(whole.trials) - 3
    search(recipes=None, checkpoint=checkpoint)
    assert len(ran) == before


def test_a_checkpoint_of_another_search_is_refused(tmp_path):
    search(checkpoint=tmp_path / "trials")
    with pytest.raises(ValueError, match="another model"):
        search(checkpoint=tmp_path / "trials", account="items")


def test_refuses_before_any_recipe_is_run(monkeypatch):
    monkeypatch.setattr(search_module, "measure", lambda *_: pytest.fail("ran"))
    for options, word in (
        ({"recipes": {"fine": [[Quantize()]], "not": [[Quantize()] * 2]}}, "one Quantize"),
        ({"recipes": {}}, "recipes"),
        ({"max_quality_loss": -0.1}, "max_quality_loss"),
        ({"confidence": 0.3}, "confidence"),
        ({"validation_share": 1}, "share is 1"),
    ):
        with pytest.raises(ValueError, match=word):
            search(**options)


if __name__ == "__main__":  # for test_a_killed_search_goes_on_where_it_was
    write = search_module.write_file
    search_module.write_file = lambda *a: (write(*a), print("a trial", flush=True))
    search(recipes=None, checkpoint=sys.argv[1])
