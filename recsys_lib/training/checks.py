"""What fit() is given: checked before anything is touched, and noted for the checkpoint."""

from __future__ import annotations

import copy
import json
import re
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
    import keras
    import tensorflow as tf

    names = [str(getattr(x, "name", "")) for x in getattr(model, "inputs", None) or ()]
    if len(names) == 2 and names[0].startswith("item") and names[1].startswith("user"):
        raise ValueError(f"model has inputs {names}: expected users first, then items")
    check_type("model", model, (keras.Layer,), " of Keras")
    last = interactions.num_users - 1, interactions.num_items - 1
    try:
        shape = tuple(model([np.array([0, x], np.int32) for x in last], training=False).shape)
    except (tf.errors.InvalidArgumentError, IndexError) as error:
        what = f"model cannot score user {last[0]} with item {last[1]}"
        raise ValueError(f"{what}: expected tables as large as interactions") from error
    if shape != (2,) or not model.trainable_variables:
        what = f"{shape} and {len(model.trainable_variables)} variables to train"
        raise ValueError(f"model returns for two pairs {what}: expected (2,), and some")


def own_optimizer(optimizer: Any) -> Any:
    """Return a copy of ``optimizer``, with all that its ``get_config`` leaves out.

    Raises:
        TypeError: neither a name nor a Keras optimizer.
        ValueError: an unknown name, or an optimizer that has trained something before.

    Example:
        >>> type(own_optimizer("sgd")).__name__
        'SGD'
    """
    import keras

    if isinstance(optimizer, str):
        return keras.optimizers.get(optimizer)
    check_type("optimizer", optimizer, (keras.optimizers.Optimizer,), " of Keras, or its name")
    if optimizer.built:
        raise ValueError("optimizer has been used before: expected a new one, or its name")
    return _copied(optimizer)


def _copied(optimizer: Any) -> Any:
    """Copy an optimizer and its variables; its functions and schedules are shared."""
    import keras
    import tensorflow as tf

    own = object.__new__(type(optimizer))
    known = {id(optimizer): own}
    for part in vars(optimizer).values():
        if isinstance(part, keras.optimizers.Optimizer):
            known[id(part)] = _copied(part)
        elif callable(part) or isinstance(part, tf.distribute.Strategy):
            known[id(part)] = part
    vars(own).update(copy.deepcopy(vars(optimizer), known))
    return own


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
    config = sorted((k, v) for k, v in optimizer.get_config().items() if k != "name")
    decay = getattr(optimizer, "inner_optimizer", optimizer)._use_weight_decay
    is_data = isinstance(validation, Interactions | Split)
    return loop | {
        "extra_loss": extra and getattr(extra, "__name__", type(extra).__name__),
        "optimizer": {"class": type(optimizer).__name__, "config": repr(config)},
        "weight_decay": [bool(decay(v)) for v in model.trainable_variables],
        "model": [[list(v.shape), str(v.dtype), bool(v.trainable)] for v in model.variables],
        "model_config": fingerprint(_configuration(model)),
        "interactions": fingerprint(interactions),
        "validation": fingerprint(validation) if is_data else None,
        **more,
    }


def _configuration(model: Any) -> str:
    """Return the settings of a model and its layers; the numbers of automatic names count anew.

    Keras numbers names such as "dense_7" through a process, so they differ where models do not.
    """
    layers = model._flatten_layers()
    text = json.dumps([[type(x).__name__, _config(x)] for x in layers], default=repr)
    kinds = {kind.lower() for kind in re.findall(r'(?:"class_name": |\[)"(\w+)"', text)}
    names: dict[str, int] = {}

    def renumbered(name: re.Match[str]) -> str:
        automatic = name[1].replace("_", "") in kinds
        return f'"{name[1]} {names.setdefault(name[0], len(names))}"' if automatic else name[0]

    return re.sub(r'"(\w+?)(?:_\d+)?"', renumbered, text)


def _config(layer: Any) -> Any:
    try:
        return layer.get_config()
    except NotImplementedError:  # a class of the user's that does not tell
        return None
