"""How a rating model is run: in training, one user against several items; else, pairs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from recsys_lib.checks import Floats, check_pairs, check_process, check_shape

Forward = Callable[[Any, Any], Any]
SIDES = ("users", "items")
_PAIRS_PER_BATCH = 1 << 16


def make_forward(model: Any, compiled: bool = False) -> Forward:
    """Build a function that scores each user of a batch against several items.

    Where the model is an inner product of a user's and an item's side (one ``Dot`` layer in a
    functional model, as in the kinds dot_product, matrix_factorization and two_tower), each user's
    side is computed once and the products of all items of a user in one go: the same numbers up to
    rounding, two to three times faster. Any other model is called on all pairs.

    Args:
        model: a Keras model that maps ``[user_ids, item_ids]``, each (n,), to (n,) logits.
        compiled: where both sides are rows of float32 tables, look up, multiply and differentiate
            in programs that XLA compiles for tables and batches of one shape, once a process: twice
            as fast again. Their gradients are dense.

    Returns:
        ``forward(user_ids (b,), item_ids (b, k))``: (b, k) float32 logits, in training mode.

    Example:
        >>> import numpy as np
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("matrix_factorization", 2, 3, 4))
        >>> make_forward(model)(np.array([0, 1]), np.array([[0, 1, 2], [2, 1, 0]])).shape
        TensorShape([2, 3])
    """
    import tensorflow as tf

    parts: Any = split_at_dot(model)
    tables = None if parts is None or not compiled else _bare_tables(parts)

    def on_pairs(user_ids: Any, item_ids: Any) -> Any:
        width = item_ids.shape[1]
        logits = model([tf.repeat(user_ids, width), tf.reshape(item_ids, [-1])], training=True)
        return tf.reshape(tf.cast(logits, tf.float32), [-1, width])

    def in_parts(user_ids: Any, item_ids: Any) -> Any:
        width = item_ids.shape[1]
        flat_items = tf.reshape(item_ids, [-1])  # (b k,)
        if tables is not None:
            dots = _products()(*map(tf.convert_to_tensor, tables), user_ids, item_ids)  # (b, k)
        else:
            users = parts.user_side(user_ids, training=True)  # (b, d)
            items = parts.item_side(flat_items, training=True)  # (b k, d)
            if width == 1:
                dots = tf.reduce_sum(users * items, axis=1)  # much faster than a batch of products
            else:
                items = tf.reshape(items, [-1, width, items.shape[1]])  # (b, k, d)
                dots = tf.matmul(items, users[:, :, None])  # (b, k, 1)
        pairs = [tf.reshape(dots, [-1, 1]), tf.repeat(user_ids, width), flat_items]
        logits = parts.rest(pairs, training=True)
        return tf.reshape(tf.cast(logits, tf.float32), [-1, width])

    return on_pairs if parts is None else in_parts


class _Parts(NamedTuple):
    user_side: Any  # user ids (n,) -> (n, d)
    item_side: Any  # item ids (n,) -> (n, d)
    rest: Any  # [dot (n, 1), user ids (n,), item ids (n,)] -> (n,)


def _bare_tables(parts: _Parts) -> tuple[Any, Any] | None:
    """Return the tables of users and items, if a side is nothing but a row of such a table."""
    import keras

    layers = [x for side in (parts.user_side, parts.item_side) for x in side.layers[1:]]
    bare = [type(x) for x in layers] == 2 * [keras.layers.Embedding]
    if not bare or any(x.lora_enabled or x.dtype_policy.name != "float32" for x in layers):
        return None
    return layers[0].embeddings, layers[1].embeddings


@cache
def _products() -> Any:
    """Return the products (b, k) of rows of two tables, by user ids (b,) and item ids (b, k).

    What XLA has compiled stays until the process ends: here once for each shape, not for each run.
    """
    import tensorflow as tf

    @tf.function(autograph=False, jit_compile=True)
    def products(users: Any, items: Any, user_ids: Any, item_ids: Any) -> Any:
        return tf.reduce_sum(tf.gather(users, user_ids)[:, None] * tf.gather(items, item_ids), 2)

    @tf.function(autograph=False, jit_compile=True)
    def gradients(users: Any, items: Any, user_ids: Any, item_ids: Any, upstream: Any) -> Any:
        slopes = upstream[:, :, None]  # (b, k, 1)
        of_users = tf.reduce_sum(slopes * tf.gather(items, item_ids), 1)  # (b, d)
        of_items = tf.reshape(slopes * tf.gather(users, user_ids)[:, None], [-1, users.shape[1]])
        return (
            tf.math.unsorted_segment_sum(of_users, user_ids, users.shape[0]),
            tf.math.unsorted_segment_sum(of_items, tf.reshape(item_ids, [-1]), items.shape[0]),
        )

    @tf.custom_gradient
    def differentiable(*given: Any) -> Any:
        return products(*given), lambda upstream: (*gradients(*given, upstream), None, None)

    return differentiable


def split_at_dot(model: Any) -> _Parts | None:
    """Cut a functional model at its only Dot layer, sharing all weights; None if it has none."""
    import keras

    dots = [x for x in getattr(model, "layers", ()) if isinstance(x, keras.layers.Dot)]
    if len(dots) != 1 or dots[0].axes != 1 or dots[0].normalize or _acts_in_calls(model):
        return None
    inputs, sides = model.inputs, dots[0].input
    if len(inputs) != 2 or any(len(side.shape) != 2 for side in sides):
        return None
    # Keras notes a part's calls in the layers, and could not save the model with them.
    lists = [x for op in model.operations for x in (op._inbound_nodes, op._outbound_nodes)]
    lengths, histories = [len(x) for x in lists], [x._keras_history for x in inputs]
    try:
        return _Parts(
            keras.Model(inputs[0], sides[0]),
            keras.Model(inputs[1], sides[1]),
            keras.Model([dots[0].output, *inputs], model.outputs[0]),
        )
    except ValueError:  # a side needs both inputs, or the sides stand the other way round
        return None
    finally:
        for nodes, length in zip(lists, lengths, strict=True):
            del nodes[length:]
        for ids, history in zip(inputs, histories, strict=True):
            ids._keras_history = history


def _acts_in_calls(model: Any) -> bool:
    """Tell whether calls have side effects (add_loss), or are not those of a plain functional."""
    regularized = sum(v.regularizer is not None for v in model.trainable_variables)
    plain = type(model).call.__qualname__ == "Functional.call"
    return not plain or len(model.losses) > regularized


def embedding_tables(model: Any) -> list[tuple[int, str]]:
    """Find the tables that ids are looked up in.

    Args:
        model: a functional model with inputs for user ids and item ids.

    Returns:
        For each table, its position in ``model.trainable_variables`` and "users" or "items".

    Raises:
        ValueError: there is none that a model input feeds directly.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> embedding_tables(build_rating_model(RatingModelConfig("dot_product", 2, 3, 4)))
        [(0, 'users'), (1, 'items')]
    """
    import keras

    positions = {id(variable): n for n, variable in enumerate(model.trainable_variables)}
    looked_up = [(id(layer.embeddings), side) for layer, side in _lookups(model)]
    tables = [(positions[table], side) for table, side in looked_up if table in positions]
    known = {position for position, _ in tables}
    layers = [x for x in model._flatten_layers() if isinstance(x, keras.layers.Embedding)]
    for layer in layers:
        if layer.trainable and positions[id(layer.embeddings)] not in known:
            raise ValueError(f"l2: no input feeds {layer.name!r} directly: expected l2=0")
    if not tables:
        raise ValueError("l2: model has no Embedding layer that an input feeds: expected l2=0")
    return tables


def _lookups(model: Any) -> list[tuple[Any, str]]:
    """Return the Embedding layers that inputs feed directly, with "users" or "items", or twice."""
    import keras

    inputs = getattr(model, "inputs", None) or ()
    sides = {id(x): side for x, side in zip(inputs, SIDES, strict=False)}
    return [
        (layer, sides[id(node.input_tensors[0])])
        for layer in getattr(model, "layers", ())
        if isinstance(layer, keras.layers.Embedding)
        for node in layer._inbound_nodes
        if id(node.input_tensors[0]) in sides
    ]


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
        rows = {side: [1 << 31] for side in SIDES}
        for layer, side in _lookups(model):
            rows[side].append(layer.input_dim)
        self._counts = [min(rows[side]) for side in SIDES]

    def score(self, user_ids: ArrayLike, item_ids: ArrayLike) -> Floats:
        """Score pairs: two (n,) integer arrays to (n,) float32 logits.

        Raises:
            TypeError: ids are not integers.
            ValueError: an unknown id, not one dimension, or lengths differ.
            RuntimeError: in a forked process, where TensorFlow hangs.
        """
        import tensorflow as tf

        check_process()
        users, items = check_pairs(user_ids, item_ids, *self._counts)
        scores = np.empty(len(users), np.float32)
        for start in range(0, len(users), _PAIRS_PER_BATCH):
            rows = slice(start, start + _PAIRS_PER_BATCH)
            pairs = (tf.constant(ids[rows], tf.int32) for ids in (users, items))
            logits = self._forward(*pairs)
            check_shape("model's output", logits, users[rows].shape)
            scores[rows] = logits.numpy()
        return scores
