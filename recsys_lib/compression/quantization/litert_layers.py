"""The dense layers of a quantized LiteRT file, as integer layers of ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from recsys_lib.compression.quantization.fake_quant import Grid
from recsys_lib.compression.quantization.integer import IntegerDense

_NO_ACTIVATION, _RELU = 0, 1  # ActivationFunctionType in LiteRT's schema


def read_litert_dense(
    source: str | os.PathLike[str] | bytes, requantization: str = "single"
) -> dict[str, IntegerDense]:
    """Read codes, scales and zero points of all 8-bit dense layers out of a LiteRT file.

    The layers compute what LiteRT computes, bit for bit: its reference kernels with
    ``requantization="single"``, its built-in kernels without delegate (ruy) with "double", and its
    default, the XNNPACK delegate on x86, with "float".

    Args:
        source: path or content of a ``.tflite`` file with int8 arithmetic.
        requantization: "single", "double" or "float".

    Returns:
        Layers by the name of their output tensor, in the order of the file.

    Raises:
        ValueError: a file without dense layers in int8, or one with another activation than relu.

    Example:
        ``read_litert_dense("ranker.tflite", "float")`` gives layers to be called on int8 codes.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    interpreter = Interpreter(
        model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_REF
    )
    interpreter.allocate_tensors()
    tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    layers = {}
    for (inputs, kernel, *rest), output, activation in _dense_operations(content):
        if tensors[inputs]["dtype"] != np.int8 or tensors[kernel]["dtype"] != np.int8:
            continue
        name = str(tensors[output]["name"])
        if activation not in (_NO_ACTIVATION, _RELU):
            raise ValueError(f"layer {name!r} has activation {activation}: expected relu or none")
        codes = interpreter.get_tensor(kernel).T
        has_bias = bool(rest) and rest[0] >= 0
        layers[name] = IntegerDense(
            np.ascontiguousarray(codes),
            tensors[kernel]["quantization_parameters"]["scales"],
            interpreter.get_tensor(rest[0]) if has_bias else np.zeros(codes.shape[1], np.int32),
            _grid(tensors[inputs]),
            _grid(tensors[output]),
            relu=activation == _RELU,
            requantization=requantization,
        )
    if not layers:
        raise ValueError("source has no dense layer in int8: expected a file quantized to int8")
    return layers


def _dense_operations(content: bytes) -> Iterator[tuple[list[int], int, int]]:
    """Give the input tensors, the output tensor and the fused activation of each dense layer."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content)
    graph = model.Subgraphs(0)
    for number in range(graph.OperatorsLength()):
        operation = graph.Operators(number)
        code = model.OperatorCodes(operation.OpcodeIndex())
        if code.BuiltinCode() == schema.BuiltinOperator.FULLY_CONNECTED:
            table, options = operation.BuiltinOptions(), schema.FullyConnectedOptions()
            options.Init(table.Bytes, table.Pos)
            inputs = [int(index) for index in operation.InputsAsNumpy()]
            yield inputs, int(operation.Outputs(0)), int(options.FusedActivationFunction())


def _grid(tensor: dict[str, Any]) -> Grid:
    scale, zero_point = tensor["quantization"]
    return Grid(np.float32(scale), int(zero_point), -128, 127)
