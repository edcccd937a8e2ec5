"""A Keras rating model as something with ``score``, for evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_PAIRS_PER_BATCH = 1 << 16


class KerasScorer:
    """Scores pairs with a Keras model, compiled, in batches; follows the model's weights.

    Args:
        model: maps ``[user_ids, item_ids]``, each (n,) int32, to (n,) logits.

    Example:
        >>> import keras
        >>> inputs = [keras.Input((), dtype="int32"), keras.Input((), dtype="int32")]
        >>> rows = [keras.layers.Embedding(3, 2)(x) for x in inputs]
        >>> model = keras.Model(inputs, keras.ops.sum(rows[0] * rows[1], axis=-1))
        >>> KerasScorer(model).score([0, 1], [2, 2]).shape
        (2,)
    """

    def __init__(self, model: Any) -> None:
        import tensorflow as tf

        self.model = model
        ids = tf.TensorSpec([None], tf.int32)

        @tf.function(autograph=False, input_signature=[ids, ids])
        def forward(user_ids: Any, item_ids: Any) -> Any:
            return tf.cast(model([user_ids, item_ids], training=False), tf.float32)

        # One signature, compiled once: TensorFlow need not watch for further ones.
        self._forward = forward.get_concrete_function()

    def score(self, user_ids: ArrayLike, item_ids: ArrayLike) -> NDArray[np.float32]:
        """Score pairs: two (n,) integer arrays to (n,) float32 logits.

        Raises:
            ValueError: the arrays are not one-dimensional or differ in length, or the model does
                not return one number per pair.
        """
        import tensorflow as tf

        users, items = np.asarray(user_ids), np.asarray(item_ids)
        if users.ndim != 1 or users.shape != items.shape:
            raise ValueError(
                f"user_ids has shape {users.shape}, item_ids {items.shape}: expected (n,) twice"
            )
        scores = np.empty(len(users), np.float32)
        for start in range(0, len(users), _PAIRS_PER_BATCH):
            rows = slice(start, start + _PAIRS_PER_BATCH)
            logits = self._forward(
                tf.constant(users[rows], tf.int32), tf.constant(items[rows], tf.int32)
            )
            if logits.shape != users[rows].shape:
                raise ValueError(
                    f"model returned shape {tuple(logits.shape)} for {len(users[rows])} pairs: "
                    f"expected ({len(users[rows])},)"
                )
            scores[rows] = logits.numpy()
        return scores
