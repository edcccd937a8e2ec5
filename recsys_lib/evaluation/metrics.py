"""Metrics and what an evaluation returns; and when two scores count as equal.

Ratings get one number, ranked lists one number per user, so that spreads can be had. A ranked list
is given as its relevance: row ``u`` of a (num_users, length) array holds, best item first, 1 where
the recommended item is one the user went on to choose, else 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import as_array, check_choice, check_number, check_shape, check_weights

Doubles = NDArray[np.float64]
METRICS = ("hit_rate", "ndcg", "recall")
_TIE_ULPS, _BLOCK = 8, 64  # units in the last place; columns


def rmse(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Return the root of the mean squared error, in units of the rating.

    Args:
        y_true: (n,) observed ratings.
        y_pred: (n,) predicted ratings.

    Raises:
        ValueError: shapes differ, no rows, or a value is not finite.

    Example:
        >>> rmse([1, 2, 3], [1, 2, 5])
        1.1547005383792515
    """
    return float(np.sqrt(np.mean(_differences(y_true, y_pred) ** 2)))


def mae(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Return the mean absolute error, in units of the rating.

    Args:
        y_true: (n,) observed ratings.
        y_pred: (n,) predicted ratings.

    Raises:
        ValueError: shapes differ, no rows, or a value is not finite.

    Example:
        >>> mae([1, 2, 3], [1, 2, 5])
        0.6666666666666666
    """
    return float(np.mean(np.abs(_differences(y_true, y_pred))))


def hit_rate_at_k(relevance: ArrayLike, k: int) -> Doubles:
    """Return 1 where at least one of the first ``k`` items is relevant, else 0.

    Args:
        relevance: (num_users, length) of 0 and 1, best item first, length at least ``k``.
        k: length of the list that is shown, 1 or more.

    Returns:
        (num_users,) of 0 and 1.

    Raises:
        ValueError: ``k`` or a shape does not fit, or a value is neither 0 nor 1.

    Example:
        >>> hit_rate_at_k([[0, 1, 0], [0, 0, 1]], k=2).tolist()
        [1.0, 0.0]
    """
    return _top(relevance, k).max(axis=1)


def recall_at_k(relevance: ArrayLike, k: int, num_relevant: ArrayLike) -> Doubles:
    """Return the share of the user's relevant items that are among the first ``k``.

    Args:
        relevance: (num_users, length) of 0 and 1, best item first, length at least ``k``.
        k: length of the list that is shown, 1 or more.
        num_relevant: (num_users,) number of relevant items in the whole catalogue, 1 or more.

    Returns:
        (num_users,) in [0, 1]; at most ``k / num_relevant``.

    Raises:
        ValueError: ``k``, a shape or a count does not fit.

    Example:
        >>> recall_at_k([[0, 1, 1]], k=2, num_relevant=[4]).tolist()
        [0.25]
    """
    return _top(relevance, k).sum(axis=1) / _counts(num_relevant, relevance)


def ndcg_at_k(relevance: ArrayLike, k: int, num_relevant: ArrayLike) -> Doubles:
    """Return the normalised discounted cumulative gain: hits count less the later they come.

    ``sum_j rel_j / log2(j + 1)`` over positions ``j = 1 .. k``, divided by the same sum for a
    perfect list, which has ``min(k, num_relevant)`` hits on top.

    Args:
        relevance: (num_users, length) of 0 and 1, best item first, length at least ``k``.
        k: length of the list that is shown, 1 or more.
        num_relevant: (num_users,) number of relevant items in the whole catalogue, 1 or more.

    Returns:
        (num_users,) in [0, 1].

    Raises:
        ValueError: ``k``, a shape or a count does not fit.

    Source:
        Järvelin & Kekäläinen, *Cumulated Gain-Based Evaluation of IR Techniques*, 2002.

    Example:
        >>> ndcg_at_k([[0, 1, 0]], k=3, num_relevant=[1]).round(4).tolist()  # 1 / log2(3)
        [0.6309]
    """
    top, count = _top(relevance, k), _counts(num_relevant, relevance).astype(np.int64)
    discount = 1 / np.log2(np.arange(2, k + 2))  # (k,)
    ideal = np.cumsum(discount)[np.minimum(count, k) - 1]
    # The order of summation may put a perfect list a rounding error above 1.
    return np.minimum(top @ discount / ideal, 1.0)


def tie_tolerance(scores: NDArray[np.floating], best: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return how far below a score another one counts as equal to it.

    ``8 eps max(|score|, |best|)`` with the eps of the number type, that is 8 units in the last
    place (9.5e-7 in float32) of the larger of the score and the row's best score. Rounding in an
    inner product is relative to the length of the vectors, hence the best score; which last bit it
    gives depends on the processor, and equal item vectors may differ by it.

    Args:
        scores: floating-point numbers.
        best: the best score of each one's row, of a shape that fits; infinity counts as 0.

    Example:
        >>> tie_tolerance(np.float32([2, 0]), np.float32([4, 4])).tolist()
        [3.814697265625e-06, 3.814697265625e-06]
    """
    sizes = [np.where(np.isfinite(x), np.abs(x), 0) for x in (scores, best)]
    return np.maximum(*sizes) * scores.dtype.type(_TIE_ULPS * np.finfo(scores.dtype).eps)


def best_columns(scores: NDArray[np.floating], k: int) -> NDArray[np.int64]:
    """Return the columns of the k highest scores of each row, (b, k), in no order.

    They are in the k blocks of columns with the highest maxima: a search among all columns takes
    up to six times as long.

    Example:
        >>> best_columns(np.float32([[3, 1, 2]]), 1).tolist()
        [[0]]
    """
    rows, n = scores.shape
    blocks, end = n // _BLOCK, n // _BLOCK * _BLOCK
    if blocks <= 4 * k:
        return np.argpartition(scores, n - k, axis=1)[:, n - k :]
    maxima = scores[:, :end].reshape(rows, blocks, _BLOCK).max(axis=2)
    chosen = _BLOCK * np.argpartition(maxima, blocks - k, axis=1)[:, blocks - k :, None]
    columns = (chosen + np.arange(_BLOCK)).reshape(rows, -1)
    columns = np.hstack([columns, np.tile(np.arange(end, n), (rows, 1))])
    found = best_columns(np.take_along_axis(scores, columns, axis=1), k)
    return np.take_along_axis(columns, found, axis=1)


def as_scores(name: str, values: ArrayLike) -> NDArray[Any]:
    """Return scores as float32 or float64, so that they can be negated, compared and subtracted.

    Raises:
        TypeError: no numbers.
        ValueError: NaN, which would pass for a hit wherever ranks are counted by comparison.

    Example:
        >>> as_scores("scores", np.uint8([3, 0])).dtype
        dtype('float64')
    """
    scores = as_array(name, values)
    if scores.dtype.kind not in "iufb":
        raise TypeError(f"{name} is of type {scores.dtype}: expected numbers")
    if scores.dtype != np.float32:
        scores = scores.astype(np.float32 if scores.dtype == np.float16 else np.float64)
    if bad := int(np.isnan(scores).sum()):
        raise ValueError(f"{name} holds {bad} NaN of {scores.size}: expected numbers")
    return scores


def _top(relevance: ArrayLike, k: int) -> Doubles:
    k, array = check_number("k", k, 1, integer=True), np.asarray(relevance, np.float64)
    if array.ndim != 2 or array.shape[1] < k or not np.isin(array, (0, 1)).all():
        raise ValueError(f"relevance, {array.shape}: expected (n, m) of 0 and 1, m >= k = {k}")
    return array[:, :k]


def _counts(num_relevant: ArrayLike, relevance: ArrayLike) -> Doubles:
    counts, hits = np.asarray(num_relevant, np.float64), np.sum(relevance, axis=1)
    check_shape("num_relevant", counts, hits.shape)
    if (counts < np.maximum(hits, 1)).any():
        raise ValueError("num_relevant: expected at least 1, and as many as a list has hits")
    return counts


def _differences(y_true: ArrayLike, y_pred: ArrayLike) -> Doubles:
    true, pred = as_scores("y_true", y_true), as_scores("y_pred", y_pred)
    check_shape("y_pred", pred, (true.size,))
    check_shape("y_true", true, pred.shape)
    check_weights("y_true", true)
    check_weights("y_pred", pred)
    return pred.astype(np.float64) - true


@dataclass(frozen=True, eq=False, repr=False)
class RankingResult:
    """Ranking quality: means over users, and the values they are means of.

    Args:
        k: length of the list that was judged.
        protocol: what was ranked against what, in words.
        user_ids: (n,) the user of each value (a user with two test rows in leave-one-out has two).
        hit_rate_per_user: (n,) of 0 and 1.
        ndcg_per_user: (n,) in [0, 1].
        recall_per_user: (n,) in [0, 1].

    Attributes:
        hit_rate: mean of ``hit_rate_per_user``; likewise ``ndcg`` and ``recall``.
        num_users: number of different users.

    Example:
        >>> one = np.array([1.0, 0.0])
        >>> result = RankingResult(10, "toy", np.array([0, 1]), one, one / 2, one)
        >>> result
        RankingResult(HR@10 0.5000, NDCG@10 0.2500, recall@10 0.5000; 2 users; toy)
    """

    k: int
    protocol: str
    user_ids: NDArray[np.int64]
    hit_rate_per_user: Doubles
    ndcg_per_user: Doubles
    recall_per_user: Doubles
    hit_rate: float = field(init=False)
    ndcg: float = field(init=False)
    recall: float = field(init=False)
    num_users: int = field(init=False)

    def __post_init__(self) -> None:
        for metric in METRICS:
            values = getattr(self, f"{metric}_per_user")
            check_shape(f"{metric}_per_user", values, self.user_ids.shape)
            object.__setattr__(self, metric, float(np.mean(values)))
        object.__setattr__(self, "num_users", len(np.unique(self.user_ids)))

    def __repr__(self) -> str:
        return (
            f"RankingResult(HR@{self.k} {self.hit_rate:.4f}, NDCG@{self.k} {self.ndcg:.4f}, "
            f"recall@{self.k} {self.recall:.4f}; {self.num_users:,} users; {self.protocol})"
        )

    def confidence_interval(self, metric: str = "ndcg", level: float = 0.95) -> tuple[float, float]:
        """Return the interval of the mean over users, by the normal approximation.

        Args:
            metric: "hit_rate", "ndcg" or "recall".
            level: probability that the interval covers the true mean, in (0, 1).

        Returns:
            ``mean -+ z * standard error``. It says how far another sample of users would move the
            figure; two models on the same users are compared by their paired differences instead.

        Raises:
            ValueError: unknown metric, level out of range, or fewer than two values.

        Example:
            >>> half = np.array([1.0, 0.0] * 50)
            >>> result = RankingResult(10, "toy", np.arange(100), half, half, half)
            >>> [round(bound, 3) for bound in result.confidence_interval("hit_rate")]
            [0.402, 0.598]
        """
        values = getattr(self, f"{check_choice('metric', metric, METRICS)}_per_user")
        level = check_number("level", level, 0, 1 - 1e-9, include_low=False)
        if len(values) < 2:
            raise ValueError("an interval needs the values of two users or more, there is one")
        half = NormalDist().inv_cdf((1 + level) / 2) * values.std(ddof=1) / np.sqrt(len(values))
        return float(values.mean() - half), float(values.mean() + half)


@dataclass(frozen=True)
class RatingResult:
    """Quality of predicted ratings, in units of the rating.

    Args:
        rmse: root of the mean squared error.
        mae: mean absolute error.
        num_ratings: number of ratings judged.

    Example:
        >>> RatingResult(rmse=0.9, mae=0.7, num_ratings=10)
        RatingResult(rmse=0.9, mae=0.7, num_ratings=10)
    """

    rmse: float
    mae: float
    num_ratings: int
