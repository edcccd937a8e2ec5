"""The smallest or fastest recipe within a quality budget: chosen on some users, told by others."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys_lib.checks import check_choice, check_k, check_sparsity
from recsys_lib.compression import named_weights
from recsys_lib.compression.quantization import (
    EntropyCoding,
    ProductQuantization,
    TransformCoding,
    UniformQuantization,
)
from recsys_lib.data import Split
from recsys_lib.files import read_file, reading, write_file
from recsys_lib.models.factors import Factors, as_factors
from recsys_lib.recipe.compress import CompressionResult, compress, prepare, relative_change
from recsys_lib.recipe.measure import Timer, hold_out_users, measure, time_all
from recsys_lib.recipe.steps import EntropyCode, Quantize, Recipe, ReduceDimensions, Step, start
from recsys_lib.training.checkpoint import fingerprint

if TYPE_CHECKING:
    import pandas as pd

_KIND = "recipe search"


@dataclass(frozen=True)
class Trial:
    """One recipe, judged on validation users.

    Args:
        family: the list of recipes that it belongs to.
        recipe: that was run.
        change: of the NDCG against the model, as a share of it.
        file_bytes: of the file.
        p50_us: for the k best of the catalogue for one user; NaN when not timed.
    """

    family: str
    recipe: tuple[Step, ...]
    change: float
    file_bytes: int
    p50_us: float


@dataclass(frozen=True, eq=False, repr=False)
class RecipeSearch:
    """What a search found.

    Args:
        trials: all recipes that were tried, in order.
        best: the trial that was chosen, None if none was within the budget.
        result: the chosen recipe on test users, see :func:`compress`; None without one.
        num_validation_users: who chose.
    """

    trials: tuple[Trial, ...]
    best: Trial | None
    result: CompressionResult | None
    num_validation_users: int

    def __repr__(self) -> str:
        found = "no recipe within the budget" if self.result is None else repr(self.result)
        return (
            f"RecipeSearch({len(self.trials)} recipes tried on {self.num_validation_users:,} "
            f"validation users; on test users: {found})"
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each trial."""
        import pandas as pd

        rows = [
            {
                "family": trial.family,
                "recipe": " -> ".join(step.name for step in trial.recipe),
                "change": trial.change,
                "bytes": trial.file_bytes,
                "p50_us": trial.p50_us,
                "chosen": trial is self.best,
            }
            for trial in self.trials
        ]
        return pd.DataFrame(rows)


