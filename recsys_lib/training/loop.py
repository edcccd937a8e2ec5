"""The compiled loop: one call of one graph trains a whole epoch."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from recsys_lib import objectives
from recsys_lib.data import Interactions
from recsys_lib.training.forward import embedding_tables, make_forward
from recsys_lib.training.sampling import uniform_negatives

OBJECTIVES = ("sigmoid_cross_entropy", "squared_error", "bpr", "sampled_softmax")


class Batch(NamedTuple):
    """What an extra loss is given at each update, all tensors of the graph.

    Args:
        user_ids: (b,) int32, the users of the batch; b is smaller in the last batch.
        item_ids: (b, 1 + m) int32, the item of each interaction, then those drawn for it.
        logits: (b, 1 + m) float32, the model's, with gradients.
        step: scalar int64, number of the update since the start of the run: the seed of a draw.
    """

    user_ids: Any
    item_ids: Any
    logits: Any
    step: Any


class EpochResult(NamedTuple):
    """Sum of the loss over the rows visited, and the number of updates made."""

    loss_sum: float
    steps: int


def num_drawn(objective: str, negatives_per_positive: int) -> int:
    """Return the number of items drawn per interaction: none where ratings are the labels.

    Example:
        >>> num_drawn("bpr", 3), num_drawn("squared_error", 3)
        (3, 0)
    """
    return 0 if objective == "squared_error" else negatives_per_positive


def compile_epoch(
    model: Any,
    optimizer: Any,
    interactions: Interactions,
    *,
    objective: str,
    batch_size: int,
    negatives_per_positive: int,
    l2: float,
    seed: int,
    jit_compile: bool = False,
    extra_loss: Callable[[Batch], Any] | None = None,
    objective_weight: float = 1.0,
) -> Callable[[Any, int], EpochResult]:
    """Build the function that trains ``model`` for one epoch, in place.

    For each batch of ``b`` interactions one update is made, along the gradient of::

        1/b * sum over interactions of [ objective + l2/2 * sum of |e|^2 ]

    where ``e`` runs over the rows of embedding tables that are looked up for an interaction and
    each of its negatives (a user's row therefore ``1 + m`` times), so that an id is shrunk as often
    as it is used. With plain SGD at a learning rate of ``b * eta`` this is the mini-batch form of
    the update, with rate ``eta``, of Rendle et al. 2020. The objectives, with the logit ``x`` of an
    interaction, those of its ``m`` negatives ``x_j``, and its rating ``r``:

    - "sigmoid_cross_entropy": ``softplus(-x) + sum_j softplus(x_j)``
    - "bpr": ``sum_j softplus(x_j - x)``
    - "sampled_softmax": ``-x + log(exp(x) + sum_j exp(x_j))``
    - "squared_error": ``(r - x)^2``, without negatives

    With an extra loss, ``objective_weight * objective`` takes the place of the objective, and
    ``extra_loss(batch)`` is added to the sum. So are the losses that both bring along, as Keras'
    own ``fit`` adds them: regularizers of layers and what layers give to ``add_loss``.

    An epoch ends at once when the loss is no longer finite. It is run in parts of about a quarter
    of a second, between which Python hears signals such as Ctrl-C; they change no number.

    Args:
        model: maps ``[user_ids, item_ids]``, each (n,) int32, to (n,) logits.
        optimizer: a Keras optimizer, built on the model's trainable variables.
        interactions: what to train on.
        objective: one of :data:`OBJECTIVES`.
        batch_size: interactions per update; the last batch of an epoch may be smaller.
        negatives_per_positive: m, items drawn per interaction.
        l2: strength of the shrinkage, 0 or more.
        seed: of the draws.
        jit_compile: compile the whole update with XLA, see :func:`recsys_lib.training.fit`.
        extra_loss: maps a :class:`Batch` to one more loss, a scalar; called in the graph, under
            the tape. It may have ``trainable_variables``, trained along with the model's, and
            ``after_update()``, called in the graph after each update. None changes nothing.
        objective_weight: 0 or more; other than 1 only with an extra loss.

    Returns:
        ``run(order, epoch)``: ``order`` (n,) row numbers, ``epoch`` counted from 0.

    Raises:
        ValueError: l2 is asked for and the model has no embedding tables that can be found.

    Source:
        Rendle et al., *Neural Collaborative Filtering vs. Matrix Factorization Revisited*,
        RecSys 2020, section 3.1 and appendix A.
    """
    import tensorflow as tf

    num_steps = -(-len(interactions) // batch_size)
    num_items = interactions.num_items
    num_negatives = num_drawn(objective, negatives_per_positive)
    users = tf.constant(interactions.user_ids, tf.int32)
    items = tf.constant(interactions.item_ids, tf.int32)
    ratings = None if num_negatives else tf.constant(interactions.ratings)
    variables = trained_variables(model, extra_loss)
    after_update = getattr(extra_loss, "after_update", lambda: None)
    tables = embedding_tables(model) if l2 else []
    num_gathered: float = batch_size * (1 + num_negatives)
    if optimizer.loss_scale_factor:  # Keras cannot scale gradients that are lists
        num_gathered = np.inf
    large = any(is_large((*v.shape, 1)[0], num_gathered) for v in variables)
    forward = make_forward(model, len(interactions) >= 50_000 and not large)  # fewer: not worth it

    graphs: list[Any] = []  # that are being traced

    @tf.function(autograph=False, jit_compile=jit_compile)
    def update(batch_users: Any, candidates: Any, batch_ratings: Any, *step: Any) -> Any:
        graphs.append(tf.compat.v1.get_default_graph())
        num_batch = tf.shape(batch_users)[0]
        with tf.GradientTape() as tape:
            logits = forward(batch_users, candidates)
            losses = row_losses(objective, logits, batch_ratings)  # (b,)
            brought = list(getattr(model, "losses", ()))  # another call would begin anew
            if extra_loss is not None:
                extra = _scalar(extra_loss(Batch(batch_users, candidates, logits, *step)))
                losses = objective_weight * losses + extra  # its mean: the extra loss once
            for own in (*brought, *getattr(extra_loss, "losses", ())):
                losses += tf.cast(tf.reduce_sum(own), tf.float32)
            scaled = optimizer.scale_loss(tf.reduce_mean(losses))
        gradients = [
            combine_repeated_rows(gradient, (*variable.shape, 1)[0], num_gathered)
            for gradient, variable in zip(tape.gradient(scaled, variables), variables, strict=True)
        ]
        strength = optimizer.scale_loss(l2 / tf.cast(num_batch, tf.float32))
        used = {
            "users": (batch_users, (1 + num_negatives) * strength),
            "items": (tf.reshape(candidates, [-1]), strength),
        }
        for position, side in tables:
            now = gradients[position], variables[position], *used[side]
            gradients[position] = add_shrinkage(*now)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        after_update()
        return tf.reduce_sum(losses)

    @tf.function(autograph=False)
    def run_part(columns: Any, epoch: Any, first: Any, end: Any, loss_sum: Any) -> Any:
        def body(step: Any, loss_sum: Any) -> Any:
            rows = slice(step * batch_size, (step + 1) * batch_size)  # the end is clipped
            batch_users, batch_items, *batch_ratings = (column[rows] for column in columns)
            candidates = batch_items[:, None]  # (b, 1)
            global_step = epoch * num_steps + tf.cast(step, tf.int64)
            if num_negatives:
                num_batch = tf.shape(batch_users)[0]
                drawn = uniform_negatives(num_batch, num_negatives, num_items, seed, global_step)
                candidates = tf.concat([candidates, drawn], axis=1)  # (b, 1 + m)
            counted = () if extra_loss is None else (global_step,)
            loss = update(batch_users, candidates, (*batch_ratings, None)[0], *counted)
            return step + 1, loss_sum + tf.cast(loss, tf.float64)

        def goes_on(step: Any, loss_sum: Any) -> Any:
            return (step < end) & tf.math.is_finite(loss_sum)

        return tf.while_loop(goes_on, body, (first, loss_sum))

    part = 1  # updates in a call, about a quarter of a second's
    traced: Any = None

    def run(order: Any, epoch: int) -> EpochResult:
        nonlocal part, traced
        columns = [tf.gather(x, order) for x in (users, items, ratings) if x is not None]
        number, step = tf.constant(epoch, tf.int64), tf.constant(0)
        loss_sum = tf.constant(0.0, tf.float64)
        while step < num_steps and tf.math.is_finite(loss_sum):
            start, end = time.perf_counter(), min(int(step) + part, num_steps)
            now = columns, number, step, tf.constant(end), loss_sum
            if traced is None:  # once: TensorFlow need not watch for further ones
                traced = run_part.get_concrete_function(*now)
                _forget_gradients(graphs)
            step, loss_sum = traced(*now)
            seconds = time.perf_counter() - start
            part = 2 * part if seconds < 0.1 else part if seconds < 0.4 else -(-part // 2)
        return EpochResult(float(loss_sum), int(step))

    return run


def _forget_gradients(graphs: list[Any]) -> None:
    """Take the custom gradients of traced graphs off TensorFlow's list, which would keep them.

    Each of them holds tensors of its graph for ever, also one that an optimizer brings along. The
    kernels of graphs that are gone are forgotten, too.
    """
    from tensorflow import nest
    from tensorflow.python.eager import context
    from tensorflow.python.framework import ops

    context.context().clear_kernel_cache()

    known = getattr(getattr(ops, "gradient_registry", None), "_registry", {})
    for name in [x for x in known if x.startswith("CustomGradient-")]:
        own = inspect.getclosurevars(known[name]["type"]).nonlocals.get("tape_grad_fn")
        result = inspect.getclosurevars(own).nonlocals.get("result") if own else None
        if any(getattr(x, "graph", None) in graphs for x in nest.flatten(result)):
            del known[name]
    graphs.clear()


def trained_variables(model: Any, extra_loss: Any = None) -> list[Any]:
    """Return what an optimizer trains: the model's variables, then those of the extra loss.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> len(trained_variables(build_rating_model(RatingModelConfig("dot_product", 2, 3, 4))))
        2
    """
    return [*model.trainable_variables, *getattr(extra_loss, "trainable_variables", ())]


def combine_repeated_rows(gradient: Any, num_rows: int, num_gathered: float) -> Any:
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


def is_large(num_rows: int, num_gathered: float) -> bool:
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

    ones, values = tf.ones_like(ids, tf.float32), tf.convert_to_tensor(table)
    times = strength * tf.math.unsorted_segment_sum(ones, ids, table.shape[0])[:, None]
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient + tf.cast(times, values.dtype) * values
    rows, times = (tf.gather(x, gradient.indices) for x in (values, times))
    shrunk = gradient.values + tf.cast(times, rows.dtype) * rows
    return tf.IndexedSlices(shrunk, gradient.indices, gradient.dense_shape)


def _scalar(loss: Any) -> Any:
    """Check the shape of an extra loss: one per row would be weighed by another number of rows."""
    import tensorflow as tf

    loss = tf.convert_to_tensor(loss)
    if loss.shape.rank != 0:
        raise ValueError(f"extra_loss returned shape {loss.shape}: expected a scalar, ()")
    return tf.cast(loss, tf.float32)


def row_losses(objective: str, logits: Any, ratings: Any) -> Any:
    """Return one loss per interaction, (b,), from logits (b, 1 + m) with its own first."""
    import tensorflow as tf

    positive, negative = logits[:, 0], logits[:, 1:]
    if objective == "squared_error":
        return objectives.squared_error(ratings, positive)
    if objective == "sampled_softmax":
        return objectives.sampled_softmax(positive, negative)
    if objective == "bpr":
        against = tf.broadcast_to(positive[:, None], tf.shape(negative))  # (b, m)
        return tf.reduce_sum(objectives.bpr(against, negative), axis=1)
    labels = tf.concat([tf.ones_like(positive)[:, None], tf.zeros_like(negative)], axis=1)
    return tf.reduce_sum(objectives.sigmoid_cross_entropy(labels, logits), axis=1)
