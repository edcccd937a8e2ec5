"""A rating model in integer arithmetic, with its weights packed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_pairs
from recsys_lib.compression.compressed import CompressedModel
from recsys_lib.compression.quantization.fake_quant import Grid, quantize_to_grid
from recsys_lib.compression.quantization.integer import IntegerDense, to_grid

_PAIRS_PER_BATCH = 1 << 14


class Codes(NamedTuple):
    """Whole numbers (n, d) and what 1 stands for: a scale that broadcasts against them."""

    codes: NDArray[Any]
    scale: NDArray[Any]


Value = Codes | NDArray[Any]  # float32 (n, ...) where they are not whole
Operation = Callable[..., Value]


class Step(NamedTuple):
    """A layer of the model: its name, those it reads, its arithmetic."""

    name: str
    inputs: tuple[str, ...]
    operation: Operation


@dataclass(frozen=True, eq=False, repr=False)
class IntegerModel(CompressedModel):
    """A model whose dense layers multiply 8-bit codes and add up in 32 bits; made by `convert`.

    Scores are sums in 32 bits times a scale, float32; nothing rounds them.

    Args:
        tensors, model, report: as for CompressedModel; ``model`` is the float32 model with the
            rounded weights, which computes the same without rounding what lies between layers.
        steps: what is computed, in order.
        input_names: of the model's inputs.
        layers: the integer dense layers by name.
        num_rows: ids that each input may have, 0 for an input that is no id.
    """

    steps: tuple[Step, ...]
    input_names: tuple[str, ...]
    layers: dict[str, IntegerDense]
    num_rows: tuple[int, ...]

    def __call__(self, inputs: Sequence[ArrayLike]) -> NDArray[np.float32]:
        """Return the outputs (n, ...) for one array (n, ...) for each input of the model."""
        return to_real(self.run(inputs)[self.steps[-1].name])

    def run(self, inputs: Sequence[ArrayLike]) -> dict[str, Value]:
        """Return what each layer gives, by name: (codes, scale), or float32 numbers."""
        values: dict[str, Value] = dict(zip(self.input_names, map(np.asarray, inputs), strict=True))
        for step in self.steps:
            values[step.name] = step.operation(*(values[name] for name in step.inputs))
        return values

    def score(self, user_ids: ArrayLike, item_ids: ArrayLike) -> NDArray[np.float32]:
        """Score pairs (n,), (n,) to (n,).

        Raises:
            ValueError: arrays of different lengths, or an id out of range.
        """
        users, items = check_pairs(user_ids, item_ids, *self.num_rows)
        scores = np.empty(len(users), np.float32)
        for start in range(0, len(users), _PAIRS_PER_BATCH):
            rows = slice(start, start + _PAIRS_PER_BATCH)
            scores[rows] = self([users[rows], items[rows]]).reshape(-1)
        return scores

    def score_all_items(self, user_ids: ArrayLike) -> NDArray[np.float32]:
        """Score all items for users (b,): (b, num_items) float32."""
        users, num_items = np.asarray(user_ids), self.num_rows[1]
        pairs = np.repeat(users, num_items), np.tile(np.arange(num_items), len(users))
        return self.score(*pairs).reshape(len(users), num_items)

    def __repr__(self) -> str:
        return f"IntegerModel({len(self.layers)} dense layers, {self.report!r})"


def operation_of(layer: Any) -> Operation:
    """Return the arithmetic of a layer without weights, one that `quantization_aware` lets pass."""
    kind = type(layer).__name__
    if kind == "Rescaling":
        return lambda value: to_real(value) * np.float32(layer.scale) + np.float32(layer.offset)
    if kind in ("Reshape", "Flatten"):
        return lambda value: _reshape(value, layer.output.shape[1:])
    if kind == "ReLU" or (kind == "Activation" and layer.activation.__name__ == "relu"):
        return relu
    known = {"Concatenate": concatenate, "Multiply": multiply, "Dot": dot, "Add": add}
    return known.get(kind, lambda value: value)


def to_real(value: Value) -> NDArray[np.float32]:
    """Return the numbers that are meant."""
    product = value.codes * value.scale if isinstance(value, Codes) else value
    return np.asarray(product, np.float32)


def to_codes(value: Value, grid: Grid, requantization: str) -> NDArray[np.int8]:
    """Round to a grid: integers by requantization, float numbers as fake quantization does."""
    if isinstance(value, Codes):
        return to_grid(value.codes, value.scale, grid, requantization)
    return quantize_to_grid(value, grid).astype(np.int8)


def apply_dense(layer: IntegerDense, value: Value) -> Value:
    """Round to the layer's input grid, then sums; to its output grid where it has one."""
    codes = to_codes(value, layer.input_grid, layer.requantization)
    sums = Codes(layer.sums(codes), layer.unit_scale[None, :])
    if layer.output_grid is None:
        return sums
    grid = layer.output_grid
    centred = to_codes(sums, grid, layer.requantization).astype(np.int32) - int(grid.zero_point)
    return Codes(centred, np.asarray(grid.scale, np.float32).reshape(1, 1))


def relu(value: Value) -> Value:
    """Set what is below 0 to 0; scales are positive."""
    if isinstance(value, Codes):
        return Codes(np.maximum(value.codes, 0), value.scale)
    return np.maximum(value, np.float32(0))


def concatenate(*values: Value) -> Value:
    """Join side by side, without rounding: each number keeps its scale."""
    if not all(isinstance(value, Codes) for value in values):
        return np.concatenate([to_real(value) for value in values], axis=1)
    scales = [np.broadcast_to(scale, codes.shape) for codes, scale in values]
    return Codes(np.concatenate([codes for codes, _ in values], axis=1), np.hstack(scales))


def multiply(*values: Value) -> Value:
    """Multiply number by number: codes by codes, scales by scales."""
    result = values[0]
    for other in values[1:]:
        if isinstance(result, Codes) and isinstance(other, Codes):
            result = Codes(result.codes * other.codes, result.scale * other.scale)
        else:
            result = to_real(result) * to_real(other)
    return result


def dot(*values: Value) -> Value:
    """Sum products over the last axis: (n, d) twice to (n, 1)."""
    product = multiply(*values)
    if isinstance(product, Codes) and product.scale.shape[1] == 1:
        return Codes(product.codes.sum(axis=1, keepdims=True), product.scale)
    return to_real(product).sum(axis=1, keepdims=True)


def add(*values: Value) -> Value:
    """Add the real values, in float32: the terms have different scales."""
    return np.sum([to_real(value) for value in values], axis=0)


def _reshape(value: Value, shape: tuple[int, ...]) -> Value:
    if isinstance(value, Codes) and value.codes.shape[1:] == shape:
        return value
    real = to_real(value)
    return real.reshape(len(real), *shape)
