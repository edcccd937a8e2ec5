"""Keras layers that train on fake-quantized numbers, or that round their inputs anew.

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
from recsys_lib.compression.quantization.uniform import UniformTensor

# Sums of products of whole numbers below 128 are exact in float32 up to this many inputs.
_EXACT_INPUTS = (1 << 24) // (127 * 127)


class _Quantized:
    """What both layers share: settings that are saved with them, and the scales of weights."""

    quantization: dict[str, Any]

    def __init__(self, *args: Any, quantization: dict[str, Any], **options: Any) -> None:
        super().__init__(*args, **options)
        self.quantization = dict(quantization)

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()  # type: ignore[misc]
        config.pop("quantization_config", None)
        return {**config, "quantization": dict(self.quantization)}

    def save_own_variables(self, store: Any) -> None:
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store: Any) -> None:
        keras.layers.Layer.load_own_variables(self, store)

    def _add_weight_scale(self: Any, name: str, shape: tuple[int, int]) -> None:
        options = {"initializer": "zeros", "name": f"{name}_log_scale"}
        self.weight_log_scale = self.add_weight(shape=shape, **options)

    def _weight_codes(self, weights: Any, scale: Any) -> Any:
        if self.quantization["keep_zeros"]:
            weights = weights * ops.stop_gradient(ops.cast(weights != 0, weights.dtype))
        low, high = code_range(self.quantization["bits"], narrow=True)
        return fake_quant_codes(weights, Grid(scale, 0, low, high))

    def _scale(self, log_scale: Any) -> Any:
        return ops.exp(self.quantization["scale_rate"] * log_scale)

    def set_weight_scales(self: Any, scales: Any) -> None:
        """Start the learned scales."""
        self.weight_log_scale.assign(np.log(scales) / self.quantization["scale_rate"])

    def weight_grid(self: Any) -> Grid:
        """Return the grid of the weights: scales (rows, 1) of a table, (1, units) of a kernel."""
        low, high = code_range(self.quantization["bits"], narrow=True)
        scale = self.weight_scale(self.weight_log_scale)
        return Grid(ops.convert_to_numpy(scale), np.int32(0), low, high)


@keras.saving.register_keras_serializable(package="recsys_lib")
class FakeQuantEmbedding(_Quantized, keras.layers.Embedding):
    """An embedding table whose rows are rounded, each with a scale of its own, when looked up.

    Args:
        quantization: bits, scale_rate, keep_zeros.
        **options: of ``keras.layers.Embedding``.
    """

    def build(self, input_shape: Any = None) -> None:
        """Add the table and its scales (rows, 1)."""
        if not self.built:
            super().build(input_shape)
            self._add_weight_scale("embeddings", (self.input_dim, 1))

    def call(self, inputs: Any) -> Any:
        """Return the rows (n, d) of ids (n,)."""
        ids = ops.cast(inputs, "int32")
        scale = self.weight_scale(ops.take(self.weight_log_scale, ids, axis=0))
        return self._weight_codes(ops.take(self.embeddings, ids, axis=0), scale) * scale

    def weight_scale(self, log_scale: Any) -> Any:
        """Round to the float16 that is stored, straight through; its least number at least."""
        scale = self._scale(log_scale)
        stored = ops.cast(ops.cast(ops.maximum(scale, 2.0**-24), "float16"), "float32")
        return scale + ops.stop_gradient(stored - scale)


@keras.saving.register_keras_serializable(package="recsys_lib")
class FakeQuantDense(_Quantized, keras.layers.Dense):
    """A dense layer on rounded inputs, a rounded kernel (a scale per output) and a rounded bias.

    It computes on whole numbers, as :class:`IntegerDense` does later: the step of a sum of
    products is input scale times kernel scale, and the bias is rounded to that.

    Args:
        quantization: bits, activation_bits, scale_rate, keep_zeros, quantize_output (whether the
            outputs are rounded, too).
        **options: of ``keras.layers.Dense``.
    """

    def build(self, input_shape: Any) -> None:
        """Add kernel, bias, and what is learned of the scales."""
        super().build(input_shape)
        self._add_weight_scale("kernel", (1, self.units))
        self.ranges = {}
        for side in ("input", "output")[: 1 + self.quantization["quantize_output"]]:
            self.ranges[side] = [
                self.add_weight(
                    shape=(), initializer="zeros", name=f"{side}_{name}", trainable=trainable
                )
                for name, trainable in (("log_scale", True), ("zero_point", False))
            ]

    def call(self, inputs: Any, training: Any = None) -> Any:
        """Map (n, inputs) to (n, units)."""
        grid, scale = self._grid("input"), self.weight_scale(self.weight_log_scale)
        unit = grid.scale * scale  # (1, units)
        sums = ops.matmul(fake_quant_codes(inputs, grid), self._weight_codes(self.kernel, scale))
        if self.bias is not None:
            sums = sums + round_straight_through(self.bias / unit)
        outputs = sums * unit
        if self.activation is not None:
            outputs = self.activation(outputs)
        if self.quantization["quantize_output"]:
            grid = self._grid("output")
            outputs = fake_quant_codes(outputs, grid) * grid.scale
        return outputs

    def weight_scale(self, log_scale: Any) -> Any:
        """Return the scale of each output."""
        return self._scale(log_scale)

    def _grid(self, side: str) -> Grid:
        log_scale, zero_point = self.ranges[side]
        codes = code_range(self.quantization["activation_bits"])
        return Grid(self._scale(log_scale), zero_point, *codes)

    def set_range(self, side: str, minimum: float, maximum: float) -> None:
        """Start the range of "input" or "output"; it is made to hold 0."""
        bits = self.quantization["activation_bits"]
        grid = nudged_grid(min(minimum, 0.0), max(maximum, 0.0), bits)
        log_scale, zero_point = self.ranges[side]
        log_scale.assign(np.log(grid.scale) / self.quantization["scale_rate"])
        zero_point.assign(grid.zero_point)

    def activation_grid(self, side: str) -> Grid | None:
        """Return the grid of "input" or "output"; None where it is not rounded."""
        if side not in self.ranges:
            return None
        grid = self._grid(side)
        scale, zero = (np.asarray(ops.convert_to_numpy(x)) for x in grid[:2])
        return Grid(np.float32(scale), np.int32(zero), grid.low, grid.high)


class DynamicDense(keras.layers.Dense):
    """A dense layer with an int8 kernel; see :func:`quantize_dynamic`. It does not train."""

    def build(self, input_shape: Any) -> None:
        """Add kernel codes (inputs, units), their scales (1, units) and the bias."""
        options = {"trainable": False, "initializer": "zeros"}
        shape = (input_shape[-1], self.units)
        self.kernel_codes = self.add_weight(shape=shape, dtype="int8", name="kernel", **options)
        self.kernel_scale = self.add_weight(shape=(1, self.units), name="scale", **options)
        if self.use_bias:
            self.bias = self.add_weight(shape=(self.units,), name="bias", **options)
        self.built = True

    def set_quantized(self, kernel: UniformTensor, bias: Any = None) -> None:
        """Take over a symmetric 8-bit kernel with a scale for each column, and a bias."""
        self.kernel_codes.assign((kernel.codes.astype(np.int16) - 127).astype(np.int8))
        self.kernel_scale.assign(kernel.scale)
        if bias is not None:
            self.bias.assign(bias.decode())

    def call(self, inputs: Any, training: Any = None) -> Any:
        """Return activation(inputs @ kernel + bias): (..., inputs) to (..., units)."""
        scale = ops.max(ops.abs(inputs), axis=-1, keepdims=True) / 127.0
        codes = ops.round(inputs / ops.where(scale > 0, scale, 1.0))
        # Floating-point units add whole numbers exactly while they are small enough.
        exact = "float32" if self.kernel_codes.shape[0] <= _EXACT_INPUTS else "float64"
        sums = ops.matmul(ops.cast(codes, exact), ops.cast(self.kernel_codes, exact))
        result = ops.cast(sums, "float32") * scale * self.kernel_scale
        if self.use_bias:
            result = result + self.bias
        return result if self.activation is None else self.activation(result)
