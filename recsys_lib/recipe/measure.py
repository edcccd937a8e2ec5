"""What a recipe is judged by: ranking quality with intervals, bytes of the file, latency."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import Ids, check_number
from recsys_lib.compression.compressed import CompressedModel
from recsys_lib.compression.files import load_compressed, save_compressed
from recsys_lib.data import Split
from recsys_lib.evaluation import RankingResult, evaluate_full_ranking, evaluate_leave_one_out
from recsys_lib.models import inner_product_vectors
from recsys_lib.models.factors import Factors
from recsys_lib.serving import Latency, LatencyComparison, TopKIndex

_NUM_CANDIDATES, _NUM_USERS, _RESAMPLES = 1000, 256, 1000

Doubles = NDArray[np.float64]
Timer = Callable[[Mapping[str, Callable[[], Any]]], LatencyComparison]


@dataclass(frozen=True, eq=False)
class Measured:
    """A model as its file says it is.

    Args:
        factors: what was read from the file.
        file_bytes: of the file.
        quality: ranking quality of what was read.
    """

    factors: Factors
    file_bytes: int
    quality: RankingResult


def measure(model: CompressedModel, account: str, data: Split, k: int) -> Measured:
    """Write a model to a file, read it again and rank with what was read.

    Args:
        model: a compressed factor model.
        account: "self-contained" or "items"; the latter folds users in from ``data.train``.
        data: train and test part; with negatives each test item is ranked against them, without
            against the whole catalogue.
        k: length of the list.

    Raises:
        TypeError, ValueError: what cannot be saved or evaluated.

    Example:
        >>> from recsys_lib.data import Interactions
        >>> from recsys_lib.models import IALS
        >>> from recsys_lib.recipe.steps import start
        >>> data = Interactions([0, 0, 1, 1, 2], [0, 1, 1, 2, 2])
        >>> split = Split(*data.split_leave_one_out())
        >>> measure(start(IALS(4).fit(split.train)).compressed, "items", split, 2).factors
        Factors(items only, 3 items, d = 4)
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        size = save_compressed(path, model, account=account)
        factors = ranks = load_compressed(path)
    if factors.user_vectors is None:
        judged = np.isin(data.train.user_ids, data.test.user_ids)
        ranks = factors.with_folded_users(data.train.take(judged))
    if data.negatives is None:
        protocol = {"exclude_seen": not data.repeats}
        found = evaluate_full_ranking(ranks, data.train, data.test, k, **protocol)
        return Measured(factors, size, found)
    return Measured(factors, size, evaluate_leave_one_out(ranks, data, k))


def resampled_means(user_ids: Ids, values: Doubles, seed: int = 0) -> Doubles:
    """Return the mean of (n,) values in each of many samples of users, drawn with replacement.

    The same seed gives the same samples, so that what is said about a difference is paired.

    Args:
        user_ids: (n,) the user of each value; all values of a user are drawn together.
        values: (n,) numbers.
        seed: of the draws.

    Example:
        >>> resampled_means(np.array([0, 1, 2, 2]), np.ones(4)).tolist() == [1.0] * 1000
        True
    """
    users, row = np.unique(user_ids, return_inverse=True)
    sums, counts = np.bincount(row, values), np.bincount(row)
    rng = np.random.default_rng(seed)
    means = np.empty(_RESAMPLES)
    for sample in range(_RESAMPLES):
        drawn = rng.integers(0, len(users), len(users))
        means[sample] = sums[drawn].sum() / counts[drawn].sum()
    return means


def interval(samples: Doubles, level: float = 0.95) -> tuple[float, float]:
    """Return the interval that holds a share of the samples (percentile bootstrap).

    Source:
        Efron & Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 13.

    Example:
        >>> low, high = interval(np.arange(1001.0))
        >>> round(low), round(high)
        (25, 975)
    """
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def least_change(before: RankingResult, after: RankingResult, confidence: float = 0.95) -> float:
    """Return what the relative change of the NDCG is at least, with so much confidence.

    The lower end of a one-sided t interval for the ratio of two means over the same users. With
    b_u and a_u the values of user u before and after, and the ratio R, the ratio errs by the mean
    of ``a_u - R b_u`` over that of b_u. Users whose list did not change in what counts say little
    about how far a change can go, so the degrees of freedom are those of the others.

    Args:
        before: quality at the start.
        after: quality for the same users.
        confidence: from .5, where it is the change itself, to below 1.

    Returns:
        A share of the mean before; 0 if no value differs, or nothing was found before.

    Source:
        Cochran, *Sampling Techniques*, 1977, section 6.3 (the ratio estimator).

    Example:
        >>> ids, one = np.arange(4), np.ones(4)
        >>> before = RankingResult(10, "toy", ids, one, one, one)
        >>> after = RankingResult(10, "toy", ids, one, np.array([1, 1, 1, 0.5]), one)
        >>> round(least_change(before, after, 0.5), 3), round(least_change(before, after), 2)
        (-0.125, -0.91)
    """
    from scipy.stats import t

    _, row = np.unique(before.user_ids, return_inverse=True)
    old, new = (np.bincount(row, one.ndcg_per_user) for one in (before, after))
    differ = int((old != new).sum())
    if not differ or not old.sum():
        return 0.0
    ratio = new.sum() / old.sum()
    spread = np.sqrt(len(old) / max(len(old) - 1, 1) * ((new - ratio * old) ** 2).sum())
    margin = t.ppf(confidence, max(differ - 1, 1)) * spread / old.sum()
    return float(ratio - 1 - margin)


