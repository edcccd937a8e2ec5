"""Checks of what fit() is given, before anything is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recsys_lib.data import Interactions
from recsys_lib.training.gradients import is_large
from recsys_lib.training.loop import OBJECTIVES

_FEWEST_ROWS_FOR_JIT = 50_000


def check_options(
    interactions: Interactions,
    *,
    objective: str,
    epochs: int,
    batch_size: int,
    negatives_per_positive: int,
    l2: float,
    seed: int,
    patience: int | None,
    has_validation: bool,
    checkpoint: Path | None,
) -> None:
    """Raise unless the arguments of fit() are in range and fit each other.

    Raises:
        TypeError: a wrong type.
        ValueError: a value out of range, ratings missing, or patience without validation.
        FileNotFoundError: the folder of ``checkpoint`` does not exist.

    Example:
        >>> check_options(Interactions([0], [0]), objective="bpr", epochs=1, batch_size=1,
        ...               negatives_per_positive=1, l2=0.0, seed=0, patience=3,
        ...               has_validation=False, checkpoint=None)
        Traceback (most recent call last):
        ValueError: patience is 3, but there is no validation to judge by
    """
    if not isinstance(interactions, Interactions):
        raise TypeError(
            f"interactions is of type {type(interactions).__name__}: expected Interactions "
            "(of a Split, pass .train)"
        )
    if objective not in OBJECTIVES:
        raise ValueError(f"objective is {objective!r}: expected one of {tuple(OBJECTIVES)}")
    if objective == "squared_error" and interactions.ratings is None:
        raise ValueError(
            "objective is 'squared_error', but interactions has no ratings: expected ratings, or "
            "an objective for plain events such as 'sigmoid_cross_entropy'"
        )
    _check_integer("epochs", epochs, 1)
    _check_integer("batch_size", batch_size, 1)
    _check_integer("negatives_per_positive", negatives_per_positive, 1)
    _check_integer("seed", seed, 0)
    if patience is not None:
        _check_integer("patience", patience, 1)
        if not has_validation:
            raise ValueError(f"patience is {patience}, but there is no validation to judge by")
    if isinstance(l2, bool) or not isinstance(l2, int | float):
        raise TypeError(f"l2 is {l2!r}: expected a number")
    if not 0 <= l2 < float("inf"):
        raise ValueError(f"l2 is {l2}: expected a finite number, 0 or more")
    if checkpoint is not None and not checkpoint.parent.is_dir():
        raise FileNotFoundError(
            f"checkpoint is {checkpoint}: expected an existing folder {checkpoint.parent}"
        )


def check_model(model: Any, interactions: Interactions) -> None:
    """Raise unless ``model`` scores the highest ids of ``interactions`` with one number a pair.

    Raises:
        TypeError: not callable on ``[user_ids, item_ids]``.
        ValueError: the inputs are swapped, the output is not (n,), an id is out of its range, or
            there is nothing to train.
    """
    import numpy as np
    import tensorflow as tf

    names = [str(getattr(x, "name", "")) for x in getattr(model, "inputs", None) or ()]
    if len(names) == 2 and names[0].startswith("item") and names[1].startswith("user"):
        raise ValueError(f"model has inputs {names}: expected users first, then items")
    if not callable(model) or not hasattr(model, "trainable_variables"):
        raise TypeError(f"model is of type {type(model).__name__}: expected a Keras model")
    counts = interactions.num_users, interactions.num_items
    ids = [np.array([0, count - 1], np.int32) for count in counts]
    try:
        shape = tuple(model(ids, training=False).shape)
    except (tf.errors.InvalidArgumentError, IndexError) as error:
        raise ValueError(
            f"interactions counts {counts[0]} users and {counts[1]} items, and model cannot score "
            f"user {counts[0] - 1} with item {counts[1] - 1}: expected tables of that size"
        ) from error
    if shape != (2,):
        raise ValueError(
            f"model returns shape {shape} for two pairs: expected (2,), one logit per pair "
            "(a trailing axis would broadcast against labels)"
        )
    if not model.trainable_variables:
        raise ValueError("model has no trainable variables: expected something to train")


def own_optimizer(optimizer: Any) -> Any:
    """Give a fresh optimizer with the settings of ``optimizer``, which stays as it is.

    Raises:
        TypeError: neither a name nor a Keras optimizer.
        ValueError: an unknown name.

    Example:
        >>> type(own_optimizer("sgd")).__name__
        'SGD'
    """
    import keras

    if isinstance(optimizer, str):
        try:
            return keras.optimizers.get(optimizer)
        except ValueError as error:
            raise ValueError(
                f"optimizer is {optimizer!r}: expected the name of a Keras optimizer such as "
                "'adam', 'adagrad' or 'sgd', or an instance of one"
            ) from error
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(
            f"optimizer is of type {type(optimizer).__name__}: expected a name or a Keras optimizer"
        )
    return type(optimizer).from_config(optimizer.get_config())


def jit_pays(model: Any, interactions: Interactions, num_gathered: int) -> bool:
    """Tell whether fit() compiles with XLA by itself: enough rows, and no table that is large.

    Example:
        >>> jit_pays(None, Interactions([0], [0]), num_gathered=8)
        False
    """
    if len(interactions) < _FEWEST_ROWS_FOR_JIT:
        return False
    return not any(is_large((*v.shape, 1)[0], num_gathered) for v in model.trainable_variables)


def _check_integer(name: str, value: Any, lowest: int) -> None:
    import numpy as np

    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} is {value!r}: expected an integer")
    if value < lowest:
        raise ValueError(f"{name} is {value}: expected {lowest} or more")
