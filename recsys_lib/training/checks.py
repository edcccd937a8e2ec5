"""What fit() is given: checked before anything is touched, and noted for the checkpoint."""

from __future__ import annotations

import copy
import json
import re
import warnings
from typing import Any

import numpy as np

from recsys_lib.checks import check_type
from recsys_lib.data import Interactions, Split
from recsys_lib.training.checkpoint import fingerprint
from recsys_lib.training.loop import Batch

_HOOKS = ("train_step", "compute_loss", "make_train_function", "train_on_batch", "fit")


def check_model(model: Any, interactions: Interactions, extra_loss: Any = None) -> None:
    """Raise unless ``model`` scores the highest ids of ``interactions`` with one number a pair.

    Raises:
        TypeError: not callable on ``[user_ids, item_ids]``, or with a training step of its own,
            which fit() would pass by.
        ValueError: the inputs are swapped, the output is not (n,), an id is out of its range,
            there is nothing to train, or a layer is the extra loss's as well as the model's.

    Warns:
        UserWarning: the model has been compiled, which counts for nothing here.
    """
    import keras
    import tensorflow as tf

    names = [str(getattr(x, "name", "")) for x in getattr(model, "inputs", None) or ()]
    if len(names) == 2 and names[0].startswith("item") and names[1].startswith("user"):
        raise ValueError(f"model has inputs {names}: expected users first, then items")
    check_type("model", model, (keras.Layer,), " of Keras")
    plain = {name: getattr(keras.Model, name) for name in _HOOKS}
    kind = type(model)
    own = [x for x, f in plain.items() if x in vars(model) or getattr(kind, x, f) is not f]
    if own:
        name = f"{type(model).__name__}.{own[0]}"
        raise TypeError(f"model has its own {name}, which fit() does not call: expected none")
    layers = {id(layer) for layer in model._flatten_layers()}
    for layer in getattr(extra_loss, "_flatten_layers", list)():
        if id(layer) in layers:  # its losses would count twice, its weights be updated twice
            raise ValueError(f"extra_loss has layer {layer.name!r} of model: expected its own only")
    if getattr(model, "compiled", False):
        what = "the optimizer, loss, metrics and options of compile() are not used"
        warnings.warn(f"model is compiled: {what} by fit(), only its own arguments", stacklevel=3)
    last = interactions.num_users - 1, interactions.num_items - 1
    try:
        shape = tuple(model([np.array([0, x], np.int32) for x in last], training=False).shape)
    except (tf.errors.InvalidArgumentError, IndexError) as error:
        what = f"model cannot score user {last[0]} with item {last[1]}"
        raise ValueError(f"{what}: expected tables as large as interactions") from error
    if shape != (2,) or not model.trainable_variables:
        what = f"{shape} and {len(model.trainable_variables)} variables to train"
        raise ValueError(f"model returns for two pairs {what}: expected (2,), and some")


def own_optimizer(optimizer: Any, model: Any = None) -> Any:
    """Return a copy of ``optimizer``, with all that its ``get_config`` leaves out.

    For a model of policy "mixed_float16" it scales the loss, as after Keras' ``compile``.

    Raises:
        TypeError: neither a name nor a Keras optimizer.
        ValueError: an unknown name, or an optimizer that has trained something before.

    Example:
        >>> type(own_optimizer("sgd")).__name__
        'SGD'
    """
    import keras

    if isinstance(optimizer, str):
        own = keras.optimizers.get(optimizer)
    else:
        check_type("optimizer", optimizer, (keras.optimizers.Optimizer,), " of Keras, or its name")
        if optimizer.built:
            raise ValueError("optimizer has been used before: expected a new one, or its name")
        own = _copied(optimizer)
    policy, scaled = getattr(model, "dtype_policy", None), keras.optimizers.LossScaleOptimizer
    if getattr(policy, "name", None) == "mixed_float16" and not isinstance(own, scaled):
        return scaled(own)
    return own


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


def uses_averages(optimizer: Any) -> bool:
    """Tell whether a run ends with the averages of its weights."""
    return bool(getattr(optimizer, "inner_optimizer", optimizer).use_ema)


def run_settings(
    loop: Any, model: Any, interactions: Interactions, optimizer: Any, validation: Any, **more: Any
) -> dict[str, Any]:
    """Return what a checkpoint notes of a run, and what must agree when it is resumed.

    A validation that is a function cannot be compared; of an extra loss, its name and what it
    computes can.
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
        "model_graph": _computation(model, extra),
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


def _computation(model: Any, extra_loss: Any) -> str:
    """Return a hash of what model and extra loss compute, whatever the names of it.

    It tells apart what no configuration does: attributes of a user's own layers, and their code.
    """
    import tensorflow as tf

    def run(user_ids: Any, item_ids: Any, step: Any) -> Any:
        pairs = [user_ids, item_ids[:, 0]]
        logits = model(pairs, training=True)
        parts = [model(pairs, training=False), logits, *model.losses]
        if extra_loss is not None:
            parts.append(extra_loss(Batch(user_ids, item_ids, logits[:, None], step)))
        return [tf.convert_to_tensor(part) for part in (*parts, *getattr(extra_loss, "losses", ()))]

    ids, items = tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, 1], tf.int32)
    traced = tf.function(run, autograph=False)
    graph = traced.get_concrete_function(ids, items, tf.TensorSpec([], tf.int64)).graph
    variables = [*model.variables, *getattr(extra_loss, "variables", ())]
    places = {id(variable.handle): number for number, variable in enumerate(variables)}
    taken = [x for x, _ in graph.captures]
    held = [places.get(id(x), "resource" if x.dtype == tf.resource else x.numpy()) for x in taken]
    proto = graph.as_graph_def()
    names: dict[str, int] = {}

    def number(name: str) -> int:
        return names.setdefault(name.lstrip("^").split(":")[0], len(names))

    nodes = [*proto.node, *(n for f in proto.library.function for n in f.node_def)]
    for function in proto.library.function:
        number(function.signature.name)
    seen: list[Any] = []
    for node in nodes:
        for name, value in sorted(node.attr.items()):
            if value.func.name:
                seen.append((name, number(value.func.name)))
            elif not name.startswith("_") and name != "token":
                seen.append((name, value.SerializeToString(deterministic=True)))
        seen += [node.op, number(node.name), *map(number, node.input)]
    return fingerprint(seen, *held)
