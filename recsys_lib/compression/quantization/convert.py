"""From a fake-quantized model to integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_choice
from recsys_lib.compression.quantization.aware_graph import quantizable
from recsys_lib.compression.quantization.calibration_data import Calibration
from recsys_lib.compression.quantization.fake_quant import Grid, quantize_to_grid
from recsys_lib.compression.quantization.integer import IntegerDense
from recsys_lib.compression.quantization.integer_model import IntegerBias, IntegerModel, Step
from recsys_lib.compression.quantization.integer_ops import (
    Operation,
    Piece,
    Value,
    apply_dense,
    operation_of,
)
from recsys_lib.compression.quantization.qat import IntegerQuantization, quantization_aware
from recsys_lib.compression.quantization.requantize import REQUANTIZATIONS
from recsys_lib.compression.quantization.uniform import UniformQuantization, UniformTensor
from recsys_lib.compression.report import CompressionReport, TensorReport, compare_weights
from recsys_lib.compression.tensors import DenseTensor, EncodedTensor
from recsys_lib.compression.weights import keras_model, named_weights


def convert(model: Any, requantization: str = "single") -> IntegerModel:
    """Make the integers of a quantization-aware model; ``model`` stays as it is.

    The integer model rounds to the same grids at the same places. With "single" and "float",
    codes between the layers are those of the fake-quantized model, or one unit apart in the rare
    place (below 1 in 1,000) where the number that is rounded lies so near to the middle of two
    codes that the last bits of float32 decide. Where nothing is rounded between the layers,
    outputs are equal but for the last bits of float32. "double" is for comparison with LiteRT's
    built-in kernels: rounding twice, it is one unit off more often.

    Args:
        model: from :func:`quantization_aware`, trained or not.
        requantization: how sums are scaled to codes: "single", "double" (both in integers) or
            "float"; see :func:`recsys_lib.compression.quantization.requantize.requantize`.

    Returns:
        A model with ``score``, whose tables and kernels are stored in ``bits`` bits a number.

    Raises:
        TypeError: a model without fake-quantized layers.
        ValueError: an unknown requantization, or NaN in the weights.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("mlp_ranker", 200, 300))
        >>> aware = quantization_aware(model, IntegerQuantization(bits=4))
        >>> integer, ids = convert(aware), np.arange(200)
        >>> float(np.abs(integer.score(ids, ids) - aware([ids, ids])).max()) < 1e-3
        True
        >>> integer.report.ratio > 5
        True
    """
    check_choice("requantization", requantization, REQUANTIZATIONS)
    model = keras_model(model)
    if not any(hasattr(layer, "weight_grid") for layer in model.layers):
        raise TypeError("model has no fake-quantized layer: expected one from quantization_aware()")
    named_weights(model)  # raises where they are not finite
    before: dict[str, NDArray[np.float32]] = {}
    tensors: dict[str, EncodedTensor] = {}
    layers: dict[str, IntegerDense] = {}
    steps = []
    for layer in model.layers:
        if type(layer).__name__ == "InputLayer":
            continue
        if quantizable(layer) == "Dense":
            layers[layer.name] = dense = _integer_dense(layer, requantization)
            before |= _dense_weights(layer)
            tensors |= _dense_tensors(layer, dense)
            operation: Operation = _dense_operation(dense)
        elif quantizable(layer) == "Embedding":
            name, grid = f"{layer.name}/embeddings", layer.weight_grid()
            before[name] = layer.embeddings.numpy()
            stored = _packed(quantize_to_grid(before[name], grid), grid, "row", "float16")
            tensors[name] = stored
            operation = _lookup(stored)
        else:
            operation = operation_of(layer)
        sources = layer.input if isinstance(layer.input, list | tuple) else [layer.input]
        names = tuple(_source(model, tensor) for tensor in sources)
        steps.append(Step(layer.name, names, operation))
    decoded = {name: tensor.decode() for name, tensor in tensors.items() if name in before}
    config = {layer.name: layer.quantization for layer in model.layers if quantizable(layer)}
    return IntegerModel(
        tensors,
        _plain(model, list(decoded.values())),
        _report(config, before, tensors),
        tuple(steps),
        tuple(_source(model, tensor) for tensor in model.inputs),
        layers,
        tuple(_num_rows(model, tensor) for tensor in model.inputs),
    )


def quantize_static(
    model: Any,
    calibration: Calibration,
    config: IntegerQuantization | None = None,
    requantization: str = "single",
) -> IntegerModel:
    """Quantize a trained model to integer arithmetic, without training; ``model`` stays as it is.

    Args:
        model: as for :func:`quantization_aware`.
        calibration: likewise, and not None.
        config: None for 8 bits everywhere.
        requantization: as for :func:`convert`.

    Raises:
        TypeError, ValueError: as for :func:`quantization_aware`.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("mlp_ranker", 200, 300))
        >>> quantize_static(model, (np.arange(200), np.arange(200))).score([3], [4]).shape
        (1,)
        >>> quantize_static(model, ([], []))
        Traceback (most recent call last):
        ValueError: calibration has 0 and 0 rows: expected equally many for each input, at least one
    """
    check_choice("requantization", requantization, REQUANTIZATIONS)
    if calibration is None:
        raise ValueError("calibration is None: expected Interactions or one array for each input")
    config = IntegerQuantization() if config is None else config
    return convert(quantization_aware(model, config, calibration), requantization)


def _report(
    config: Any, before: dict[str, NDArray[np.float32]], tensors: dict[str, EncodedTensor]
) -> CompressionReport:
    """Report on the weights; grids, which a float32 model has not, count with their bytes alone."""
    weights = {name: tensors[name] for name in before}
    report = compare_weights("integer arithmetic", config, before, weights)
    grids = tuple(
        TensorReport(name, tensor.kind, (), tensor.shape, 0, tensor.nbytes, 0.0, 0.0)
        for name, tensor in tensors.items()
        if name not in before
    )
    return CompressionReport(report.method, config, report.tensors + grids)


def _integer_dense(layer: Any, requantization: str) -> IntegerDense:
    grid, inputs = layer.weight_grid(), layer.activation_grid("input")
    scale = grid.scale.reshape(-1)
    unit = np.float32(inputs.scale) * scale
    bias = np.zeros(len(unit), np.int32)
    if layer.bias is not None:
        steps = layer.bias.numpy().astype(np.float32) / unit
        limits = np.iinfo(np.int32)
        bias = np.clip(np.floor(steps + np.float32(0.5)), limits.min, limits.max - 127)
    return IntegerDense(
        quantize_to_grid(layer.kernel.numpy(), grid).astype(np.int8),
        scale,
        bias.astype(np.int32),
        inputs,
        layer.activation_grid("output"),
        relu=layer.activation.__name__ == "relu",
        requantization=requantization,
    )


def _dense_weights(layer: Any) -> dict[str, NDArray[np.float32]]:
    weights = {f"{layer.name}/kernel": layer.kernel.numpy()}
    return weights if layer.bias is None else weights | {f"{layer.name}/bias": layer.bias.numpy()}


def _dense_tensors(layer: Any, dense: IntegerDense) -> dict[str, EncodedTensor]:
    grid = layer.weight_grid()
    stored: dict[str, EncodedTensor] = {
        f"{layer.name}/kernel": _packed(dense.kernel, grid, "column", "float32")
    }
    if layer.bias is not None:
        stored[f"{layer.name}/bias"] = IntegerBias(dense.bias, dense.unit_scale.astype(np.float32))
    for side, edges in (("input", dense.input_grid), ("output", dense.output_grid)):
        if edges is not None:
            numbers = np.array([edges.scale, edges.zero_point], np.float32)
            stored[f"{layer.name}/{side}_grid"] = DenseTensor(numbers)
    return stored


def _packed(codes: NDArray[Any], grid: Grid, granularity: str, dtype: str) -> UniformTensor:
    bits = int(grid.high + 1).bit_length()
    config = UniformQuantization(bits, granularity, symmetric=True, scale_dtype=dtype)
    shifted = (codes.astype(np.int16) + grid.high).astype(np.uint8)
    return UniformTensor(shifted, grid.scale.astype(dtype), None, config)


def _lookup(table: UniformTensor) -> Operation:
    codes = table.codes.astype(np.int32) - (1 << (table.config.bits - 1)) + 1
    scale = table.scale.astype(np.float32)

    def look_up(inputs: Sequence[Value]) -> Value:
        ids = np.asarray(inputs[0])
        return [Piece(codes[ids], scale[ids])]

    return look_up


def _dense_operation(dense: IntegerDense) -> Operation:
    return lambda inputs: apply_dense(dense, inputs[0])


def _source(model: Any, tensor: Any) -> str:
    return next(layer.name for layer in model.layers if layer.output is tensor)


def _num_rows(model: Any, tensor: Any) -> int:
    rows = [
        layer.input_dim
        for layer in model.layers
        if quantizable(layer) == "Embedding" and layer.input is tensor
    ]
    return min(rows, default=0)


def _plain(model: Any, weights: list[NDArray[np.float32]]) -> Any:
    """Build the float32 model of the same layers, with other weights."""
    import keras

    def clone(layer: Any) -> Any:
        kind, config = quantizable(layer), layer.get_config()
        if kind is None:
            return type(layer).from_config(config)
        config.pop("quantization")
        return getattr(keras.layers, kind).from_config(config)

    plain = keras.models.clone_model(model, clone_function=clone)
    plain.set_weights(weights)
    return plain
