"""The smallest recipe within a quality budget: chosen on some users, told by others."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recsys_lib.checks import check_k, check_number, check_sparsity
from recsys_lib.compression import named_weights
from recsys_lib.data import Split
from recsys_lib.evaluation import RankingResult
from recsys_lib.files import FilePath, read_file, reading, write_file
from recsys_lib.models.factors import Factors, as_factors
from recsys_lib.recipe.compress import CompressionResult, compress, prepare, relative_change
from recsys_lib.recipe.families import default_recipes
from recsys_lib.recipe.measure import Timer, hold_out_users, least_change, measure
from recsys_lib.recipe.steps import Recipe, Step, start
from recsys_lib.training.checkpoint import fingerprint

_KIND = "recipe search"


@dataclass(frozen=True)
class Trial:
    """One recipe, judged on validation users.

    Args:
        family: the list of recipes that it belongs to.
        recipe: that was run.
        change: of the NDCG against the model, as a share of it.
        change_low: what the change is at least, with the confidence that was asked for.
        file_bytes: of the file.
    """

    family: str
    recipe: tuple[Step, ...]
    change: float
    change_low: float
    file_bytes: int


@dataclass(frozen=True, eq=False, repr=False)
class RecipeSearch:
    """What a search found.

    Args:
        trials: all recipes that were tried, in order.
        best: the trial that was chosen, None if none is certain to be within the budget.
        result: the chosen recipe on test users, see :func:`compress`; None without one.
        num_validation_users: who chose.
        confidence: with which each trial was judged.
    """

    trials: tuple[Trial, ...]
    best: Trial | None
    result: CompressionResult | None
    num_validation_users: int
    confidence: float

    def __repr__(self) -> str:
        nothing = "no recipe is certain to be within the budget"
        found = nothing if self.result is None else repr(self.result)
        return (
            f"RecipeSearch({len(self.trials)} recipes tried on {self.num_validation_users:,} "
            f"validation users; on test users: {found})"
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each trial."""
        rows = [
            {
                "family": trial.family,
                "recipe": " -> ".join(step.name for step in trial.recipe),
                "change": trial.change,
                "change_low": trial.change_low,
                "bytes": trial.file_bytes,
                "chosen": trial is self.best,
            }
            for trial in self.trials
        ]
        return pd.DataFrame(rows)


def search_recipe(
    model: Any,
    data: Split,
    max_quality_loss: float = 0.01,
    *,
    timer: Timer | None,
    account: str = "self-contained",
    recipes: Mapping[str, Sequence[Recipe]] | None = None,
    confidence: float = 0.95,
    validation_share: float = 1 / 3,
    k: int = 10,
    seed: int = 0,
    checkpoint: FilePath | None = None,
    progress: bool = True,
) -> RecipeSearch:
    """Find the recipe of fewest bytes that loses no more NDCG than allowed.

    Some of the test users become validation users. A recipe is within the budget when the *lower
    end* of the interval of its change on them is (a one-sided t interval of the paired change): a
    loss that few users could not have shown is not taken for none. Each family of recipes is
    bisected for its last member within the budget; the best of all recipes that were tried and are
    within it is chosen. Only then, and only once, it is judged on the other users, by
    :func:`compress`; read the interval found there.

    Where users are too few to tell losses of the size of the budget apart, a warning says how far
    they tell them apart, and what is chosen is more careful than it might have to be; or nothing,
    if not even the mildest recipe is certain. ``benchmarks/results/calibration.csv`` counts how
    often the promise was broken on the other users of five data sets. A recipe that the model
    refuses (too fine a step for its tables) counts as beyond the budget, -inf.

    Args:
        model: as for :func:`compress`.
        data: as for :func:`compress`.
        max_quality_loss: largest relative loss of NDCG@k, from 0 to below 1.
        timer: of the recipe that is chosen, as for :func:`compress`; None for no times.
        account: as for :func:`compress`.
        recipes: families by name, each ordered from mild to harsh; None for
            :func:`default_recipes`. A family with one recipe is just tried.
        confidence: one-sided, of each trial by itself, from .5 to below 1. At .5 the change itself
            is compared with the budget.
        validation_share: of the test users who choose.
        k: length of the list.
        seed: of the division of users, and as in :func:`compress`.
        checkpoint: file that notes every trial; a search that was killed goes on from it, and a
            finished one gives its result again.
        progress: show a progress bar.

    Warns:
        UserWarning: the validation users are too few for the budget.

    Raises:
        TypeError, ValueError: as for :func:`compress`; for all recipes before any is run; a
            checkpoint of another search.

    Example:
        >>> from recsys_lib.compression.quantization import UniformQuantization
        >>> from recsys_lib.data.synthetic import SyntheticConfig, make_synthetic
        >>> from recsys_lib.models import IALS
        >>> from recsys_lib.recipe.steps import Quantize
        >>> data = make_synthetic(SyntheticConfig("video", num_users=200, num_items=100))
        >>> split = Split(*data.split_leave_one_out())
        >>> model = IALS(embedding_dim=16).fit(split.train)
        >>> bits = [[Quantize(UniformQuantization(bits))] for bits in (8, 4, 2)]
        >>> found = search_recipe(
        ...     model, split, 0.2, timer=None, recipes={"rounding": bits}, progress=False)
        >>> len(found.trials) <= 3
        True
    """
    from tqdm.auto import tqdm

    k, max_quality_loss = check_k(k), check_sparsity(max_quality_loss, "max_quality_loss")
    confidence = check_number("confidence", confidence, 0.5, 0.9999)
    factors = as_factors(model)
    families = dict(default_recipes(factors.embedding_dim, account) if recipes is None else recipes)
    if not any(families.values()):
        raise ValueError("recipes holds no recipe: expected at least one")
    for family in families.values():
        for recipe in family:
            prepare(factors, recipe, data, account)
    validation, test = hold_out_users(data, validation_share, seed)
    tables, fold_in = named_weights(factors).values(), factors.how_to_fold_in
    settings = factors.global_mean, fold_in, account, k, seed, confidence
    mark = fingerprint(factors, validation, *tables, *settings)
    known = {} if checkpoint is None else _known_trials(Path(checkpoint), mark)
    judge = _Judge(factors, validation, account, k, confidence)

    def attempt(name: str, recipe: Recipe) -> Trial:
        key = repr(list(recipe))
        if key not in known:
            known[key] = list(judge(recipe))
            if checkpoint is not None:
                write_file(checkpoint, _KIND, {"search": mark, "trials": known}, {})
        return Trial(name, tuple(recipe), *known[key])

    bar = tqdm(total=len(families), desc="recipes", unit="family", disable=not progress)
    trials: list[Trial] = []
    with bar:
        for trial in bisect_families(families, attempt, max_quality_loss, bar.update):
            trials.append(trial)
            bar.set_postfix_str(f"{trial.family}: {trial.file_bytes:,} bytes, {trial.change:+.2%}")
    best, users = choose(trials, max_quality_loss), np.unique(validation.test.user_ids)
    if doubt := too_few_users(trials, max_quality_loss):
        chosen = "nothing is certain" if best is None else "the choice is more careful for it"
        warnings.warn(
            f"{len(users):,} validation users tell a loss of NDCG apart to {doubt:.1%} only, with "
            f"max_quality_loss {max_quality_loss:.1%}: {chosen}",
            stacklevel=2,
        )
    result = None
    if best is not None:
        result = compress(factors, best.recipe, test, timer, account=account, k=k, seed=seed)
    return RecipeSearch(tuple(trials), best, result, len(users), confidence)


