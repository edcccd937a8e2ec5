"""Metrics. Ratings: one number. Ranked lists: one number per user, so that spreads can be had.

A ranked list is given as its relevance: row ``u`` of a (num_users, length) array holds, best item
first, 1 where the recommended item is one the user went on to choose, else 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_k


def rmse(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Root of the mean squared error, in units of the rating.

    Args:
        y_true: (n,) observed ratings.
        y_pred: (n,) predicted ratings.

    Raises:
        ValueError: shapes differ, no rows, or a value is not finite.

    Example:
        >>> rmse([1, 2, 3], [1, 2, 5])
        1.1547005383792515
    """
    difference = _differences(y_true, y_pred)
    return float(np.sqrt(np.mean(difference**2)))


def mae(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Mean absolute error, in units of the rating.

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


def hit_rate_at_k(relevance: ArrayLike, k: int) -> NDArray[np.float64]:
    """1 where at least one of the first ``k`` items is relevant, else 0.

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


def recall_at_k(relevance: ArrayLike, k: int, num_relevant: ArrayLike) -> NDArray[np.float64]:
    """Share of the user's relevant items that are among the first ``k``.

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
    top = _top(relevance, k)
    return top.sum(axis=1) / _counts(num_relevant, np.asarray(relevance))


def ndcg_at_k(relevance: ArrayLike, k: int, num_relevant: ArrayLike) -> NDArray[np.float64]:
    """Normalised discounted cumulative gain: hits count less the later they come.

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
    top = _top(relevance, k)
    count = _counts(num_relevant, np.asarray(relevance)).astype(np.int64)
    discount = 1 / np.log2(np.arange(2, k + 2))  # (k,)
    ideal = np.cumsum(discount)[np.minimum(count, k) - 1]
    # The order of summation may put a perfect list a rounding error above 1.
    return np.minimum(top @ discount / ideal, 1.0)


def _top(relevance: ArrayLike, k: int) -> NDArray[np.float64]:
    check_k(k)
    array = np.asarray(relevance, np.float64)
    if array.ndim != 2 or array.shape[1] < k:
        raise ValueError(
            f"relevance has shape {array.shape}: expected (num_users, length) with length of k={k} "
            "or more"
        )
    if not np.isin(array, (0, 1)).all():
        raise ValueError("relevance holds values other than 0 and 1: expected a binary array")
    return array[:, :k]


def _counts(num_relevant: ArrayLike, relevance: NDArray[np.generic]) -> NDArray[np.float64]:
    counts = np.asarray(num_relevant, np.float64)
    if counts.shape != relevance.shape[:1]:
        raise ValueError(
            f"num_relevant has shape {counts.shape}: expected {relevance.shape[:1]}, one per user"
        )
    if (counts < np.maximum(relevance.sum(axis=1), 1)).any():
        raise ValueError(
            "num_relevant is below 1 or below the number of hits in a list: expected the number "
            "of relevant items in the whole catalogue"
        )
    return counts


def _differences(y_true: ArrayLike, y_pred: ArrayLike) -> NDArray[np.float64]:
    true, pred = np.asarray(y_true, np.float64), np.asarray(y_pred, np.float64)
    if true.ndim != 1 or true.shape != pred.shape or len(true) == 0:
        raise ValueError(
            f"y_true has shape {true.shape} and y_pred {pred.shape}: expected the same (n,), n > 0"
        )
    for name, values in (("y_true", true), ("y_pred", pred)):
        if not np.isfinite(values).all():
            bad = int(np.flatnonzero(~np.isfinite(values))[0])
            raise ValueError(f"{name}[{bad}] is {values[bad]}: expected finite numbers")
    return pred - true
