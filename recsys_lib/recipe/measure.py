"""What a recipe is judged by: ranking quality with intervals, bytes of the file, latency."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_number
from recsys_lib.compression.compressed import CompressedModel
from recsys_lib.compression.files import load_compressed, save_compressed
from recsys_lib.data import Split
from recsys_lib.evaluation import RankingResult, evaluate_full_ranking, evaluate_leave_one_out
from recsys_lib.models import inner_product_vectors
from recsys_lib.models.factors import Factors
from recsys_lib.serving import LatencyComparison, TopKIndex

NUM_CANDIDATES = 1000
_RESAMPLES = 1000


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
        model: two tables.
        account: "self-contained" or "items"; the latter folds users in from ``data.train``.
        data: train and test part; with negatives each test item is ranked against them, without
            against the whole catalogue.
        k: length of the list.

    Raises:
        TypeError, ValueError: what cannot be saved or evaluated.

    Example:
        >>> from recsys_lib.recipe.apply import start
        >>> from recsys_lib.data import Interactions
        >>> from recsys_lib.models import IALS
        >>> data = Interactions([0, 0, 1, 1, 2], [0, 1, 1, 2, 2])
        >>> split = Split(*data.split_leave_one_out())
        >>> measure(start(IALS(4).fit(split.train)).compressed, "items", split, 2).factors
        Factors(items only, 3 items, d = 4)
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        size = save_compressed(path, model, account=account)
        factors = load_compressed(path)
    return Measured(factors, size, evaluate(factors, data, k))


def evaluate(factors: Factors, data: Split, k: int) -> RankingResult:
    """Rank with users from the file or, where it has none, folded in from the training part."""
    if factors.user_vectors is None:
        judged = np.isin(data.train.user_ids, data.test.user_ids)
        factors = factors.with_folded_users(data.train.take(judged))
    if data.negatives is None:
        return evaluate_full_ranking(factors, data.train, data.test, k)
    return evaluate_leave_one_out(factors, data, k)


@dataclass(frozen=True, eq=False)
class Resamples:
    """How often each user counts in each of many samples of users, drawn with replacement.

    The same samples serve all models, so that what is said about a difference is paired.

    Args:
        user_ids: (n,) the user of each value that will come.
        seed: of the draws.

    Example:
        >>> resamples = Resamples(np.array([0, 1, 2, 2]))
        >>> resamples.means(np.ones(4)).tolist() == [1.0] * 1000
        True
    """

    user_ids: NDArray[np.int64]
    seed: int = 0

    def means(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give the mean of (n,) values in each sample, (1000,)."""
        users, row = np.unique(self.user_ids, return_inverse=True)
        sums, counts = np.bincount(row, values), np.bincount(row)
        rng = np.random.default_rng(self.seed)
        means = np.empty(_RESAMPLES)
        for sample in range(_RESAMPLES):
            drawn = rng.integers(0, len(users), len(users))
            means[sample] = sums[drawn].sum() / counts[drawn].sum()
        return means


def interval(samples: NDArray[np.float64], level: float = 0.95) -> tuple[float, float]:
    """Give the interval that holds a share of the samples (percentile bootstrap).

    Source:
        Efron & Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 13.

    Example:
        >>> low, high = interval(np.arange(1001.0))
        >>> round(low), round(high)
        (25, 975)
    """
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def requests(factors: Factors, data: Split, k: int, seed: int = 0) -> dict[str, Callable[[], Any]]:
    """Give the two calls that are timed, each for another user every time.

    Args:
        factors: as read from a file; without users each request brings a history of training items
            and folding it in is part of the call.
        data: to take users and histories from.
        k: how many of the catalogue are asked for.
        seed: of the users and candidates.

    Returns:
        "top" for the k best of the catalogue, "candidates" for the scores of 1,000 items (of all,
        where there are fewer).
    """
    rng = np.random.default_rng(seed)
    users = rng.permutation(np.unique(data.test.user_ids))[:256]
    count = min(NUM_CANDIDATES, data.num_items)
    candidates = rng.choice(data.num_items, count, replace=False)
    matrix = data.train.to_csr("binary")
    histories = [matrix.indices[matrix.indptr[u] : matrix.indptr[u + 1]] for u in users]
    if factors.user_vectors is None:
        items, known = factors.item_vectors, [history for history in histories if len(history)]
        vector = lambda history: factors.fold_in([history])[0]  # noqa: E731
    else:
        user_vectors, items = inner_product_vectors(factors)
        known, vector = list(users), lambda user: user_vectors[user]
    index = TopKIndex(items, "int8")
    chosen = items[candidates]
    turns = {name: itertools.cycle(range(len(known))) for name in ("top", "candidates")}

    def top() -> Any:
        place = next(turns["top"])
        met = [histories[place]] if factors.user_vectors is None else None
        return index.search(vector(known[place]), k, exclude=met)

    return {"top": top, "candidates": lambda: chosen @ vector(known[next(turns["candidates"])])}


def check_split(data: Any) -> Split:
    """Give the split.

    Raises:
        TypeError: something else, such as Interactions: a model that was trained on all of them
            could not be judged on any.
    """
    if not isinstance(data, Split):
        raise TypeError(
            f"data is of type {type(data).__name__}: expected a Split, whose train part the model "
            "was trained on: Split(*interactions.split_leave_one_out())"
        )
    return data


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
    check_number("share", share, 0, include_low=False)
    users = np.unique(data.test.user_ids)
    count = round(share * len(users))
    if not 0 < count < len(users):
        raise ValueError(
            f"share is {share} of {len(users)} test users: expected at least one user on each side"
        )
    chosen = np.random.default_rng(seed).choice(users, count, replace=False)
    inside = np.isin(data.test.user_ids, chosen)

    def part(rows: NDArray[np.bool_]) -> Split:
        negatives = None if data.negatives is None else data.negatives[rows]
        return Split(data.train, data.test.take(rows), negatives, name=data.name)

    return part(inside), part(~inside)
