"""What lies between integer layers: concatenation, products and sums of codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_lib.compression.quantization.fake_quant import Grid, quantize_to_grid
from recsys_lib.compression.quantization.integer import IntegerDense, to_grid


class Piece(NamedTuple):
    """Whole numbers (n, d) and what 1 stands for: a scale that broadcasts against them."""

    codes: NDArray[Any]
    scale: NDArray[Any]


# Integers with their scales, side by side along the last axis; or float32 (n, ...), as they are.
Value = list[Piece] | NDArray[Any]
Operation = Callable[[Sequence[Value]], Value]


def operation_of(layer: Any) -> Operation:
    """Give the arithmetic of a layer without weights, one that ``aware_graph`` lets pass."""
    kind = type(layer).__name__
    if kind == "Rescaling":
        return lambda inputs: (
            to_real(inputs[0]) * np.float32(layer.scale) + np.float32(layer.offset)
        )
    if kind in ("Reshape", "Flatten"):
        shape = layer.output.shape[1:]
        return lambda inputs: _reshape(inputs[0], shape)
    if kind in ("ReLU", "Activation") and _is_relu(layer):
        return lambda inputs: relu(inputs[0])
    return {"Concatenate": concatenate, "Multiply": multiply, "Dot": dot, "Add": add}.get(
        kind, lambda inputs: inputs[0]
    )


def _is_relu(layer: Any) -> bool:
    return type(layer).__name__ == "ReLU" or layer.activation.__name__ == "relu"


def to_real(value: Value) -> NDArray[np.float32]:
    """Give the numbers that are meant."""
    if isinstance(value, np.ndarray):
        return value.astype(np.float32)
    parts = [(codes * scale).astype(np.float32) for codes, scale in value]
    return np.concatenate(parts, axis=1)


def to_codes(value: Value, grid: Grid, requantization: str) -> NDArray[np.int8]:
    """Round to a grid: integers by requantization, float numbers as fake quantization does."""
    if isinstance(value, np.ndarray):
        return quantize_to_grid(value, grid).astype(np.int8)
    parts = [to_grid(codes, scale, grid, requantization) for codes, scale in value]
    return np.concatenate(parts, axis=1)


def apply_dense(layer: IntegerDense, value: Value) -> Value:
    """Round to the layer's input grid, then sums; to its output grid where it has one."""
    codes = to_codes(value, layer.input_grid, layer.requantization)
    sums = [Piece(layer.sums(codes), layer.unit_scale[None, :])]
    if layer.output_grid is None:
        return sums
    grid = layer.output_grid
    centred = to_codes(sums, grid, layer.requantization).astype(np.int32) - int(grid.zero_point)
    return [Piece(centred, np.asarray(grid.scale, np.float32).reshape(1, 1))]


def relu(value: Value) -> Value:
    """Set what is below 0 to 0; scales are positive."""
    if isinstance(value, np.ndarray):
        return np.maximum(value, np.float32(0))
    return [Piece(np.maximum(codes, 0), scale) for codes, scale in value]


def concatenate(inputs: Sequence[Value]) -> Value:
    """Lay side by side, without rounding: each piece keeps its scale."""
    if any(isinstance(value, np.ndarray) for value in inputs):
        return np.concatenate([to_real(value) for value in inputs], axis=1)
    return [piece for value in inputs for piece in value]


def multiply(inputs: Sequence[Value]) -> Value:
    """Multiply number by number: codes by codes, scales by scales."""
    result = inputs[0]
    for other in inputs[1:]:
        if isinstance(result, np.ndarray) or isinstance(other, np.ndarray):
            result = to_real(result) * to_real(other)
        else:
            (codes, scale), (factors, factor_scale) = _join(result), _join(other)
            result = [Piece(codes * factors, scale * factor_scale)]
    return result


def dot(inputs: Sequence[Value]) -> Value:
    """Sum products over the last axis: (n, d) twice to (n, 1)."""
    product = multiply(inputs)
    if isinstance(product, np.ndarray):
        return product.sum(axis=1, keepdims=True)
    codes, scale = product[0]
    if scale.shape[1] == 1:
        return [Piece(codes.sum(axis=1, keepdims=True), scale)]
    return (codes * scale).sum(axis=1, keepdims=True).astype(np.float32)


def add(inputs: Sequence[Value]) -> Value:
    """Add what is meant, in float32: the terms have different scales."""
    return np.sum([to_real(value) for value in inputs], axis=0)


def _reshape(value: Value, shape: tuple[int, ...]) -> Value:
    if not isinstance(value, np.ndarray) and value[0].codes.shape[1:] == shape:
        return value
    real = to_real(value)
    return real.reshape(len(real), *shape)


def _join(value: list[Piece]) -> Piece:
    if len(value) == 1:
        return value[0]
    codes = np.concatenate([piece.codes for piece in value], axis=1)
    scales = [np.broadcast_to(piece.scale, piece.codes.shape) for piece in value]
    return Piece(codes, np.concatenate(scales, axis=1))
