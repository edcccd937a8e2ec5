"""From a Keras model to arithmetic in whole numbers: trained for it, calibrated, or on the fly."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_choice, check_type
from recsys_lib.compression.compressed import CompressedModel, compare_weights
from recsys_lib.compression.quantization.fake_quant import Grid, quantize_to_grid
from recsys_lib.compression.quantization.integer import REQUANTIZATIONS, IntegerDense
from recsys_lib.compression.quantization.integer_model import (
    Codes,
    IntegerModel,
    Operation,
    Step,
    apply_dense,
    operation_of,
)
from recsys_lib.compression.quantization.qat import (
    Calibration,
    IntegerQuantization,
    num_rows,
    quantizable,
    quantization_aware,
    sources,
)
from recsys_lib.compression.quantization.uniform import UniformQuantization, UniformTensor
from recsys_lib.compression.tensors import DenseTensor, EncodedTensor
from recsys_lib.compression.weights import (
    keras_model,
    named_layers,
    named_variables,
    named_weights,
    replace_keras_model,
)
from recsys_lib.models import Recommender


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
            "float"; see :func:`requantize`.

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
    stored = ("embeddings", "kernel", "bias")
    before = {n: w for n, w in named_weights(model).items() if n.rpartition("/")[2] in stored}
    made_by = {id(layer.output): layer.name for layer in model.layers}
    tensors: dict[str, EncodedTensor] = {}
    dense: dict[str, IntegerDense] = {}
    steps = []
    for layer in model.layers:
        if type(layer).__name__ == "InputLayer":
            continue
        operation = operation_of(layer)
        if (kind := quantizable(layer)) == "Dense":
            dense[layer.name] = integer = _integer_dense(layer, requantization)
            tensors |= _dense_tensors(layer, integer)
            operation = partial(apply_dense, integer)
        elif kind == "Embedding":
            name, grid = f"{layer.name}/embeddings", layer.weight_grid()
            tensors[name] = table = _packed(quantize_to_grid(before[name], grid), grid, "row")
            operation = _lookup(table)
        names = tuple(made_by[id(tensor)] for tensor in sources(layer))
        steps.append(Step(layer.name, names, operation))
    config = {layer.name: layer.quantization for layer in model.layers if quantizable(layer)}
    return IntegerModel(
        tensors,
        _plain(model, [tensors[name].decode() for name in before]),
        compare_weights("integer arithmetic", config, before, tensors),
        tuple(steps),
        tuple(made_by[id(tensor)] for tensor in model.inputs),
        dense,
        tuple(num_rows(model, tensor) for tensor in model.inputs),
    )


def quantize_static(
    model: Any, calibration: Calibration, config: IntegerQuantization | None = None
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
        ValueError: calibration has {0} rows: expected as many for each input, not 0
    """
    if calibration is None:
        raise ValueError("calibration is None: expected Interactions or one array for each input")
    config = IntegerQuantization() if config is None else config
    return convert(quantization_aware(model, config, calibration))


