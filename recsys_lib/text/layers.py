"""The two layers of a sentence encoder that Keras does not have in this form.

Importing this module imports Keras, and registers the layers, so that a saved model finds them.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

_MASKED = -1e9  # a logit that no softmax notices


@keras.saving.register_keras_serializable(package="recsys_lib")
class SelfAttention(keras.layers.Layer):
    """Each token takes up the others' values, weighted by how well its query fits their keys.

    ``softmax(Q K' / sqrt(d_head)) V`` in each of several heads, which share out the dimensions.
    There are no weights in it: queries, keys and values come from dense layers, which can be
    pruned and quantized like any others.

    Args:
        num_heads: heads; must divide the dimensions.
        **options: of ``keras.layers.Layer``.
    """

    def __init__(self, num_heads: int, **options: Any) -> None:
        super().__init__(**options)
        self.num_heads = num_heads

    def call(self, inputs: list[Any]) -> Any:
        """Take [queries, keys, values (n, t, d), mask (n, t)]; give (n, t, d)."""
        *projections, mask = inputs
        query, key, value = (self._split(x, mask) for x in projections)  # (n, h, t, d / h)
        logits = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))  # (n, h, t, t)
        logits = logits / query.shape[-1] ** 0.5
        missing = 1.0 - ops.cast(mask, logits.dtype)
        missing = ops.expand_dims(missing, (1, 2))  # (n, 1, 1, t); LiteRT knows no [:, None]
        weights = ops.softmax(logits + _MASKED * missing)
        mixed = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))  # (n, t, h, d / h)
        # Sizes come from the mask: ONNX's converter confuses those of the projections.
        return ops.reshape(mixed, (*ops.shape(mask), projections[0].shape[-1]))

    def _split(self, x: Any, mask: Any) -> Any:
        """(n, t, d) to (n, h, t, d / h)."""
        width = x.shape[-1] // self.num_heads
        parts = ops.reshape(x, (*ops.shape(mask), self.num_heads, width))
        return ops.transpose(parts, (0, 2, 1, 3))

    def compute_output_shape(self, input_shape: list[Any]) -> Any:
        """Give the shape of the queries."""
        return input_shape[0]

    def get_config(self) -> dict[str, Any]:
        """Give what the layer is made from."""
        return {**super().get_config(), "num_heads": self.num_heads}


@keras.saving.register_keras_serializable(package="recsys_lib")
class MeanOfTokens(keras.layers.Layer):
    """The mean of the tokens that are there, scaled to length 1: (n, t, d), (n, t) to (n, d)."""

    def call(self, inputs: list[Any]) -> Any:
        """Take [tokens (n, t, d), mask (n, t)]; give (n, d)."""
        tokens, mask = inputs
        present = ops.expand_dims(ops.cast(mask, tokens.dtype), 2)  # (n, t, 1)
        mean = ops.sum(tokens * present, axis=1) / ops.maximum(ops.sum(present, axis=1), 1e-9)
        length = ops.sqrt(ops.sum(mean * mean, axis=-1, keepdims=True))
        return mean / ops.maximum(length, 1e-12)

    def compute_output_shape(self, input_shape: list[Any]) -> Any:
        """Give (n, d)."""
        tokens = input_shape[0]
        return (tokens[0], tokens[2])
