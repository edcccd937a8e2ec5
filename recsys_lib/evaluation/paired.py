"""What changed between two models on the same users, how sure that is, and who it happened to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from recsys_lib.checks import Ids, check_choice, check_number, check_shape, check_weights
from recsys_lib.data.interactions import Interactions
from recsys_lib.evaluation.metrics import METRICS, RankingResult
from recsys_lib.evaluation.protocols import Scorer, evaluate_full_ranking

_RESAMPLES = 1000
Results = RankingResult | Sequence[RankingResult]


@dataclass(frozen=True)
class Change:
    """A relative change of a mean over users, with its paired interval.

    Args:
        value: after / before - 1.
        low, high: 95 % interval.

    Example:
        >>> Change(-0.004, -0.008, 0.001), Change(-0.004, -0.03, 0.02).certified(0.01)
        (-0.40% (-0.80% to +0.10%), False)
    """

    value: float
    low: float
    high: float

    def __repr__(self) -> str:
        return f"{self.value:+.2%} ({self.low:+.2%} to {self.high:+.2%})"

    def certified(self, within: float = 0.01) -> bool:
        """Tell whether the data show a loss of at most ``within``.

        They do if the whole interval is above it and is not wider than ``+-within``: a wide
        interval says that too few users were asked, wherever it lies.
        """
        return self.low >= -within and self.high - self.low <= 2 * within


def paired_change(
    after: Results, before: Results, metric: str = "ndcg", *, weights: Any = None, seed: int = 0
) -> Change:
    """Return the relative change of a metric on the same users, with a 95 % bootstrap interval.

    Users are drawn with replacement, the same ones for both sides; with several models a side, one
    for each training seed, seeds are drawn as well, so that the interval holds what another
    training would have changed. One result on a side stands beside all of the other's.

    Args:
        after: a result, or one for each training seed.
        before: likewise, in the same order, and of the same users.
        metric: "ndcg", "hit_rate" or "recall".
        weights: (n,) not below 0, of each value, such as the revenue of what was to be found; None
            for equal ones.
        seed: of the draws.

    Raises:
        ValueError: other users or numbers of seeds, a mean of 0 before, or weights that do not fit.

    Source:
        Efron & Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 13.

    Example:
        >>> users, ones = np.arange(50), np.ones(50)
        >>> full, half = (RankingResult(10, "toy", users, v, v, v) for v in (ones, ones / 2))
        >>> paired_change(half, full)
        -50.00% (-50.00% to -50.00%)
    """
    check_choice("metric", metric, METRICS)
    sides = [[x] if isinstance(x, RankingResult) else list(x) for x in (after, before)]
    num_seeds = max(map(len, sides))
    if not all(len(side) in (1, num_seeds) for side in sides):
        found = " and ".join(str(len(side)) for side in sides)
        raise ValueError(f"after, before: {found} results: expected one for each seed on both")
    ids = sides[1][0].user_ids
    for result in [*sides[0], *sides[1]]:
        if not np.array_equal(result.user_ids, ids):
            raise ValueError("after, before: expected results of the same users in the same order")
    weight = np.ones(len(ids)) if weights is None else check_weights("weights", weights)
    check_shape("weights", weight, ids.shape)
    users, row = np.unique(ids, return_inverse=True)
    sums = [  # (seeds, users), each side
        np.array([np.bincount(row, getattr(r, f"{metric}_per_user") * weight) for r in side])
        for side in sides
    ]
    if not sums[1].sum() > 0:
        raise ValueError(f"before has a {metric} of 0: expected something to compare with")
    rng, ratios = np.random.default_rng(seed), np.empty(_RESAMPLES)
    for sample in range(_RESAMPLES):
        times = np.bincount(rng.integers(0, len(users), len(users)), minlength=len(users))
        seeds = rng.integers(0, num_seeds, num_seeds)
        drawn = [(side @ times)[seeds % len(side)].sum() for side in sums]
        ratios[sample] = drawn[0] / max(drawn[1], 1e-12)
    value = sums[0].mean(axis=0).sum() / sums[1].mean(axis=0).sum() - 1
    low, high = np.quantile(ratios, [0.025, 0.975]) - 1
    return Change(float(value), float(low), float(high))


def thirds(counts: ArrayLike, sizes: ArrayLike | None = None) -> tuple[Ids, list[str]]:
    """Divide things by how often they occur: the rarest third is 0, the most frequent 2.

    Args:
        counts: (n,) how often each occurs.
        sizes: (n,) what each counts for; None for 1 each. With ``sizes=counts`` each part has a
            third of all occurrences. Things with the same count are not parted.

    Returns:
        (n,) group numbers, and what counts each group holds, in words.

    Example:
        >>> thirds([1, 9, 1, 4, 4, 30])
        (array([0, 2, 0, 1, 1, 2]), ['up to 1', '2 to 4', '5 and more'])
    """
    values = np.asarray(counts)
    weights = np.ones(len(values)) if sizes is None else np.asarray(sizes, float)
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weights[order]) / weights.sum()
    edges = [int(values[order][np.searchsorted(share, part / 3 - 1e-9)]) for part in (1, 2)]
    names = [f"up to {edges[0]}", f"{edges[0] + 1} to {edges[1]}", f"{edges[1] + 1} and more"]
    return np.searchsorted(edges, values).astype(np.int64), names


def segments(
    after: Sequence[Scorer],
    before: Sequence[Scorer],
    train: Interactions,
    test: Interactions,
    k: int = 10,
    *,
    metric: str = "ndcg",
    exclude_seen: bool = True,
) -> pd.DataFrame:
    """Compare two models by how popular the items are and how active the users: who pays?

    Items are parted so that each third has a third of all training interactions, users so that
    each third has a third of the test users. In the row of a third of the items only these count as
    found; the others stay in the list and take up places in it.

    Args:
        after: a model for each training seed.
        before: likewise.
        train: see :func:`evaluate_full_ranking`.
        test: likewise.
        k: length of the list.
        metric: see :func:`paired_change`.
        exclude_seen: see :func:`evaluate_full_ranking`.

    Returns:
        One row for each side ("items", "users") and third, the rarest first: ``counts`` in words,
        ``users`` with test items in it, mean metric ``before`` and ``after``, and ``change``,
        ``low``, ``high``; missing where nothing was found before.

    Raises:
        ValueError: as :func:`evaluate_full_ranking`.

    Example:
        >>> train, test = Interactions([0, 1, 1, 2, 2], [0, 0, 1, 0, 2]).split_leave_one_out()
        >>> from recsys_lib.models import Popularity
        >>> model = Popularity().fit(train)
        >>> segments([model], [model], train, test, k=2)["side"].unique().tolist()
        ['items', 'users']
    """
    k = check_number("k", k, 1, train.num_items, integer=True)
    item_counts = np.bincount(train.item_ids, minlength=train.num_items)
    user_counts = np.bincount(train.user_ids, minlength=train.num_users)
    tested = np.unique(test.user_ids)
    items, item_names = thirds(item_counts, item_counts)
    users, user_names = thirds(user_counts[tested])
    rows, parts = [], []
    for side, group, names in (
        ("items", items[test.item_ids], item_names),
        ("users", users[np.searchsorted(tested, test.user_ids)], user_names),
    ):
        there = np.unique(group)
        parts += [(side, names[number], test.take(group == number)) for number in there]

    def rank(model: Scorer, part: Interactions) -> RankingResult:
        return evaluate_full_ranking(model, train, part, k, exclude_seen=exclude_seen)

    for side, name, part in parts:
        new, old = ([rank(model, part) for model in models] for models in (after, before))
        means = [float(np.mean([getattr(r, metric) for r in runs])) for runs in (old, new)]
        change = paired_change(new, old, metric) if means[0] else Change(*[float("nan")] * 3)
        numbers = (*means, change.value, change.low, change.high)
        rows.append([side, name, new[0].num_users, *numbers])
    columns = ["side", "counts", "users", "before", "after", "change", "low", "high"]
    return pd.DataFrame(rows, columns=columns)
