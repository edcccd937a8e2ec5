"""Which layers of a functional model can be computed in integers, and where numbers are rounded."""

from __future__ import annotations

from typing import Any

# They move numbers, or forget them in training, without arithmetic.
_MOVES = ("InputLayer", "Concatenate", "Reshape", "Flatten", "Dropout", "Identity")
_ARITHMETIC = ("Multiply", "Dot", "Add", "Rescaling", "ReLU", "Activation")
_ACTIVATIONS = ("linear", "relu")


def quantizable(layer: Any) -> str | None:
    """Give "Dense" or "Embedding" for layers whose weights are rounded, None for others."""
    import keras

    for kind in ("Dense", "Embedding"):
        if isinstance(layer, getattr(keras.layers, kind)):
            return kind
    return None


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
    """Give the names of dense layers whose outputs are factors of a product, and so rounded.

    A dense layer rounds its own inputs. Numbers that meet a Multiply or a Dot are rounded before;
    table rows are anyway, outputs of a dense layer have to be.
    """
    import keras

    names = set()
    for layer in model.layers:
        if isinstance(layer, keras.layers.Multiply | keras.layers.Dot):
            for tensor in layer.input:
                names |= _dense_sources(model, tensor)
    return names


def _dense_sources(model: Any, tensor: Any) -> set[str]:
    """Find the dense layers that a tensor comes from without another product in between."""
    import keras

    for layer in model.layers:
        if layer.output is tensor:
            break
    else:
        return set()
    if quantizable(layer) == "Dense":
        return {layer.name}
    if quantizable(layer) or isinstance(layer, keras.layers.InputLayer):
        return set()
    if isinstance(layer, keras.layers.Multiply | keras.layers.Dot):
        raise ValueError(
            f"layer {layer.name!r} cannot be quantized: its product is a factor of another product"
        )
    inputs = layer.input if isinstance(layer.input, list | tuple) else [layer.input]
    return set().union(*(_dense_sources(model, source) for source in inputs))
