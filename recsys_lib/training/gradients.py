"""Gradients of embedding tables, made ready for an optimizer."""

from __future__ import annotations

from typing import Any


def combine_repeated_rows(gradient: Any, num_rows: int, num_gathered: int) -> Any:
    """Add up the gradient rows that belong to the same row of an embedding table.

    The gradient of a gather lists one row per gathered id, so an id that occurs twice in a batch is
    listed twice. Keras 3 optimizers square such a list entry by entry: Adam and Adagrad then
    accumulate ``a^2 + b^2`` where the gradient is ``a + b`` (measured with Keras 3.15: for two
    gradients of 1, Adagrad moves by ``-2 / sqrt(2)`` instead of -1). Here they are added up first:
    into a dense gradient where the table is small, into a list without repeats where it is large.

    Args:
        gradient: a tensor, ``tf.IndexedSlices`` of a table (num_rows, d), or None.
        num_rows: rows of the table; not looked at for a tensor.
        num_gathered: largest number of ids gathered in a batch; see :func:`is_large`.

    Returns:
        The same gradient without repeated rows; tensors and None as they are.

    Example:
        >>> import tensorflow as tf
        >>> repeated = tf.IndexedSlices(
        ...     tf.constant([[1.0], [1.0]]), tf.constant([2, 2]), tf.constant([3, 1])
        ... )
        >>> combine_repeated_rows(repeated, num_rows=3, num_gathered=2).numpy().ravel().tolist()
        [0.0, 0.0, 2.0]
    """
    import tensorflow as tf

    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    if is_large(num_rows, num_gathered):
        ids, position = tf.unique(gradient.indices)
        rows = tf.math.unsorted_segment_sum(gradient.values, position, tf.shape(ids)[0])
        return tf.IndexedSlices(rows, ids, gradient.dense_shape)
    return tf.math.unsorted_segment_sum(gradient.values, gradient.indices, num_rows)


def is_large(num_rows: int, num_gathered: int) -> bool:
    """Tell whether a gradient keeps the form of a list: four times more rows than a batch gathers.

    Example:
        >>> is_large(1000, 200), is_large(1000, 250)
        (True, False)
    """
    return num_rows > 4 * num_gathered


def add_shrinkage(gradient: Any, table: Any, ids: Any, strength: Any) -> Any:
    """Add the gradient of ``strength / 2 * sum over ids of |table[id]|^2``.

    That is ``strength * (times the id occurs) * table[id]`` in each row: counting is much cheaper
    than differentiating the sum over gathered rows.

    Args:
        gradient: of the table, from :func:`combine_repeated_rows`.
        table: (rows, d) variable.
        ids: (n,) the rows that were used, with repeats.
        strength: number or scalar tensor.

    Returns:
        A gradient of the same form.

    Example:
        >>> import tensorflow as tf
        >>> zero, table = tf.zeros((3, 1)), tf.Variable([[1.0], [2.0], [4.0]])
        >>> add_shrinkage(zero, table, tf.constant([2, 0, 2]), 0.5).numpy().ravel().tolist()
        [0.5, 0.0, 4.0]
    """
    import tensorflow as tf

    num_rows = table.shape[0]
    ones = tf.ones_like(ids, tf.float32)
    times = tf.math.unsorted_segment_sum(ones, ids, num_rows)
    if isinstance(gradient, tf.IndexedSlices):
        rows = tf.gather(tf.convert_to_tensor(table), gradient.indices)
        factor = strength * tf.gather(times, gradient.indices)[:, None]
        return tf.IndexedSlices(
            gradient.values + tf.cast(factor, rows.dtype) * rows,
            gradient.indices,
            gradient.dense_shape,
        )
    values = tf.convert_to_tensor(table)
    return gradient + tf.cast(strength * times[:, None], values.dtype) * values