def quantize_dynamic(model: Any) -> CompressedModel:
    """Store a Keras model's matrices in int8 and let its dense layers multiply whole numbers.

    Kernels have a scale for each output, embedding tables one for each row; a row that is looked up
    is decoded. Each row of inputs to a dense layer is rounded to 8 bits by its own largest
    absolute value when it comes, so nothing is calibrated. Vectors, such as biases, stay float32.

    Args:
        model: a functional Keras 3 model, or a fitted KerasRecommender around one; it stays as it
            is. Dense layers must have a kernel of two dimensions in float32.

    Returns:
        A model that scores with the arithmetic above. The scores are those of int8 arithmetic; for
        the speed of it see :class:`recsys_lib.serving.candidates.CandidateScorer`.

    Raises:
        TypeError: not such a model.
        ValueError: a model that is not built, or NaN in its weights.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("mlp_ranker", 200, 300))
        >>> compressed = quantize_dynamic(model)
        >>> compressed.report.ratio > 3, compressed.score([3, 4], [5, 6]).shape
        (True, (2,))
    """
    import keras

    from recsys_lib.compression.quantization.layers import DynamicDense

    inner = keras_model(model)
    check_type("model", inner, (keras.Model,))

    def clone(layer: Any) -> Any:
        kind = DynamicDense if type(layer) is keras.layers.Dense else type(layer)
        return kind.from_config(layer.get_config())

    new = keras.models.clone_model(inner, clone_function=clone, recursive=True)
    dense = {path: la for path, la in named_layers(new).items() if isinstance(la, DynamicDense)}
    weights = named_weights(model)
    by_row = UniformQuantization(8, symmetric=True, scale_dtype="float32")
    by_column = replace(by_row, granularity="column")
    tensors: dict[str, EncodedTensor] = {}
    for name, values in weights.items():
        config = by_column if name.rpartition("/")[0] in dense else by_row
        tensors[name] = config.encode(values) if values.ndim > 1 else DenseTensor(values)
    for path, layer in dense.items():
        own: list[Any] = [t for name, t in tensors.items() if name.rpartition("/")[0] == path]
        layer.set_quantized(*own)
    for name, variable in named_variables(new).items():
        if name.rpartition("/")[0] not in dense:
            variable.assign(tensors[name].decode())
    report = compare_weights("dynamic-range quantization", None, weights, tensors)
    whole = replace_keras_model(model, new) if isinstance(model, Recommender) else new
    return CompressedModel(tensors, whole, report)


def _integer_dense(layer: Any, requantization: str) -> IntegerDense:
    grid, inputs = layer.weight_grid(), layer.activation_grid("input")
    scale = grid.scale.reshape(-1)
    unit = np.float32(inputs.scale) * scale
    bias = np.zeros(len(unit), np.int32)
    if layer.bias is not None:
        steps = layer.bias.numpy().astype(np.float32) / unit
        bias = np.clip(np.floor(steps + np.float32(0.5)), -(2**31), 2**31 - 128)
    return IntegerDense(
        quantize_to_grid(layer.kernel.numpy(), grid).astype(np.int8),
        scale,
        bias.astype(np.int32),
        inputs,
        layer.activation_grid("output"),
        relu=layer.activation.__name__ == "relu",
        requantization=requantization,
    )


def _dense_tensors(layer: Any, dense: IntegerDense) -> dict[str, EncodedTensor]:
    packed = _packed(dense.kernel, layer.weight_grid(), "column")
    stored: dict[str, EncodedTensor] = {f"{layer.name}/kernel": packed}
    if layer.bias is not None:
        bias = dense.bias * dense.unit_scale.astype(np.float32)
        stored[f"{layer.name}/bias"] = DenseTensor(bias)
    for side, edges in (("input", dense.input_grid), ("output", dense.output_grid)):
        if edges is not None:
            numbers = np.array([edges.scale, edges.zero_point], np.float32)
            stored[f"{layer.name}/{side}_grid"] = DenseTensor(numbers)
    return stored


def _packed(codes: NDArray[Any], grid: Grid, granularity: str) -> UniformTensor:
    """Pack a table, its scales in float16 (as trained), or a kernel, its scales in float32."""
    dtype = "float16" if granularity == "row" else "float32"
    bits = int(grid.high + 1).bit_length()
    config = UniformQuantization(bits, granularity, symmetric=True, scale_dtype=dtype)
    shifted = (codes.astype(np.int16) + grid.high).astype(np.uint8)
    return UniformTensor(shifted, grid.scale.astype(dtype), None, config)


def _lookup(table: UniformTensor) -> Operation:
    codes = table.codes.astype(np.int32) - int(table.zero_point.flat[0])
    scale = table.scale.astype(np.float32)
    return lambda ids: Codes(codes[ids], scale[ids])


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
