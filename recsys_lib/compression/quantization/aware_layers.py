"""Dense and Embedding layers that train on fake-quantized numbers.

Importing this module imports Keras, and registers the layers, so that ``keras.models.load_model``
finds them.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from recsys_lib.compression.quantization.fake_quant import (
    Grid,
    code_range,
    fake_quant_codes,
    nudged_grid,
    round_straight_through,
)


class _Quantized:
    """What both layers share: settings that are saved with them, and all of their variables."""

    quantization: dict[str, Any]

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()  # type: ignore[misc]
        config.pop("quantization_config", None)
        return {**config, "quantization": dict(self.quantization)}

    def save_own_variables(self, store: Any) -> None:
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store: Any) -> None:
        keras.layers.Layer.load_own_variables(self, store)

    def _add_weight_scale(self: Any, name: str, shape: tuple[int, int]) -> None:
        self.scale_name, self.weight_log_scale = name, None
        if self.quantization["scales"] == "learned":
            self.weight_log_scale = self.add_weight(
                shape=shape, initializer="zeros", name=f"{name}_log_scale"
            )

    def _weight_codes(self: Any, weights: Any, scale: Any) -> Any:
        if self.quantization["keep_zeros"]:
            weights = weights * ops.stop_gradient(ops.cast(weights != 0, weights.dtype))
        low, high = code_range(self.quantization["bits"], narrow=True)
        return fake_quant_codes(weights, Grid(scale, 0, low, high))

    def _weight_scale(self: Any, weights: Any, log_scale: Any, axis: int) -> Any:
        """Learned, or the largest magnitude over the highest code."""
        if log_scale is not None:
            return ops.exp(self.quantization["scale_rate"] * log_scale)
        high = code_range(self.quantization["bits"])[1]
        scale = ops.stop_gradient(ops.max(ops.abs(weights), axis=axis, keepdims=True)) / high
        widest = ops.max(scale)  # for what is all zero
        return ops.where(scale > 0, scale, ops.where(widest > 0, widest, 1.0))

    def set_weight_scales(self: Any, scales: Any) -> None:
        """Start learned scales; tracked ones follow the weights."""
        if self.weight_log_scale is not None:
            self.weight_log_scale.assign(np.log(scales) / self.quantization["scale_rate"])


def _as_float16(scale: Any) -> Any:
    """Round to what is stored, straight through; the least float16 number above 0 at least."""
    stored = ops.cast(ops.cast(ops.maximum(scale, 2.0**-24), "float16"), "float32")
    return scale + ops.stop_gradient(stored - scale)


@keras.saving.register_keras_serializable(package="recsys_lib")
class FakeQuantEmbedding(_Quantized, keras.layers.Embedding):
    """An embedding table whose rows are rounded, each with a scale of its own, when looked up.

    Args:
        quantization: bits, scales ("learned", "tracked"), scale_rate, keep_zeros.
        **options: of ``keras.layers.Embedding``.
    """

    def __init__(self, *args: Any, quantization: dict[str, Any], **options: Any) -> None:
        super().__init__(*args, **options)
        self.quantization = dict(quantization)

    def build(self, input_shape: Any = None) -> None:
        """Add the table and, where they are learned, its scales (rows, 1)."""
        if not self.built:
            super().build(input_shape)
            self._add_weight_scale("embeddings", (self.input_dim, 1))

    def call(self, inputs: Any) -> Any:
        """Look ids (n,) up: (n, d)."""
        ids = ops.cast(inputs, "int32")
        rows = ops.take(self.embeddings, ids, axis=0)
        log_scale = self.weight_log_scale
        scale = self._weight_scale(
            rows, None if log_scale is None else ops.take(log_scale, ids, axis=0), axis=-1
        )
        scale = _as_float16(scale)
        return self._weight_codes(rows, scale) * scale

    def weight_grid(self) -> Grid:
        """Give the grid of the table: scales (rows, 1), all of them float16 numbers."""
        scale = _as_float16(self._weight_scale(self.embeddings, self.weight_log_scale, axis=1))
        low, high = code_range(self.quantization["bits"], narrow=True)
        return Grid(ops.convert_to_numpy(scale), np.int32(0), low, high)


@keras.saving.register_keras_serializable(package="recsys_lib")
class FakeQuantDense(_Quantized, keras.layers.Dense):
    """A dense layer on rounded inputs, a rounded kernel (a scale per output) and a rounded bias.

    It computes on whole numbers, as :class:`IntegerDense` does later: the step of a sum of
    products is input scale times kernel scale, and the bias is rounded to that.

    Args:
        quantization: bits, activation_bits, scales ("learned", "tracked"), scale_rate, momentum,
            keep_zeros, quantize_output (whether the outputs are rounded, too).
        **options: of ``keras.layers.Dense``.
    """

    def __init__(self, *args: Any, quantization: dict[str, Any], **options: Any) -> None:
        super().__init__(*args, **options)
        self.quantization = dict(quantization)

    def build(self, input_shape: Any) -> None:
        """Add kernel, bias, and what is learned or tracked of the scales."""
        super().build(input_shape)
        self._add_weight_scale("kernel", (1, self.units))
        self.ranges = {}
        for side in ("input", "output")[: 1 + self.quantization["quantize_output"]]:
            if self.quantization["scales"] == "learned":
                names = ("log_scale", True), ("zero_point", False)
            else:
                names = ("minimum", False), ("maximum", False)
            self.ranges[side] = [
                self.add_weight(
                    shape=(), initializer="zeros", name=f"{side}_{name}", trainable=trainable
                )
                for name, trainable in names
            ]

    def call(self, inputs: Any, training: Any = None) -> Any:
        """Map (n, inputs) to (n, units)."""
        grid = self._activation_grid("input", inputs, training)
        scale = self._weight_scale(self.kernel, self.weight_log_scale, axis=0)
        unit = grid.scale * scale  # (1, units)
        sums = ops.matmul(fake_quant_codes(inputs, grid), self._weight_codes(self.kernel, scale))
        if self.bias is not None:
            sums = sums + round_straight_through(self.bias / unit)
        outputs = sums * unit
        if self.activation is not None:
            outputs = self.activation(outputs)
        if self.quantization["quantize_output"]:
            grid = self._activation_grid("output", outputs, training)
            outputs = fake_quant_codes(outputs, grid) * grid.scale
        return outputs

    def _activation_grid(self, side: str, values: Any, training: Any) -> Grid:
        low, high = code_range(self.quantization["activation_bits"])
        first, second = self.ranges[side]
        if self.quantization["scales"] == "learned":
            return Grid(ops.exp(self.quantization["scale_rate"] * first), second, low, high)
        if training:
            momentum = self.quantization["momentum"]
            for variable, now in ((first, ops.min(values)), (second, ops.max(values))):
                edge = ops.stop_gradient(now)
                variable.assign(momentum * variable + (1 - momentum) * edge)
        # The arithmetic of nudged_grid, on tensors.
        least, most = ops.minimum(first, 0.0), ops.maximum(second, 0.0)
        scale = (most - least) / (high - low)
        scale = ops.where(scale > 0, scale, 1.0)
        return Grid(scale, low + ops.floor(-least / scale + 0.5), low, high)

    def set_range(self, side: str, minimum: float, maximum: float) -> None:
        """Start the range of "input" or "output"; it is made to hold 0."""
        low_edge, high_edge = min(minimum, 0.0), max(maximum, 0.0)
        first, second = self.ranges[side]
        if self.quantization["scales"] == "learned":
            grid = nudged_grid(low_edge, high_edge, self.quantization["activation_bits"])
            first.assign(np.log(grid.scale) / self.quantization["scale_rate"])
            second.assign(grid.zero_point)
        else:
            first.assign(low_edge)
            second.assign(high_edge)

    def weight_grid(self) -> Grid:
        """Give the grid of the kernel: scales (1, units)."""
        scale = self._weight_scale(self.kernel, self.weight_log_scale, axis=0)
        low, high = code_range(self.quantization["bits"], narrow=True)
        return Grid(ops.convert_to_numpy(scale), np.int32(0), low, high)

    def activation_grid(self, side: str) -> Grid | None:
        """Give the grid of "input" or "output"; None where it is not rounded."""
        if side not in self.ranges:
            return None
        grid = self._activation_grid(side, None, training=False)
        scale, zero = (np.asarray(ops.convert_to_numpy(x)) for x in grid[:2])
        return Grid(np.float32(scale), np.int32(zero), grid.low, grid.high)
