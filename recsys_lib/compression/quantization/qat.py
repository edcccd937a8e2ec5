"""Quantization-aware training: a model that is trained on the numbers it will be served with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import (
    check_choice,
    check_ids,
    check_type,
    check_weights,
    store_flags,
    store_numbers,
)
from recsys_lib.compression.quantization.fake_quant import quantize_to_grid, symmetric_scales
from recsys_lib.compression.quantization.uniform import SEARCHES, find_range
from recsys_lib.compression.weights import keras_model, named_weights, with_weights
from recsys_lib.data import Interactions

Calibration = Interactions | Sequence[ArrayLike]
_CALIBRATION_ROWS = 2048
# They move numbers, or forget them in training, without arithmetic.
_MOVES = ("InputLayer", "Concatenate", "Reshape", "Flatten", "Dropout", "Identity")
_ARITHMETIC = ("Multiply", "Dot", "Add", "Rescaling", "ReLU", "Activation")
_ACTIVATIONS = ("linear", "relu")


@dataclass(frozen=True)
class IntegerQuantization:
    """How weights and what lies between the layers are rounded.

    Kernels have a scale for each output, embedding tables one for each row; both grids are
    symmetric (zero point 0, without the lowest code). Inputs of dense layers have one scale and
    one zero point a layer, biases are 32-bit integers in steps of input scale times kernel scale.
    Scales are learned by gradient descent, as logarithms, so that they stay positive and a step
    changes a small scale as much as a large one.

    Args:
        bits: of kernels and embedding tables, 2 to 8.
        activation_bits: of the inputs of dense layers, 2 to 8.
        scale_search: how the scales of weights are found before training: "minmax", "percentile"
            or "mse", see :class:`UniformQuantization`.
        range_search: how the ranges of inputs are found from the calibration, likewise.
        scale_rate: how much faster than weights learned scales move: a step of the optimizer of
            size ``h`` multiplies a scale by about ``exp(scale_rate * h)``.
        keep_zeros: weights that are exactly 0 stay 0 in training, so that a pruned model stays
            pruned.

    Raises:
        TypeError, ValueError: an argument out of range.

    Source:
        Esser et al., *Learned Step Size Quantization*, ICLR 2020 (gradient of a scale); Jain et
        al., *Trained Quantization Thresholds*, MLSys 2020 (its logarithm); Jacob et al., CVPR
        2018, section 2.4 (biases).

    Example:
        >>> IntegerQuantization(bits=4).activation_bits
        8
        >>> IntegerQuantization(bits=1)
        Traceback (most recent call last):
        ValueError: bits is 1: expected an integer from 2 to 8
    """

    bits: int = 8
    activation_bits: int = 8
    scale_search: str = "minmax"
    range_search: str = "minmax"
    scale_rate: float = 1.0
    keep_zeros: bool = True

    def __post_init__(self) -> None:
        store_numbers(self, 2, "bits", "activation_bits", high=8, integer=True)
        store_numbers(self, 0, "scale_rate", include_low=False)
        store_flags(self, "keep_zeros")
        for name in ("scale_search", "range_search"):
            check_choice(name, getattr(self, name), SEARCHES)


def quantization_aware(
    model: Any, config: IntegerQuantization, calibration: Calibration | None = None
) -> Any:
    """Copy a model, with dense layers and embedding tables that round what they compute with.

    Without any training the copy is the model after post-training quantization; trained with
    :func:`recsys_lib.training.fit` or with Keras' own ``fit`` it learns to do with the rounded
    numbers; :func:`convert` makes the integers of it.

    Args:
        model: a functional Keras 3 model, or a fitted KerasRecommender around one. Dense layers
            have the activation relu or none; between them may stand Concatenate, Multiply, Dot,
            Add, Rescaling, Reshape, Flatten, Dropout, and relu by itself. It stays as it is.
        config: the choices.
        calibration: what the ranges of inputs are learned from before training: Interactions
            (each user is paired with a random item as well), ``(user_ids, item_ids)``, or one
            array for each input of the model; up to 2,048 rows are used. None for 2,048 random
            ids, where all inputs are ids.

    Returns:
        A new Keras model that shares nothing with ``model``. Its outputs are in float32, sums
        that are not rounded again.

    Raises:
        TypeError: not such a model.
        ValueError: a model that is not built, NaN in its weights, a layer that cannot be quantized
            (named), or an empty calibration.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("mlp_ranker", 20, 30))
        >>> rounded = quantization_aware(model, IntegerQuantization(bits=8))
        >>> ids = [np.arange(20), np.arange(20)]
        >>> float(np.abs(rounded(ids) - model(ids)).max()) < 0.01
        True
    """
    import keras

    from recsys_lib.compression.quantization.layers import FakeQuantDense, FakeQuantEmbedding

    check_type("config", config, (IntegerQuantization,))
    model = keras_model(model)
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise TypeError(f"model is a {type(model).__name__}: expected a functional Keras 3 model")
    for layer in model.layers:
        if reason := _obstacle(layer):
            raise ValueError(f"layer {layer.name!r} cannot be quantized: {reason}")
    named_weights(model)  # raises where they are not finite
    counts = {tensor.name: num_rows(model, tensor) for tensor in model.inputs}
    rows = calibration_rows(counts, calibration, _CALIBRATION_ROWS)
    outputs = quantized_outputs(model)
    kinds: dict[str, Any] = {"Dense": FakeQuantDense, "Embedding": FakeQuantEmbedding}

    def clone(layer: Any) -> Any:
        kind = quantizable(layer)
        if kind is None:
            return type(layer).from_config(layer.get_config())
        names = ("bits", "activation_bits", "scale_rate", "keep_zeros")
        settings: dict[str, Any] = {name: getattr(config, name) for name in names}
        settings["quantize_output"] = layer.name in outputs
        options = {k: v for k, v in layer.get_config().items() if k != "quantization_config"}
        return kinds[kind].from_config(options | {"quantization": settings})

    result = keras.models.clone_model(model, clone_function=clone)
    rounded: dict[str, NDArray[np.float32]] = {}
    for layer in filter(quantizable, model.layers):  # no other has weights
        twin, weights = result.get_layer(layer.name), layer.get_weights()[0]
        for variable, values in zip(twin.weights, layer.get_weights(), strict=False):
            variable.assign(values)  # kernel and bias, or table, come before scales
        dense = quantizable(layer) == "Dense"
        name, granularity = ("kernel", "column") if dense else ("embeddings", "row")
        scales = symmetric_scales(weights, config.bits, granularity, config.scale_search)
        twin.set_weight_scales(scales)
        grid = twin.weight_grid()
        rounded[f"{layer.name}/{name}"] = quantize_to_grid(weights, grid) * grid.scale
    # Ranges are those of the rounded weights: what a layer really gets.
    _start_ranges(result, with_weights(model, rounded), rows, config)
    return result


def _start_ranges(model: Any, rounded_model: Any, rows: Any, config: IntegerQuantization) -> None:
    """Set the ranges of inputs and outputs from what they are in a model with rounded weights."""
    import keras

    places = [(layer, side) for layer in model.layers for side in getattr(layer, "ranges", ())]
    if not places:
        return
    tensors = [getattr(rounded_model.get_layer(layer.name), side) for layer, side in places]
    values = keras.Model(rounded_model.inputs, tensors)(rows, training=False)
    values = values if isinstance(values, list) else [values]
    for (layer, side), value in zip(places, values, strict=True):
        numbers = keras.ops.convert_to_numpy(value).reshape(1, -1)
        numbers = check_weights(f"calibration's {side} of {layer.name}", numbers)
        bits, search = config.activation_bits, config.range_search
        low, high = find_range(numbers, bits, symmetric=False, search=search)
        layer.set_range(side, float(low[0]), float(high[0]))


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


def _obstacle(layer: Any) -> str:
    """Return why a layer cannot be computed in integers, nothing where it can."""
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
        if len(layer.input.shape) != (2 if kind == "Dense" else 1):
            return f"its input has shape {layer.input.shape}; expected (n, inputs), or ids (n,)"
    elif exact not in _MOVES + _ARITHMETIC:
        return f"it is a {exact}; expected Dense, Embedding, {', '.join(_MOVES + _ARITHMETIC)}"
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
            raise ValueError(f"layer {layer.name!r} cannot be quantized: product of a product")
        if quantizable(layer) == "Dense":
            names.add(layer.name)
        elif quantizable(layer) is None and type(layer).__name__ != "InputLayer":
            waiting += sources(layer)
    return names


def calibration_rows(counts: Mapping[str, int], calibration: Any, most: int) -> list[NDArray[Any]]:
    """Return one array for each input of a model, of the same length, at most ``most``.

    Args:
        counts: the number of ids by name of the input; 0 where it takes other numbers.
        calibration: see :func:`quantization_aware`.
        most: rows; of more, so many are taken, evenly spread.

    Raises:
        TypeError: not a calibration.
        ValueError: empty, not one array per input, of different lengths, or ids out of range; or
            None where an input is not the ids of one table.
    """
    random = np.random.default_rng(0)
    if calibration is None:
        if not all(counts.values()):
            raise ValueError(f"calibration is None: expected arrays for {list(counts)}")
        return [random.integers(0, count, most).astype(np.int32) for count in counts.values()]
    if isinstance(calibration, Interactions):
        chosen = _spread(len(calibration), most // 2)
        others = random.integers(0, [*counts.values()][-1] or 1, len(chosen))
        items = np.column_stack([calibration.item_ids[chosen], others]).ravel()
        calibration = np.repeat(calibration.user_ids[chosen], 2), items
    check_type("calibration", calibration, (tuple, list), " or Interactions")
    if len(calibration) != len(counts):
        raise ValueError(f"calibration has {len(calibration)} arrays: expected {len(counts)}")
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
