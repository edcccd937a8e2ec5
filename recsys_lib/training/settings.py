"""What a checkpoint notes of a run's optimizer, validation and extra loss."""

from __future__ import annotations

from typing import Any

from recsys_lib.checks import check_number
from recsys_lib.data import Interactions, Split
from recsys_lib.training.checkpoint import fingerprint
from recsys_lib.training.validation import Validation


def check_extra_loss(extra_loss: Any, objective_weight: Any) -> None:
    """Raise unless ``extra_loss`` can be called, or there is none and the objective counts in full.

    Example:
        >>> check_extra_loss(None, 0.5)
        Traceback (most recent call last):
        ValueError: objective_weight is 0.5, but there is no extra_loss: expected 1
    """
    if extra_loss is not None and not callable(extra_loss):
        raise TypeError(
            f"extra_loss is of type {type(extra_loss).__name__}: expected a function of a Batch"
        )
    if check_number("objective_weight", objective_weight, 0) != 1 and extra_loss is None:
        raise ValueError(
            f"objective_weight is {objective_weight}, but there is no extra_loss: expected 1"
        )


def extra_settings(extra_loss: Any, objective_weight: float) -> dict[str, Any]:
    """Name the extra loss in a checkpoint; without one, nothing is added."""
    if extra_loss is None:
        return {}
    name = getattr(extra_loss, "__name__", type(extra_loss).__name__)
    return {"extra_loss": name, "objective_weight": float(objective_weight)}


def optimizer_settings(optimizer: Any) -> dict[str, Any]:
    """Give the class and the settings of an optimizer, without its name."""
    config = {k: v for k, v in optimizer.get_config().items() if k != "name"}
    return {"class": type(optimizer).__name__, "config": repr(sorted(config.items()))}


def validation_settings(validation: Validation | None) -> str | None:
    """Give a fingerprint of held-out data; None for a function, which cannot be compared."""
    if isinstance(validation, Split):
        return fingerprint(validation.test)
    return fingerprint(validation) if isinstance(validation, Interactions) else None
