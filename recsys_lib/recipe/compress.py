"""Run a recipe on a model and say, after every step, what it cost and what it bought."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from recsys_lib.checks import check_choice, check_counts, check_k, check_type
from recsys_lib.compression.compressed import CompressedModel
from recsys_lib.compression.files import ACCOUNTS, save_compressed
from recsys_lib.compression.quantization.rate_distortion import check_teacher
from recsys_lib.data import Split
from recsys_lib.files import FilePath
from recsys_lib.models.factors import Factors, as_factors
from recsys_lib.recipe.measure import Measured, Timer, interval, measure, resampled_means, time_all
from recsys_lib.recipe.steps import Distill, Quantize, Recipe, Step, ordered_steps, start
from recsys_lib.serving import compare_latency


@dataclass(frozen=True)
class Stage:
    """One row of the report: the model after one step.

    Args:
        step: that was run, None for the start.
        ndcg, hit_rate: means over test users.
        ndcg_interval, hit_rate_interval: 95 % of them over samples of users (bootstrap).
        change: of the NDCG against the start, as a share of it.
        change_interval: 95 % of it over the same samples for both (paired bootstrap).
        file_bytes: of the file.
        ratio: of the first file's bytes to these.
        top_p50_us, top_p99_us: for the k best of the catalogue for one user; NaN when not timed.
        candidates_p50_us, candidates_p99_us: for the scores of 1,000 candidates.

    Attributes:
        name: the step in a few words.
    """

    step: Step | None
    ndcg: float
    ndcg_interval: tuple[float, float]
    hit_rate: float
    hit_rate_interval: tuple[float, float]
    change: float
    change_interval: tuple[float, float]
    file_bytes: int
    ratio: float
    top_p50_us: float
    top_p99_us: float
    candidates_p50_us: float
    candidates_p99_us: float

    name = property(lambda self: "start" if self.step is None else self.step.name)


@dataclass(frozen=True, eq=False, repr=False)
class CompressionResult:
    """A model after a recipe, and what every step did.

    Args:
        compressed: the stored tables.
        factors: the model that was read back from its file.
        stages: the start, and one for each step.
        account: what the file holds, see :func:`save_compressed`.
        protocol: of the ranking metrics, in words.
        k: length of the list.
    """

    compressed: CompressedModel
    factors: Factors
    stages: tuple[Stage, ...]
    account: str
    protocol: str
    k: int

    def __repr__(self) -> str:
        last = self.stages[-1]
        return (
            f"CompressionResult({len(self.stages) - 1} steps, {last.file_bytes:,} bytes "
            f"({last.ratio:.1f}x smaller), NDCG@{self.k} {last.ndcg:.4f} ({last.change:+.2%}); "
            f"{self.account})"
        )

    def save(self, path: FilePath) -> int:
        """Write the file; see :func:`save_compressed`."""
        return save_compressed(path, self.compressed, account=self.account)

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each stage; ``ndcg_pm`` is half the width of the interval."""
        rows = []
        for stage in self.stages:
            row = vars(stage) | {"step": stage.name, "bytes": stage.file_bytes}
            for name in ("ndcg", "hit_rate"):
                low, high = row[f"{name}_interval"]
                row[f"{name}_pm"] = (high - low) / 2
            row["change_low"], row["change_high"] = stage.change_interval
            rows.append(row)
        columns = ["ndcg", "ndcg_pm", "change", "change_low", "change_high"]
        columns += ["hit_rate", "hit_rate_pm", "bytes", "ratio", "top_p50_us", "top_p99_us"]
        columns += ["candidates_p50_us", "candidates_p99_us"]
        return pd.DataFrame(rows).set_index("step")[columns]


