"""The table at the end of a case: models on one population, what each costs, and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from recsys_lib.checks import check_k, check_names, check_type
from recsys_lib.compression.compressed import CompressedModel
from recsys_lib.data import Split
from recsys_lib.evaluation import Change, RankingResult, paired_change
from recsys_lib.models.factors import Factors
from recsys_lib.recipe.compress import prepare
from recsys_lib.recipe.measure import measure
from recsys_lib.recipe.steps import Recipe, start
from recsys_lib.serving import Latency


@dataclass(frozen=True, eq=False, repr=False)
class SeedRuns:
    """One recipe on a model for each training seed, judged as their files are.

    Args:
        before, after: ranking quality of each model and of its compressed file.
        before_bytes, after_bytes: of the files.
        compressed: of each model, to be saved.
        factors: what was read from each compressed file; users folded in where it holds none.
        account: of the files.
        change: of the NDCG, over users and seeds.

    Attributes:
        ratio: bytes before to bytes after, over all seeds.
    """

    before: tuple[RankingResult, ...]
    after: tuple[RankingResult, ...]
    before_bytes: tuple[int, ...]
    after_bytes: tuple[int, ...]
    compressed: tuple[CompressedModel, ...]
    factors: tuple[Factors, ...]
    account: str
    change: Change

    ratio = property(lambda self: sum(self.before_bytes) / sum(self.after_bytes))

    def __repr__(self) -> str:
        k = self.before[0].k
        sure = "" if self.change.certified() else ", not certified within 1 %"
        return (
            f"SeedRuns({len(self.before)} seeds, {self.account}: {self.ratio:.1f}x smaller, "
            f"NDCG@{k} {self.change!r}{sure})"
        )


def compress_seeds(
    models: Any, recipe: Recipe, data: Split, *, account: str = "self-contained", k: int = 10
) -> SeedRuns:
    """Run a recipe on the same model trained with several seeds, and compare before and after.

    A recipe that was searched with one seed's model on some users is held to its promise with the
    others' on users who had no say: pass the second part of :func:`hold_out_users`.

    Args:
        models: fitted, one for each training seed; as for :func:`compress`.
        recipe: list of steps.
        data: as for :func:`compress`.
        account: "self-contained" or "items".
        k: length of the list.

    Raises:
        TypeError, ValueError: as for :func:`compress`.

    Example:
        >>> from recsys_lib.data.synthetic import SyntheticConfig, make_synthetic
        >>> from recsys_lib.models import IALS
        >>> from recsys_lib.recipe import Quantize
        >>> data = make_synthetic(SyntheticConfig("video", num_users=200, num_items=100))
        >>> split = Split(*data.split_leave_one_out())
        >>> models = [IALS(embedding_dim=8, seed=seed).fit(split.train) for seed in range(2)]
        >>> compress_seeds(models, [Quantize()], split).ratio > 1.5
        True
    """
    check_type("models", models, (list, tuple))
    k = check_k(k)
    before, after, compressed = [], [], []
    for model in models:
        factors, steps = prepare(model, recipe, data, account)
        state = start(factors)
        before.append(measure(state.compressed, account, data, k))
        for step in steps:
            state = step.run(state, data.train)
        after.append(measure(state.compressed, account, data, k))
        compressed.append(state.compressed)
    found = [one.factors for one in after]
    return SeedRuns(
        before=tuple(one.quality for one in before),
        after=tuple(one.quality for one in after),
        before_bytes=tuple(one.file_bytes for one in before),
        after_bytes=tuple(one.file_bytes for one in after),
        compressed=tuple(compressed),
        factors=tuple(f if f.num_users else f.with_folded_users(data.train) for f in found),
        account=account,
        change=paired_change([one.quality for one in after], [one.quality for one in before]),
    )


def compare_models(
    results: Mapping[str, Sequence[RankingResult]],
    against: Mapping[str, str],
    *,
    file_bytes: Mapping[str, int] | None = None,
    latencies: Mapping[str, Latency] | None = None,
    within: float = 0.01,
) -> pd.DataFrame:
    """Return the table of a case, as text: one row a model, all on the same users.

    Args:
        results: of each model, one for each training seed (one where nothing is drawn).
        against: name of the model that a model is compared with, for those that are.
        file_bytes: of each model's file, where it has one.
        latencies: of a request, where it was timed.
        within: largest loss that a change is certified for.

    Returns:
        Columns ``NDCG@k``, ``change`` (with its paired interval), ``against``, ``certified``
        ("yes", "not certified", see :meth:`Change.certified`, or "better", where the whole interval
        is above 0 and wider than that), ``bytes``, ``p50 / p99 [us]``; empty where unknown.

    Raises:
        ValueError: a name that is no model's, or results of other users.

    Example:
        >>> users, ones = np.arange(50), np.ones(50)
        >>> full, half = (RankingResult(10, "toy", users, v, v, v) for v in (ones, ones / 2))
        >>> table = compare_models({"all": [full], "half": [half]}, {"half": "all"})
        >>> table.loc["half"].tolist()[:4]
        ['0.5000', '-50.00% (-50.00% to -50.00%)', 'all', 'not certified']
    """
    check_names("against", [*against, *against.values()], results)
    sizes, times, rows = file_bytes or {}, latencies or {}, {}
    k = next(iter(results.values()))[0].k
    for name, runs in results.items():
        row = dict.fromkeys(["change", "against", "certified", "bytes", "p50 / p99 [us]"], "")
        if name in against:
            change = paired_change(runs, results[against[name]])
            sure = "better" if change.low > 0 else "not certified"
            sure = "yes" if change.certified(within) else sure
            row |= {"change": repr(change), "against": against[name], "certified": sure}
        if name in sizes:
            row["bytes"] = f"{sizes[name]:,.0f}"
        if name in times:
            row["p50 / p99 [us]"] = f"{times[name].p50_us:,.0f} / {times[name].p99_us:,.0f}"
        rows[name] = {f"NDCG@{k}": f"{np.mean([run.ndcg for run in runs]):.4f}"} | row
    return pd.DataFrame.from_dict(rows, orient="index")
