"""What fit() is given: checked before anything is touched, and noted for the checkpoint."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys_lib.checks import check_type
from recsys_lib.data import Interactions, Split
from recsys_lib.training.checkpoint import fingerprint
from recsys_lib.training.loop import is_large

_FEWEST_ROWS_FOR_JIT = 50_000


def check_model(model: Any, interactions: Interactions) -> None:
    """Raise unless ``model`` scores the highest ids of ``interactions`` with one number a pair.

    Raises:
        TypeError: not callable on ``[user_ids, item_ids]``.
        ValueError: the inputs are swapped, the output is not (n,), an id is out of its range, or
            there is nothing to train.
    """
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
        what = f"model cannot score user {counts[0] - 1} with item {counts[1] - 1}"
        raise ValueError(f"{what}: expected tables as large as interactions") from error
    if shape != (2,):
        raise ValueError(f"model returns shape {shape} for two pairs: expected (2,), two logits")
    if not model.trainable_variables:
        raise ValueError("model has no trainable variables: expected something to train")


def own_optimizer(optimizer: Any) -> Any:
    """Return a fresh optimizer with the settings of ``optimizer``, which stays as it is.

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
            hint = "expected the name of a Keras optimizer such as 'adam', or an instance"
            raise ValueError(f"optimizer is {optimizer!r}: {hint}") from error
    check_type("optimizer", optimizer, (keras.optimizers.Optimizer,), " of Keras, or its name")
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


def uses_averages(optimizer: Any) -> bool:
    """Tell whether a run ends with the averages of its weights."""
    return bool(getattr(optimizer, "inner_optimizer", optimizer).use_ema)


def run_settings(
    loop: dict[str, Any],
    model: Any,
    interactions: Interactions,
    optimizer: Any,
    validation: Any,
    **more: Any,
) -> dict[str, Any]:
    """Return what a checkpoint notes of a run, and what must agree when it is resumed.

    A validation that is a function cannot be compared; of an extra loss, only the name can.
    """
    extra = loop["extra_loss"]
    name = extra and getattr(extra, "__name__", type(extra).__name__)
    config = sorted((k, v) for k, v in optimizer.get_config().items() if k != "name")
    is_data = isinstance(validation, Interactions | Split)
    return loop | {
        "extra_loss": name,
        "optimizer": {"class": type(optimizer).__name__, "config": repr(config)},
        "model": [[list(v.shape), str(v.dtype)] for v in model.variables],
        "interactions": fingerprint(interactions),
        "validation": fingerprint(validation) if is_data else None,
        **more,
    }