def default_recipes(embedding_dim: int) -> dict[str, list[Recipe]]:
    """Return families of recipes for a model of so many dimensions, each from mild to harsh.

    Example:
        >>> list(default_recipes(64))
        ['rounding', 'fewer dimensions', 'product quantization', 'transform coding']
    """
    code = EntropyCode(EntropyCoding())
    widths = sorted({max(2, round(embedding_dim * share / 8)) for share in range(1, 8)})
    pieces = [n for n in range(embedding_dim // 2, 1, -1) if embedding_dim % n == 0]
    four_bits = Quantize(UniformQuantization(4, scale_search="mse"))
    families: dict[str, list[Recipe]] = {
        "rounding": [
            [Quantize(UniformQuantization(bits, scale_search="mse")), code]
            for bits in range(8, 1, -1)
        ],
        "fewer dimensions": [[ReduceDimensions(w), four_bits, code] for w in reversed(widths)],
        "product quantization": [[Quantize(ProductQuantization(n)), code] for n in pieces],
        "transform coding": [
            [Quantize(TransformCoding(round(0.02 * 1.15**n, 4), contexts="size"))]
            for n in range(28)
        ],
    }
    return {name: recipes for name, recipes in families.items() if recipes}


def search_recipe(
    model: Any,
    data: Split,
    max_quality_loss: float = 0.01,
    *,
    timer: Timer | None,
    objective: str = "bytes",
    account: str = "self-contained",
    recipes: Mapping[str, Sequence[Recipe]] | None = None,
    validation_share: float = 1 / 3,
    k: int = 10,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> RecipeSearch:
    """Find the recipe of fewest bytes, or least time, that loses no more NDCG than allowed.

    Some of the test users become validation users. Each family of recipes is bisected on them for
    its last member within the budget; the best of all recipes that were tried and are within it is
    chosen. Only then, and only once, it is judged on the other users, by :func:`compress`. The loss
    found there may be a little above the budget, as it may be below: read its interval. A recipe
    that the model refuses (too fine a step for its tables) counts as beyond the budget, -inf.

    Args:
        model: as for :func:`compress`.
        data: as for :func:`compress`.
        max_quality_loss: largest relative loss of NDCG@k on validation users, from 0 to below 1.
        timer: :func:`recsys_lib.serving.compare_latency`; may be None if the objective is "bytes".
        objective: "bytes" of the file, or "latency" (median for the k best of the catalogue).
        account: as for :func:`compress`.
        recipes: families by name, each ordered from mild to harsh; None for
            :func:`default_recipes`. A family with one recipe is just tried.
        validation_share: of the test users who choose.
        k: length of the list.
        seed: of the division of users, and as in :func:`compress`.
        checkpoint: file that notes every trial; a search that was killed goes on from it, and a
            finished one gives its result again.
        progress: show a progress bar.

    Raises:
        TypeError, ValueError: as for :func:`compress`; for all recipes before any is run; a
            checkpoint of another search.

    Example:
        >>> from recsys_lib.data.synthetic import SyntheticConfig, make_synthetic
        >>> from recsys_lib.models import IALS
        >>> data = make_synthetic(SyntheticConfig("video", num_users=200, num_items=100))
        >>> split = Split(*data.split_leave_one_out())
        >>> model = IALS(embedding_dim=16).fit(split.train)
        >>> bits = [[Quantize(UniformQuantization(bits))] for bits in (8, 4, 2)]
        >>> found = search_recipe(
        ...     model, split, 0.05, timer=None, recipes={"rounding": bits}, progress=False)
        >>> len(found.trials) <= 3
        True
    """
    from tqdm.auto import tqdm

    check_choice("objective", objective, ("bytes", "latency"))
    k, max_quality_loss = check_k(k), check_sparsity(max_quality_loss, "max_quality_loss")
    if objective == "latency" and timer is None:
        raise ValueError("timer is None: expected compare_latency for the objective 'latency'")
    factors = as_factors(model)
    families = default_recipes(factors.embedding_dim) if recipes is None else dict(recipes)
    if not any(families.values()):
        raise ValueError("recipes holds no recipe: expected at least one")
    for family in families.values():
        for recipe in family:
            prepare(factors, recipe, data, account)
    validation, test = hold_out_users(data, validation_share, seed)
    timed = timer if objective == "latency" else None
    tables = named_weights(factors).values()
    fold_in, settings = factors.how_to_fold_in, (account, k, seed, timed is not None)
    mark = fingerprint(factors, factors.global_mean, fold_in, validation, *tables, *settings)
    known = {} if checkpoint is None else _known_trials(Path(checkpoint), mark)
    judge = _Judge(factors, validation, account, k, seed, timed)

    def attempt(name: str, recipe: Recipe) -> Trial:
        key = repr(list(recipe))
        if key not in known:
            known[key] = list(judge(recipe))
            if checkpoint is not None:
                write_file(checkpoint, _KIND, {"search": mark, "trials": known}, {})
        return Trial(name, tuple(recipe), *known[key])

    trials = []
    bar = tqdm(total=len(families), desc="recipes", unit="family", disable=not progress)
    with bar:
        for name, family in families.items():
            good, bad = -1, len(family)  # the last within the budget, if harsher means worse
            while bad - good > 1:
                middle = (good + bad) // 2
                trial = attempt(name, family[middle])
                trials.append(trial)
                good, bad = (middle, bad) if trial.change >= -max_quality_loss else (good, middle)
                bar.set_postfix_str(f"{name}: {trial.file_bytes:,} bytes, {trial.change:+.2%}")
            bar.update()
    allowed = [trial for trial in trials if trial.change >= -max_quality_loss]
    worth = (lambda t: t.p50_us) if objective == "latency" else (lambda t: t.file_bytes)
    best = min(allowed, key=worth, default=None)
    result = None
    if best is not None:
        result = compress(factors, best.recipe, test, timer, account=account, k=k, seed=seed)
    return RecipeSearch(tuple(trials), best, result, len(np.unique(validation.test.user_ids)))


def _known_trials(path: Path, mark: str) -> dict[str, list[Any]]:
    """Read change, bytes and latency by recipe; none where there is no file yet."""
    if not path.exists():
        return {}
    _, settings, _ = read_file(path, [_KIND])
    with reading(path, _KIND):
        if settings["search"] != mark:
            raise ValueError(f"{path} is a checkpoint of another model, other data or settings")
        return {
            recipe: [float(c), int(b), float(t)] for recipe, (c, b, t) in settings["trials"].items()
        }


class _Judge:
    """Runs recipes, keeping the states of the last one for recipes that begin in the same way."""

    def __init__(
        self, factors: Factors, data: Split, account: str, k: int, seed: int, timer: Timer | None
    ) -> None:
        self.data, self.account, self.k, self.seed, self.timer = data, account, k, seed, timer
        self.steps: list[Step] = []
        self.states = [start(factors)]
        self.reference: float | None = None

    def __call__(self, recipe: Recipe) -> tuple[float, int, float]:
        """Return change, bytes and median latency of a recipe."""
        if self.reference is None:
            first = measure(self.states[0].compressed, self.account, self.data, self.k)
            self.reference = first.quality.ndcg
        both = zip(self.steps, recipe, strict=False)
        shared = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], both)))
        self.steps, self.states = self.steps[:shared], self.states[: shared + 1]
        try:
            for step in recipe[shared:]:
                self.states.append(step.run(self.states[-1], self.data.train))
                self.steps.append(step)
        except ValueError:  # too fine a step for the tables of this model, for example
            return float("-inf"), 0, float("nan")
        one = measure(self.states[-1].compressed, self.account, self.data, self.k)
        p50_us = float("nan")
        if self.timer is not None:
            top, _ = time_all([one.factors], self.data, self.k, self.timer, self.seed)[0]
            p50_us = top.p50_us
        return relative_change(one.quality.ndcg, self.reference), one.file_bytes, p50_us
