"""The Keras layer of dynamic-range quantization. Imports Keras: imported where it is used."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from recsys_lib.compression.quantization.uniform import UniformTensor
from recsys_lib.compression.tensors import EncodedTensor

# Sums of products of whole numbers below 128 are exact in float32 up to this many inputs.
_EXACT_INPUTS = (1 << 24) // (127 * 127)


class DynamicDense(keras.layers.Dense):
    """A dense layer with an int8 kernel; see :func:`quantize_dynamic`. It does not train."""

    def build(self, input_shape: Any) -> None:
        """Add kernel codes (inputs, units), their scales (units,) and the bias."""
        shape = (input_shape[-1], self.units)
        options = {"trainable": False, "initializer": "zeros"}
        self.kernel_codes = self.add_weight(shape=shape, dtype="int8", name="kernel", **options)
        self.kernel_scale = self.add_weight(shape=(self.units,), name="scale", **options)
        if self.use_bias:
            self.bias = self.add_weight(shape=(self.units,), name="bias", **options)
        self.built = True

    def set_quantized(self, kernel: UniformTensor, bias: EncodedTensor | None = None) -> None:
        """Take over a symmetric 8-bit kernel and a bias."""
        self.kernel_codes.assign((kernel.codes.astype(np.int16) - 127).astype(np.int8))
        self.kernel_scale.assign(np.broadcast_to(kernel.scale.reshape(-1), (self.units,)))
        if bias is not None:
            self.bias.assign(bias.decode())

    def call(self, inputs: Any, training: Any = None) -> Any:
        """Give activation(inputs @ kernel + bias): (..., inputs) to (..., units)."""
        scale = ops.max(ops.abs(inputs), axis=-1, keepdims=True) / 127.0
        codes = ops.round(inputs / ops.where(scale > 0, scale, 1.0))
        # Floating-point units add whole numbers exactly while they are small enough.
        exact = "float32" if self.kernel_codes.shape[0] <= _EXACT_INPUTS else "float64"
        sums = ops.matmul(ops.cast(codes, exact), ops.cast(self.kernel_codes, exact))
        result = ops.cast(sums, "float32") * scale * self.kernel_scale
        if self.use_bias:
            result = result + self.bias
        return result if self.activation is None else self.activation(result)
