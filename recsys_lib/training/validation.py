"""One number after each epoch, to stop by and to choose weights by."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from recsys_lib.checks import check_choice, check_type
from recsys_lib.data import Interactions, Split
from recsys_lib.data.splits import check_parts
from recsys_lib.evaluation import evaluate_full_ranking, evaluate_leave_one_out, evaluate_ratings
from recsys_lib.training.forward import KerasScorer

RATING_METRICS = ("rmse", "mae")
RANKING_METRICS = ("ndcg", "hit_rate", "recall")

_ERRORS = *RATING_METRICS, "loss"
LOWER_IS_BETTER = dict.fromkeys(RANKING_METRICS, False) | dict.fromkeys(_ERRORS, True)
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
            or items, by count or vocabulary, than in ``train``.

    Example:
        >>> data = Interactions([0, 1], [0, 1], ratings=[1, 3])
        >>> make_validator(lambda model: 0.25, "ndcg", None, data)()
        0.25
    """
    candidates = train.num_items
    if isinstance(validation, Split):
        if validation.negatives is None:
            raise ValueError("validation is a Split without negatives: expected Interactions")
        metric = check_choice("metric", metric, RANKING_METRICS)
        candidates = 1 + validation.negatives.shape[1]
    elif isinstance(validation, Interactions):
        metric = check_choice("metric", metric, RATING_METRICS + RANKING_METRICS)
        if metric in RATING_METRICS and validation.ratings is None:
            raise ValueError(f"metric is {metric!r}, but validation has no ratings")
    elif not callable(validation):
        check_type("validation", validation, (Interactions, Split), " or a function")
    if isinstance(validation, Interactions | Split):
        held_out = validation.test if isinstance(validation, Split) else validation
        check_parts(interactions=train, validation=held_out)
        if metric in RANKING_METRICS and candidates < k:
            raise ValueError(f"validation ranks {candidates} candidates: expected at least {k}")
        scorer = KerasScorer(model)

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
