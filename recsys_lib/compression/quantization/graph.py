"""What can be computed in integers of a functional model, where it rounds, and with what inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_ids, check_type
from recsys_lib.data import Interactions

Calibration = Interactions | Sequence[ArrayLike]

# They move numbers, or forget them in training, without arithmetic.
_MOVES = ("InputLayer", "Concatenate", "Reshape", "Flatten", "Dropout", "Identity")
_ARITHMETIC = ("Multiply", "Dot", "Add", "Rescaling", "ReLU", "Activation")
_ACTIVATIONS = ("linear", "relu")


def quantizable(layer: Any) -> str | None:
    """Return "Dense" or "Embedding" for layers whose weights are rounded, None for others."""
    kinds = [kind.__name__ for kind in type(layer).__mro__]
    return next((kind for kind in ("Dense", "Embedding") if kind in kinds), None)


def sources(layer: Any) -> list[Any]:
    """Return the tensors that a layer reads."""
    return list(layer.input) if isinstance(layer.input, list | tuple) else [layer.input]


def num_rows(model: Any, tensor: Any) -> int:
    """Return the rows of the smallest table that an input is looked up in, 0 for none."""
    layers = [layer for layer in model.layers if quantizable(layer) == "Embedding"]
    return min((layer.input_dim for layer in layers if layer.input is tensor), default=0)


def check_layers(model: Any) -> None:
    """Raise unless all layers of a model can be computed in integers.

    Raises:
        TypeError: not a functional Keras 3 model.
        ValueError: a layer that cannot; its name is in the message.
    """
    import keras

    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise TypeError(
            f"model is a {type(model).__name__}: expected a functional Keras 3 model, such as "
            "build_rating_model gives"
        )
    for layer in model.layers:
        reason = _obstacle(layer)
        if reason:
            raise ValueError(f"layer {layer.name!r} cannot be quantized: {reason}")


def _obstacle(layer: Any) -> str:
    kind, exact = quantizable(layer), type(layer).__name__
    if len(layer._inbound_nodes) > 1:
        return "it is used more than once; expected one use of each layer"
    if kind is not None:
        if exact != kind:
            return f"it is a {exact}; expected Dense or Embedding as Keras has them"
        if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
            return "it is quantized already or has LoRA weights; expected plain float32 weights"
        if layer.compute_dtype != "float32":
            return f"it computes in {layer.compute_dtype}; expected float32"
        if kind == "Dense" and len(layer.input.shape) != 2:
            return f"its input has shape {layer.input.shape}; expected (n, inputs)"
        if kind == "Embedding" and len(layer.input.shape) != 1:
            return f"its input has shape {layer.input.shape}; expected ids (n,)"
    elif exact not in _MOVES + _ARITHMETIC:
        known = ", ".join(("Dense", "Embedding", *_MOVES[1:], *_ARITHMETIC))
        return f"it is a {exact}; expected one of {known}"
    activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
    if activation not in _ACTIVATIONS:
        return f"its activation is {activation}; expected relu or none"
    if exact == "ReLU" and (layer.max_value is not None or layer.negative_slope or layer.threshold):
        return "it is not a plain ReLU; expected max_value=None, negative_slope=0, threshold=0"
    if exact == "Dot" and (layer.normalize or layer.axes not in (1, -1, [1, 1], (1, 1))):
        return "it normalizes, or sums over other axes; expected Dot(axes=1)"
    return ""


def quantized_outputs(model: Any) -> set[str]:
    """Return the names of dense layers whose outputs are factors of a product, and so rounded.

    A dense layer rounds its own inputs. Numbers that meet a Multiply or a Dot are rounded before;
    table rows are anyway, outputs of a dense layer have to be.
    """
    products = [layer for layer in model.layers if type(layer).__name__ in ("Multiply", "Dot")]
    made_by = {id(layer.output): layer for layer in model.layers}
    waiting = [tensor for layer in products for tensor in sources(layer)]
    names = set()
    while waiting:
        layer = made_by[id(waiting.pop())]
        if layer in products:
            raise ValueError(
                f"layer {layer.name!r} cannot be quantized: its product is a factor of another one"
            )
        if quantizable(layer) == "Dense":
            names.add(layer.name)
        elif quantizable(layer) is None and type(layer).__name__ != "InputLayer":
            waiting += sources(layer)
    return names


def model_inputs(model: Any, calibration: Calibration | None, most: int) -> list[NDArray[Any]]:
    """Return one array for each input of a model, of the same length, at most ``most``.

    Args:
        model: functional Keras model.
        calibration: see :func:`quantization_aware`.
        most: rows; of more, so many are taken, evenly spread.

    Raises:
        TypeError: not a calibration.
        ValueError: empty, not one array per input, of different lengths, or ids out of range; or
            None where an input is not the ids of one table.
    """
    counts = {tensor.name: num_rows(model, tensor) for tensor in model.inputs}
    random = np.random.default_rng(0)
    if calibration is None:
        if not all(counts.values()):
            raise ValueError(f"calibration is None: expected one array for each of {list(counts)}")
        return [random.integers(0, count, most).astype(np.int32) for count in counts.values()]
    if isinstance(calibration, Interactions):
        chosen = _spread(len(calibration), most // 2)
        others = random.integers(0, [*counts.values()][-1] or 1, len(chosen))
        calibration = (
            np.repeat(calibration.user_ids[chosen], 2),
            np.column_stack([calibration.item_ids[chosen], others]).ravel(),
        )
    check_type("calibration", calibration, (tuple, list), " or Interactions")
    if len(calibration) != len(counts):
        raise ValueError(
            f"calibration has {len(calibration)} arrays: expected one for each of {list(counts)}"
        )
    arrays: list[NDArray[Any]] = [
        check_ids(f"calibration {name}", values, count).astype(np.int32)
        if count
        else np.asarray(values, np.float32)
        for (name, count), values in zip(counts.items(), calibration, strict=True)
    ]
    lengths = {len(array) for array in arrays}
    if len(lengths) > 1 or not min(lengths):
        raise ValueError(f"calibration has {lengths} rows: expected as many for each input, not 0")
    chosen = _spread(len(arrays[0]), most)
    return [array[chosen] for array in arrays]


def _spread(count: int, most: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))