def compress(
    model: Any,
    recipe: Recipe,
    data: Split,
    timer: Timer | None = compare_latency,
    *,
    account: str = "self-contained",
    k: int = 10,
    seed: int = 0,
) -> CompressionResult:
    """Run the steps of a recipe one after the other and measure after each.

    Every figure is that of a file: the model is written, read again, and what was read is judged.
    All stages are timed together at the end, in turns, since times that were taken one after the
    other say as much about the machine as about the model.

    Args:
        model: a fitted recommender whose score is an inner product, see :func:`as_factors`; it
            stays as it is.
        recipe: list of steps.
        data: its train part is what the model was trained on; its test part is what is reported.
            With negatives each test item is ranked against them, without against the catalogue.
        timer: times the calls of all stages in turns; None to measure no latency.
        account: "self-contained" (the file holds all users) or "items" (a user's training items
            come with the request, and are folded in).
        k: length of the list.
        seed: of the bootstrap and of the users that are timed.

    Raises:
        TypeError: a wrong type of model, step, teacher or data.
        ValueError: steps that cannot follow each other, or data or a step's teacher that count
            other users or items than the model. All of this before anything runs.

    Example:
        >>> from recsys_lib.recipe import Quantize, ReduceDimensions
        >>> from recsys_lib.data.synthetic import SyntheticConfig, make_synthetic
        >>> from recsys_lib.models import IALS
        >>> data = make_synthetic(SyntheticConfig("video", num_users=200, num_items=100))
        >>> split = Split(*data.split_leave_one_out())
        >>> model = IALS(embedding_dim=16).fit(split.train)
        >>> result = compress(model, [ReduceDimensions(8), Quantize()], split, timer=None)
        >>> [stage.name for stage in result.stages], result.stages[-1].ratio > 5
        (['start', 'ReduceDimensions 8', 'Quantize uniform 4 bits'], True)
    """
    if timer is not None and not callable(timer):
        raise TypeError(f"timer is {timer!r}: expected compare_latency")
    k, (factors, steps) = check_k(k), prepare(model, recipe, data, account)
    state = start(factors)
    measured = [measure(state.compressed, account, data, k)]
    for step in steps:
        state = step.run(state, data.train)
        measured.append(measure(state.compressed, account, data, k))
    times: list[tuple[float, ...]] = [(float("nan"),) * 4] * len(measured)
    if timer is not None:
        taken = time_all([one.factors for one in measured], data, k, timer, seed)
        times = [tuple(us for one in both for us in (one.p50_us, one.p99_us)) for both in taken]
    stages, last = _stages([None, *steps], measured, times, seed), measured[-1]
    how = last.quality.protocol
    return CompressionResult(state.compressed, last.factors, stages, account, how, k)


def prepare(model: Any, recipe: Recipe, data: Split, account: str) -> tuple[Factors, list[Step]]:
    """Return tables and steps, or say what is wrong before anything runs."""
    check_choice("account", account, ACCOUNTS)
    check_type("data", data, (Split,), ": Split(*interactions.split_leave_one_out())")
    factors = as_factors(model)
    if factors.user_vectors is None:
        raise TypeError("model holds items only: expected one with user vectors to compress")
    counts = len(factors.user_vectors), len(factors.item_vectors)
    check_counts("data", data, counts)
    steps = ordered_steps(recipe, factors.embedding_dim)
    for step in steps:
        if isinstance(step, Quantize) and step.teacher is not None:
            check_teacher(step.teacher, counts)
    distils = any(isinstance(step, Distill) for step in steps)
    if account == "items" and (factors.how_to_fold_in is None or distils):
        raise TypeError("account is 'items': expected a model that folds users in, and no Distill")
    return factors, steps


def _stages(
    steps: list[Step | None], measured: list[Measured], times: list[tuple[float, ...]], seed: int
) -> tuple[Stage, ...]:
    user_ids, before = measured[0].quality.user_ids, measured[0].quality.ndcg
    first = resampled_means(user_ids, measured[0].quality.ndcg_per_user, seed)
    stages = []
    for step, one, taken in zip(steps, measured, times, strict=True):
        quality = one.quality
        ndcg = resampled_means(user_ids, quality.ndcg_per_user, seed)
        hits = resampled_means(user_ids, quality.hit_rate_per_user, seed)
        changes = np.where(first > 0, ndcg / np.maximum(first, 1e-12) - 1, 0.0)
        judged = (quality.ndcg, interval(ndcg), quality.hit_rate, interval(hits))
        change = (relative_change(quality.ndcg, before), interval(changes))
        size = (one.file_bytes, measured[0].file_bytes / one.file_bytes)
        stages.append(Stage(step, *judged, *change, *size, *taken))
    return tuple(stages)


def relative_change(after: float, before: float) -> float:
    """Return ``after / before - 1``; 0 where nothing was found before.

    Example:
        >>> round(relative_change(0.9, 1.0), 3)
        -0.1
    """
    return after / before - 1 if before > 0 else 0.0
