"""The best k of each row, with ties broken the same way every time, on every processor."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import Ids, check_k
from recsys_lib.evaluation.metrics import as_scores, best_columns, tie_tolerance

_SPARE = 16  # more columns than asked for, to see where a run of ties ends


def top_k(scores: ArrayLike, k: int) -> Ids:
    """Return the columns of the k highest scores of each row, best first.

    Equal scores are ordered by column, lowest first. Scores next to each other in order are equal
    if they differ by rounding alone, see :func:`recsys_lib.evaluation.metrics.tie_tolerance`: so
    the answer does not depend on the machine. A score of -inf means "never": such columns are not
    returned, and a row with fewer than k others is filled up with -1.

    Args:
        scores: (b, n) numbers.
        k: how many, at least 1; may be more than n.

    Returns:
        (b, k) int64 column numbers, -1 where nothing is left.

    Raises:
        TypeError: k is not an integer, or scores are not numbers.
        ValueError: scores has not two dimensions or holds NaN, or k is less than 1.

    Example:
        >>> top_k([[0.1, 0.9, 0.9, 0.3], [-np.inf, 2.0, -np.inf, -np.inf]], k=3).tolist()
        [[1, 2, 3], [1, -1, -1]]
    """
    k, values = check_k(k), as_scores("scores", scores)
    if values.ndim != 2:
        raise ValueError(f"scores has shape {values.shape}: expected two dimensions, (b, n)")
    result = np.full((len(values), k), -1, np.int64)
    width = min(k, values.shape[1])
    if result.size and width:
        best, whole = _best(values, width, width + _SPARE)
        if not whole.all():  # a run of ties that goes on: look at all columns of these rows
            best[~whole] = _best(values[~whole], width, values.shape[1])[0]
        result[:, :width] = best
    return result


def _best(scores: NDArray[np.floating], width: int, taken: int) -> tuple[Ids, NDArray[np.bool_]]:
    """Order the ``taken`` highest of each row; tell in which rows they hold all ties they touch."""
    num_columns = scores.shape[1]
    columns = best_columns(scores, min(taken, num_columns))
    values = np.take_along_axis(scores, columns, axis=1)
    order = np.argsort(-values, axis=1)
    columns = np.take_along_axis(columns, order, axis=1)
    values = np.take_along_axis(values, order, axis=1)
    above, below = values[:, :-1], values[:, 1:]
    apart = below < above - tie_tolerance(above, values[:, :1])  # a run of ties ends here
    run = np.zeros(values.shape, np.int64)
    np.cumsum(apart, axis=1, out=run[:, 1:])
    by_run = np.argsort(run * num_columns + columns, axis=1)[:, :width]
    last = values[:, width - 1]
    whole = apart[:, width - 1 :].any(axis=1) | (last == -np.inf) | (taken >= num_columns)
    never = np.take_along_axis(values, by_run, axis=1) == -np.inf
    return np.where(never, -1, np.take_along_axis(columns, by_run, axis=1)), whole
