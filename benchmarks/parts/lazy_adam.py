"""Adam that moves only the rows that a batch touched; chapter 15 explains it."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class LazyAdam(keras.optimizers.Adam):
    """Adam whose moments and weights rest in rows without a gradient."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Move one table."""
        place = self._get_variable_index(variable)
        tables = [variable, self._momentums[place].value, self._velocities[place].value]
        step = tf.cast(self.iterations.value + 1, tf.float32)
        rate = tf.cast(learning_rate, tf.float32) * tf.sqrt(1 - self.beta_2**step)
        rate /= 1 - self.beta_1**step
        is_list = isinstance(gradient, tf.IndexedSlices)
        g = gradient.values if is_list else gradient
        x, m, v = (tf.gather(t, gradient.indices) if is_list else tf.identity(t) for t in tables)
        m_new = m + (1 - self.beta_1) * (g - m)
        v_new = v + (1 - self.beta_2) * (g * g - v)
        x_new = x - rate * m_new / (tf.sqrt(v_new) + self.epsilon)
        touched = tf.reduce_any(g != 0, axis=-1, keepdims=True)
        for table, new, old in zip(tables, (x_new, m_new, v_new), (x, m, v), strict=True):
            if is_list:
                table.scatter_nd_update(gradient.indices[:, None], new)
            else:
                table.assign(tf.where(touched, new, old))
