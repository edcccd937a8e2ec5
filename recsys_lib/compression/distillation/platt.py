"""Scores of any scale as logits: a logistic regression on one variable."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def fit_logits(scores: ArrayLike, labels: ArrayLike, *, steps: int = 50) -> tuple[float, float]:
    """Find scale and offset such that ``sigmoid(scale * score + offset)`` predicts labels best.

    Minimises the cross entropy by Newton's method; the order of the scores stays.

    Args:
        scores: (n,) finite numbers.
        labels: (n,) of 0 and 1, both there.
        steps: most steps of Newton's method; a handful is usual.

    Returns:
        Scale, above 0, and offset.

    Raises:
        ValueError: other shapes, a label that never comes, or scores that are no higher for label
            1 than for label 0.

    Source:
        Platt, *Probabilistic Outputs for Support Vector Machines*, 1999, section 2.1, without its
        smoothing of the labels.

    Example:
        >>> scale, offset = fit_logits([0.0, 0.0, 0.0, 0.0, 1.0, 1.0], [1, 0, 0, 0, 1, 0])
        >>> round(scale, 3), round(offset, 3)  # log 3 apart, from -log 3 up
        (1.099, -1.099)
    """
    x, y = np.asarray(scores, np.float64), np.asarray(labels, np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"scores has shape {x.shape}, labels {y.shape}: expected (n,) twice")
    if set(np.unique(y)) != {0.0, 1.0}:
        raise ValueError(f"labels holds {np.unique(y)[:5]}: expected 0 and 1, both")
    center, spread = x.mean(), x.std()
    if not (x[y == 1].mean() > x[y == 0].mean()):
        raise ValueError(
            f"scores are {x[y == 1].mean():.3g} on average for label 1 and {x[y == 0].mean():.3g} "
            "for label 0: expected a teacher that scores chosen items higher"
        )
    columns = np.stack([(x - center) / spread, np.ones_like(x)], axis=1)  # (n, 2)
    beta = np.array([0.0, np.log(y.mean() / (1 - y.mean()))])
    loss = _loss(columns @ beta, y)
    for _ in range(steps):
        p = 0.5 * (1 + np.tanh(columns @ beta / 2))
        slope = columns.T @ (p - y)
        curvature = (columns * (p * (1 - p))[:, None]).T @ columns + 1e-6 * np.eye(2)
        step = np.linalg.solve(curvature, slope)
        while (moved := _loss(columns @ (beta - step), y)) > loss and np.abs(step).max() > 1e-9:
            step = step / 2
        beta, gained, loss = beta - step, loss - moved, moved
        if gained < 1e-12 * len(x):
            break
    scale = beta[0] / spread
    return float(scale), float(beta[1] - scale * center)


def _loss(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(np.sum(np.logaddexp(0, logits) - labels * logits))
