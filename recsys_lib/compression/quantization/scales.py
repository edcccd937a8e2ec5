"""Which range of values a quantizer covers: all of it, or where the squared error is smallest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
GRANULARITIES = ("tensor", "row", "column")
SEARCHES = ("minmax", "percentile", "mse")
# The search takes away 2 % of the range at a time until 24 % are left; the best four levels for
# normally distributed values reach to 1.5 standard deviations, for 192 of them half the range.
_SEARCH_STEPS = 38
_STEP = np.float32(0.02)
_NUMBERS_AT_ONCE = 1 << 16  # what is worked on stays in the second-level cache


def to_groups(values: Floats, granularity: str) -> Floats:
    """Give a matrix with one row for each group of values that share a scale.

    Example:
        >>> kernel = np.zeros((3, 5), np.float32)
        >>> [to_groups(kernel, granularity).shape for granularity in GRANULARITIES]
        [(1, 15), (3, 5), (5, 3)]
    """
    if granularity == "tensor" or values.ndim < 2:
        return values.reshape(1, -1)
    if granularity == "row":
        return values.reshape(values.shape[0], -1)
    return values.reshape(-1, values.shape[-1]).T


def group_shape(shape: tuple[int, ...], granularity: str) -> tuple[int, ...]:
    """Give the shape in which one number for each group broadcasts against the values.

    Example:
        >>> [group_shape((3, 5), granularity) for granularity in GRANULARITIES]
        [(1, 1), (3, 1), (1, 5)]
    """
    ones = (1,) * (len(shape) - 1)
    if granularity == "tensor" or len(shape) < 2:
        return (1,) * len(shape)
    return (shape[0], *ones) if granularity == "row" else (*ones, shape[-1])


def find_range(
    groups: Floats, bits: int, *, symmetric: bool, search: str, percentile: float = 99.9
) -> tuple[Floats, Floats]:
    """Give the ends of the range that each group's codes will cover.

    - "minmax": all values.
    - "percentile": without the share ``1 - percentile / 100`` of the values at each end
      (symmetric: of the largest absolute values).
    - "mse": the range is made smaller in steps of 2 %, each time at the end where that costs less,
      and the best one on the way is kept (symmetric: at both ends). Values outside are clipped.

    Args:
        groups: (g, n), see :func:`to_groups`.
        bits: of a code.
        symmetric: low is ``-high``.
        search: one of the above.
        percentile: above 50, up to 100.

    Returns:
        ``(low, high)``, (g,) each.

    Source:
        Guan et al., *Post-Training 4-bit Quantization on Embedding Tables*, 2019 ("greedy search").

    Example:
        >>> row = np.float32([[-1, 0, 1, 2, 50]])
        >>> [end.tolist() for end in find_range(row, 4, symmetric=False, search="minmax")]
        [[-1.0], [50.0]]
        >>> row = np.float32([[*np.linspace(-1, 1, 2000), 3]])
        >>> low, high = find_range(row, 3, symmetric=False, search="mse")
        >>> bool(high[0] < 2)  # one outlier is not worth coarse steps for all others
        True
    """
    if search == "percentile":
        size = np.abs(groups) if symmetric else groups
        high = np.percentile(size, percentile, axis=1).astype(np.float32)
        low = -high if symmetric else np.percentile(groups, 100 - percentile, axis=1)
        return low.astype(np.float32), high
    if symmetric:
        high = np.abs(groups).max(axis=1)
        low = -high
    else:
        low, high = groups.min(axis=1), groups.max(axis=1)
    if search == "minmax":
        return low, high
    low, high = low.copy(), high.copy()
    rows = max(1, _NUMBERS_AT_ONCE // groups.shape[1])
    levels = 2**bits - (2 if symmetric else 1)
    for start in range(0, len(groups), rows):
        part = slice(start, start + rows)
        found = _smallest_error(groups[part], low[part], high[part], levels, symmetric)
        low[part], high[part] = found
    return low, high


def squared_error(groups: Floats, low: Floats, high: Floats, levels: int) -> Floats:
    """Give the sum of squared rounding errors of each group for a range cut in ``levels`` steps.

    Example:
        >>> squared_error(np.float32([[0, 1, 2.5]]), np.float32([0]), np.float32([2]), 2).tolist()
        [0.25]
    """
    size = (high - low) / np.float32(levels)
    step = np.where(size > 0, size, np.float32(1))[:, None]  # (g, 1)
    error = groups - low[:, None]
    error /= step
    rounded = np.rint(error)
    np.clip(rounded, 0, levels, out=rounded)
    error -= rounded
    error *= step
    return np.einsum("gn,gn->g", error, error)


def _smallest_error(
    groups: Floats, low: Floats, high: Floats, levels: int, symmetric: bool
) -> tuple[Floats, Floats]:
    best_low, best_high = low, high
    best = squared_error(groups, low, high, levels)
    step = (high - low) * _STEP
    half_step = step * np.float32(0.5)
    for _ in range(_SEARCH_STEPS):
        if symmetric:
            low, high = low + half_step, high - half_step
            error = squared_error(groups, low, high, levels)
        else:
            from_below = squared_error(groups, low + step, high, levels)
            from_above = squared_error(groups, low, high - step, levels)
            below = from_below < from_above
            low, high = np.where(below, low + step, low), np.where(below, high, high - step)
            error = np.minimum(from_below, from_above)
        better = error < best
        best = np.where(better, error, best)
        best_low, best_high = np.where(better, low, best_low), np.where(better, high, best_high)
    return best_low, best_high