def bisect_families(
    families: Mapping[str, Sequence[Recipe]],
    attempt: Callable[[str, Recipe], Trial],
    max_quality_loss: float,
    done: Callable[[], Any] = lambda: None,
) -> Iterable[Trial]:
    """Try recipes of each family until its last within the budget is found; yield each trial."""
    for name, family in families.items():
        good, bad = -1, len(family)  # the last within the budget, if harsher means worse
        while bad - good > 1:
            middle = (good + bad) // 2
            trial = attempt(name, family[middle])
            within = trial.change_low >= -max_quality_loss
            good, bad = (middle, bad) if within else (good, middle)
            yield trial
        done()


def choose(trials: Sequence[Trial], max_quality_loss: float) -> Trial | None:
    """Return the smallest of the trials that are certain to be within the budget."""
    allowed = [trial for trial in trials if trial.change_low >= -max_quality_loss]
    return min(allowed, key=lambda trial: trial.file_bytes, default=None)


def too_few_users(trials: Sequence[Trial], max_quality_loss: float) -> float:
    """Return the narrowest margin that kept out a trial within the budget, if it is wider; or 0."""
    kept_out = [t for t in trials if t.change >= -max_quality_loss > t.change_low]
    narrowest = min((t.change - t.change_low for t in kept_out), default=0.0)
    return narrowest if narrowest > max_quality_loss else 0.0


def _known_trials(path: Path, mark: str) -> dict[str, list[Any]]:
    """Read change and bytes by recipe; none where there is no file yet."""
    if not path.exists():
        return {}
    _, settings, _ = read_file(path, [_KIND])
    with reading(path, _KIND):
        if settings["search"] != mark:
            raise ValueError(f"{path} is a checkpoint of another model, other data or settings")
        known = settings["trials"].items()
        return {recipe: [float(c), float(low), int(size)] for recipe, (c, low, size) in known}


class _Judge:
    """Runs recipes, keeping the states of the last one for recipes that begin in the same way."""

    def __init__(self, factors: Factors, data: Split, account: str, k: int, sure: float) -> None:
        self.data, self.judged, self.confidence = data, (account, data, k), sure
        self.steps: list[Step] = []
        self.states = [start(factors)]
        self.reference: RankingResult | None = None

    def __call__(self, recipe: Recipe) -> tuple[float, float, int]:
        """Return change, its lower end and bytes of a recipe."""
        if self.reference is None:
            self.reference = measure(self.states[0].compressed, *self.judged).quality
        both = zip(self.steps, recipe, strict=False)
        shared = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], both)))
        self.steps, self.states = self.steps[:shared], self.states[: shared + 1]
        try:
            for step in recipe[shared:]:
                self.states.append(step.run(self.states[-1], self.data.train))
                self.steps.append(step)
        except ValueError:  # too fine a step for the tables of this model, for example
            return float("-inf"), float("-inf"), 0
        one = measure(self.states[-1].compressed, *self.judged)
        change = relative_change(one.quality.ndcg, self.reference.ndcg)
        return change, least_change(self.reference, one.quality, self.confidence), one.file_bytes