def time_all(
    models: Sequence[Factors], data: Split, k: int, timer: Timer, seed: int = 0
) -> list[tuple[Latency, Latency]]:
    """Return the latencies of both requests of each model, all timed in turns; see requests."""
    calls = [requests(model, data, k, seed) for model in models]
    functions = {f"{n} {name}": f for n, own in enumerate(calls) for name, f in own.items()}
    found = timer(functions).latencies
    return [(found[f"{place} top"], found[f"{place} candidates"]) for place in range(len(models))]


def requests(factors: Factors, data: Split, k: int, seed: int = 0) -> dict[str, Callable[[], Any]]:
    """Return the two calls that are timed, each for another user every time.

    Args:
        factors: as read from a file; without users each request brings a history of training items,
            folding it in is part of the call, and its items are left out of the list.
        data: to take users and histories from.
        k: how many of the catalogue are asked for.
        seed: of the users and candidates.

    Returns:
        "top" for the k best of the catalogue, "candidates" for the scores of 1,000 items (of all,
        where there are fewer).
    """
    matrix = data.train.to_csr("binary")
    users = np.unique(data.test.user_ids)
    items_only = factors.user_vectors is None
    if items_only:
        users = users[np.diff(matrix.indptr)[users] > 0]
    rng = np.random.default_rng(seed)
    users = rng.permutation(users)[:_NUM_USERS]
    chosen = rng.choice(data.num_items, min(_NUM_CANDIDATES, data.num_items), replace=False)
    histories = [matrix.indices[matrix.indptr[u] : matrix.indptr[u + 1]] for u in users]
    vectors = (None, factors.item_vectors) if items_only else inner_product_vectors(factors)
    assert vectors is not None
    user_vectors, item_vectors = vectors
    index, candidates = TopKIndex(item_vectors, "int8"), item_vectors[chosen]
    turns = {name: itertools.cycle(range(len(users))) for name in ("top", "candidates")}

    def vector(place: int) -> NDArray[np.float32]:
        if user_vectors is None:
            return factors.fold_in([histories[place]])[0]
        return user_vectors[users[place]]

    def top() -> Any:
        place = next(turns["top"])
        known = [histories[place]] if items_only and not data.repeats else None
        return index.search(vector(place), k, exclude=known)

    return {"top": top, "candidates": lambda: candidates @ vector(next(turns["candidates"]))}


def hold_out_users(data: Split, share: float, seed: int = 0) -> tuple[Split, Split]:
    """Divide the test users: some to choose by, the others to report on.

    Args:
        data: train and test part.
        share: of the users that the first split gets, above 0 and below 1.
        seed: of the draw.

    Returns:
        Two splits with the same train part and different test users.

    Raises:
        ValueError: a share out of range, or fewer than two test users.

    Example:
        >>> from recsys_lib.data import Interactions
        >>> train, test = Interactions([0, 0, 1, 1], [0, 1, 0, 1]).split_leave_one_out()
        >>> [len(part.test) for part in hold_out_users(Split(train, test), 0.5)]
        [1, 1]
    """
    share = check_number("share", share, 0)
    users = np.unique(data.test.user_ids)
    count = round(share * len(users))
    if not 0 < count < len(users):
        raise ValueError(f"share is {share} of {len(users)} users: expected some on each side")
    chosen = np.random.default_rng(seed).choice(users, count, replace=False)
    inside = np.isin(data.test.user_ids, chosen)

    def part(rows: NDArray[np.bool_]) -> Split:
        negatives = None if data.negatives is None else data.negatives[rows]
        return replace(data, test=data.test.take(rows), negatives=negatives)

    return part(inside), part(~inside)
