"""The best k of each row, with ties broken the same way every time."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_k


def top_k(scores: ArrayLike, k: int) -> NDArray[np.int64]:
    """Give the columns of the k highest scores of each row, best first.

    Equal scores are ordered by column, lowest first, so that the answer does not depend on the
    machine. A score of -inf means "never": such columns are not returned, and a row with fewer
    than k others is filled up with -1.

    Args:
        scores: (b, n) numbers.
        k: how many, at least 1; may be more than n.

    Returns:
        (b, k) int64 column numbers, -1 where nothing is left.

    Raises:
        TypeError: k is not an integer.
        ValueError: scores has not two dimensions or holds NaN, or k is less than 1.

    Example:
        >>> top_k([[0.1, 0.9, 0.9, 0.3], [-np.inf, 2.0, -np.inf, -np.inf]], k=3).tolist()
        [[1, 2, 3], [1, -1, -1]]
    """
    scores = np.asarray(scores)
    check_k(k)
    if scores.ndim != 2:
        raise ValueError(f"scores has shape {scores.shape}: expected two dimensions, (b, n)")
    if np.isnan(scores).any():
        row = int(np.flatnonzero(np.isnan(scores).any(axis=1))[0])
        raise ValueError(f"scores[{row}] holds NaN: expected numbers that can be ordered")
    num_rows, num_columns = scores.shape
    result = np.full((num_rows, k), -1, np.int64)
    width = min(k, num_columns)
    if width == 0 or num_rows == 0:
        return result
    chosen = _columns_of_best(scores, width)  # (b, width), columns ascending
    values = np.take_along_axis(scores, chosen, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    best = np.take_along_axis(chosen, order, axis=1)
    result[:, :width] = np.where(np.take_along_axis(values, order, axis=1) > -np.inf, best, -1)
    return result


def _columns_of_best(scores: NDArray[np.floating], width: int) -> NDArray[np.int64]:
    """Give exactly ``width`` columns of each row: the highest, of equal ones the lowest."""
    num_rows, num_columns = scores.shape
    split = num_columns - width
    threshold = np.partition(scores, split, axis=1)[:, split, None]
    keep = scores >= threshold
    surplus = np.count_nonzero(keep, axis=1) - width
    for row in np.flatnonzero(surplus):  # more ties at the threshold than places
        ties = np.flatnonzero(scores[row] == threshold[row])
        keep[row, ties[len(ties) - surplus[row] :]] = False
    return np.nonzero(keep)[1].reshape(num_rows, width)
