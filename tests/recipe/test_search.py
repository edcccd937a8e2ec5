"""The search keeps to its budget, tests once, and survives being killed."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys_lib.compression.quantization import TransformCoding, UniformQuantization
from recsys_lib.data import Split, make_synthetic
from recsys_lib.data.synthetic import SyntheticConfig
from recsys_lib.models import IALS
from recsys_lib.recipe import (
    Quantize,
    RecipeSearch,
    ReduceDimensions,
    hold_out_users,
    search_recipe,
)
from recsys_lib.recipe import search as search_module
from recsys_lib.recipe.search import default_recipes
from recsys_lib.serving import compare_latency


@functools.cache
def split() -> Split:
    data = make_synthetic(SyntheticConfig("video", num_users=900, num_items=300))
    return Split(*data.split_leave_one_out(), name="synthetic")


@functools.cache
def model() -> IALS:
    return IALS(embedding_dim=32, epochs=4).fit(split().train)


def search(**options: Any) -> RecipeSearch:
    defaults: dict[str, Any] = {"timer": None, "progress": False, "max_quality_loss": 0.05}
    return search_recipe(model(), split(), **(defaults | options))


@pytest.mark.parametrize("account", ["self-contained", "items"])
def test_the_choice_is_the_smallest_within_the_budget(account: str) -> None:
    found = search(account=account)
    assert found.best is not None and found.result is not None
    allowed = [trial for trial in found.trials if trial.change >= -0.05]
    assert found.best.file_bytes == min(trial.file_bytes for trial in allowed)
    assert found.best in allowed
    assert found.result.stages[-1].ratio > 5
    frame = found.to_frame()
    assert frame.chosen.sum() == 1 and set(frame.family) == set(default_recipes(32))


def test_nothing_within_the_budget_is_a_result() -> None:
    harsh = {"one": [[ReduceDimensions(1)]]}
    found = search(recipes=harsh, max_quality_loss=0.001)
    assert found.best is None and found.result is None and len(found.trials) == 1
    assert "no recipe within the budget" in repr(found)


def test_test_users_are_seen_once_and_only_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    validation, test = hold_out_users(split(), 1 / 3)
    assert not set(validation.test.user_ids) & set(test.test.user_ids)
    assert len(validation.test) + len(test.test) == len(split().test)
    judged: list[set[int]] = []
    measure = search_module.measure

    def spy(compressed: Any, account: str, data: Split, k: int) -> Any:
        judged.append(set(data.test.user_ids.tolist()))
        return measure(compressed, account, data, k)

    reports = []
    compress = search_module.compress

    def spy_report(*arguments: Any, **options: Any) -> Any:
        reports.append(arguments[2])
        return compress(*arguments, **options)

    monkeypatch.setattr(search_module, "measure", spy)
    monkeypatch.setattr(search_module, "compress", spy_report)
    search()
    assert all(users == set(validation.test.user_ids.tolist()) for users in judged)
    assert len(reports) == 1
    np.testing.assert_array_equal(reports[0].test.user_ids, test.test.user_ids)


def test_bisection_finds_what_trying_all_finds() -> None:
    family = default_recipes(32)["rounding"]
    single = {f"{n}": [recipe] for n, recipe in enumerate(family)}
    whole, apart = search(recipes={"all": family}), search(recipes=single)
    assert whole.best.recipe == apart.best.recipe
    assert len(whole.trials) < len(apart.trials) == 7
    harsher = search(recipes={"all": family}, max_quality_loss=0.5)
    assert whole.best.file_bytes > 1.2 * harsher.best.file_bytes


def test_a_recipe_that_the_model_refuses_is_beyond_the_budget(tmp_path: Path) -> None:
    too_fine = [Quantize(TransformCoding(1e-7))]
    eight = [Quantize(UniformQuantization(8))]
    families = {"fine": [too_fine], "bits": [eight]}
    for _ in range(2):  # the second time from the file
        found = search(recipes=families, checkpoint=tmp_path / "trials")
        assert [trial.change == -np.inf for trial in found.trials] == [True, False]
        assert found.best is not None and list(found.best.recipe) == eight


def test_latency_as_the_objective() -> None:
    family = {"widths": [[ReduceDimensions(width)] for width in (32, 16, 8)]}
    timer = functools.partial(compare_latency, rounds=5, calls_per_round=5)
    found = search(recipes=family, objective="latency", timer=timer, max_quality_loss=0.5)
    assert found.best.p50_us == min(t.p50_us for t in found.trials if t.change >= -0.5)
    assert found.result.stages[-1].top_p50_us > 0
    with pytest.raises(ValueError, match="timer is None: expected compare_latency"):
        search(objective="latency")


@pytest.mark.slow
def test_a_killed_search_goes_on_where_it_was(tmp_path: Path) -> None:
    checkpoint = tmp_path / "trials"
    command = [sys.executable, __file__, str(checkpoint)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    before = [process.stdout.readline() for _ in range(4)]
    process.kill()
    process.wait()
    assert all(line.strip().isdigit() for line in before)
    run_again: list[Any] = []
    resumed = search(checkpoint=checkpoint, on_trial=run_again.append)
    whole = search()
    for one, other in zip(resumed.trials, whole.trials, strict=True):  # the times are NaN
        assert vars(one) | {"p50_us": 0} == vars(other) | {"p50_us": 0}
    assert resumed.best.recipe == whole.best.recipe
    assert len(run_again) <= len(whole.trials) - 4
    once_more: list[Any] = []
    search(checkpoint=checkpoint, on_trial=once_more.append)
    assert once_more == []


def test_a_checkpoint_of_another_search_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "trials"
    few = {"one": [[Quantize()]]}
    search(recipes=few, checkpoint=checkpoint)
    with pytest.raises(ValueError, match="another model, other data or settings"):
        search(recipes=few, checkpoint=checkpoint, account="items")
    damaged = checkpoint.read_bytes()[:-3]
    for content, message in ((damaged, "damaged"), (b"hello", "no file of recsys_lib")):
        checkpoint.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            search(recipes=few, checkpoint=checkpoint)


def test_all_recipes_are_checked_before_any_is_run() -> None:
    ran: list[Any] = []
    bad = {"fine": [[Quantize()]], "not": [[Quantize(), Quantize()]]}
    with pytest.raises(ValueError, match="one Quantize"):
        search(recipes=bad, on_trial=ran.append)
    assert ran == []
    for name, value in (
        ("max_quality_loss", -0.1),
        ("max_quality_loss", 1.0),
        ("recipes", {}),
        ("objective", "size"),
    ):
        with pytest.raises(ValueError, match=name):
            search(**{name: value})
    with pytest.raises(ValueError, match="share is 1"):
        search(validation_share=1)


if __name__ == "__main__":  # for test_a_killed_search_goes_on_where_it_was
    search(checkpoint=sys.argv[1], on_trial=lambda trial: print(trial.file_bytes, flush=True))
