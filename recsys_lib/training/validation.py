"""One number after each epoch, to stop by and to choose weights by."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from recsys_lib.checks import check_choice, check_counts
from recsys_lib.data import Interactions, Split
from recsys_lib.evaluation import (
    evaluate_full_ranking,
    evaluate_leave_one_out,
    evaluate_ratings,
)
from recsys_lib.training.forward import KerasScorer

RATING_METRICS = ("rmse", "mae")
RANKING_METRICS = ("ndcg", "hit_rate", "recall")

Validation = Interactions | Split | Callable[[Any], float]


def make_validator(
    validation: Validation, metric: str, model: Any, train: Interactions, k: int = 10
) -> Callable[[], float]:
    """Build the function that judges ``model`` as it stands.

    Args:
        validation: held-out interactions, judged by their ratings ("rmse", "mae") or by a ranking
            of all items without those in ``train``; or a Split with negatives, whose test part
            is ranked against them; or a function of the Keras model that returns the number.
        metric: one of :data:`RATING_METRICS` or :data:`RANKING_METRICS`; for a function, any name.
        model: the Keras model.
        train: what it is trained on.
        k: length of the ranked list.

    Returns:
        A function without arguments that returns a finite number.

    Raises:
        TypeError: ``validation`` is none of these.
        ValueError: unknown metric, no ratings or negatives where they are needed, or other users
            or items than in ``train``.

    Example:
        >>> data = Interactions([0, 1], [0, 1], ratings=[1, 3])
        >>> make_validator(lambda model: 0.25, "ndcg", None, data)()
        0.25
    """
    if isinstance(validation, Interactions | Split):
        _check_data(validation, metric, train, k)
        scorer = KerasScorer(model)
    elif not callable(validation):
        kind = type(validation).__name__
        raise TypeError(
            f"validation is of type {kind}: expected Interactions, a Split or a function"
        )

    def judge() -> float:
        if isinstance(validation, Split):
            value = getattr(evaluate_leave_one_out(scorer, validation, k), metric)
        elif not isinstance(validation, Interactions):
            value = float(validation(model))
        elif metric in RATING_METRICS:
            value = getattr(evaluate_ratings(scorer, validation), metric)
        else:
            value = getattr(evaluate_full_ranking(scorer, train, validation, k), metric)
        if not math.isfinite(value):
            raise ValueError(f"validation gave {metric} = {value}: expected a finite number")
        return value

    return judge


def _check_data(validation: Interactions | Split, metric: str, train: Interactions, k: int) -> None:
    is_split = isinstance(validation, Split)
    allowed = RANKING_METRICS if is_split else RATING_METRICS + RANKING_METRICS
    check_choice("metric", metric, allowed)
    if isinstance(validation, Split) and validation.negatives is None:
        raise ValueError("validation is a Split without negatives: expected some, or Interactions")
    if metric in RATING_METRICS and getattr(validation, "ratings", None) is None:
        raise ValueError(f"metric is {metric!r}, but validation has no ratings")
    check_counts("validation", validation, (train.num_users, train.num_items))
    given = getattr(validation, "negatives", None)
    candidates = validation.num_items if given is None else 1 + given.shape[1]
    if metric in RANKING_METRICS and candidates < k:
        raise ValueError(
            f"validation ranks {candidates} candidates: expected at least {k} for {metric} at {k}"
        )
