"""A student in training: its scores for some items or for all, and its hidden vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from recsys_lib.training.forward import make_forward, split_at_dot


class Student(NamedTuple):
    """How losses look at a student, inside a graph and under the tape.

    Args:
        score: (b,) user ids and (b, c) item ids to (b, c) logits.
        score_all: (b,) user ids to (b, num_items) logits; given (c,) item ids too, to (b, c).
        user_vectors: (b,) user ids to (b, d); None where the score is no inner product.
        item_vectors: (b,) item ids to (b, d); None likewise.
    """

    score: Callable[[Any, Any], Any]
    score_all: Callable[..., Any]
    user_vectors: Callable[[Any], Any] | None
    item_vectors: Callable[[Any], Any] | None


def look_at_student(model: Any, num_items: int) -> Student:
    """Build the functions that losses need from a Keras rating model, sharing its weights.

    Where the score is an inner product, all items of all users are one product of two matrices;
    any other model is called on every pair, which takes ``num_items`` times as long as one item.

    Args:
        model: maps ``[user_ids, item_ids]``, each (n,) int32, to (n,) logits.
        num_items: size of the catalogue.

    Example:
        >>> import numpy as np
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("dot_product", 2, 3, 4))
        >>> look_at_student(model, 3).score_all(np.array([1, 0])).shape
        TensorShape([2, 3])
    """
    import tensorflow as tf

    score = make_forward(model)
    parts = split_at_dot(model)
    all_items = tf.range(num_items, dtype=tf.int32)

    def all_pairs(user_ids: Any, item_ids: Any = all_items) -> Any:
        shape = [tf.shape(user_ids)[0], tf.shape(item_ids)[0]]
        return score(user_ids, tf.broadcast_to(item_ids[None, :], shape))

    if parts is None:
        return Student(score, all_pairs, None, None)

    def one_product(user_ids: Any, item_ids: Any = all_items) -> Any:
        rows, columns = tf.shape(user_ids)[0], tf.shape(item_ids)[0]
        users = parts.user_side(user_ids, training=True)  # (b, d)
        items = parts.item_side(item_ids, training=True)  # (c, d)
        dots = tf.reshape(tf.matmul(users, items, transpose_b=True), [-1, 1])  # (b c, 1)
        pairs = [dots, tf.repeat(user_ids, columns), tf.tile(item_ids, [rows])]
        logits = parts.rest(pairs, training=True)
        return tf.reshape(tf.cast(logits, tf.float32), [rows, columns])

    return Student(
        score,
        one_product,
        lambda ids: parts.user_side(ids, training=True),
        lambda ids: parts.item_side(ids, training=True),
    )
