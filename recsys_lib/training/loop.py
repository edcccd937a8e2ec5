"""The compiled loop: one call of one graph trains a whole epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from recsys_lib import objectives
from recsys_lib.data import Interactions
from recsys_lib.training.forward import embedding_tables, make_forward
from recsys_lib.training.gradients import add_shrinkage, combine_repeated_rows
from recsys_lib.training.sampling import uniform_negatives

OBJECTIVES = ("sigmoid_cross_entropy", "squared_error", "bpr", "sampled_softmax")


class EpochResult(NamedTuple):
    """Sum of the objective over the rows visited, and the number of updates made."""

    loss_sum: float
    steps: int


def num_drawn(objective: str, negatives_per_positive: int) -> int:
    """Give the number of items drawn per interaction: none where ratings are the labels.

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

    An epoch ends at once when the objective is no longer finite.

    Args:
        model: maps ``[user_ids, item_ids]``, each (n,) int32, to (n,) logits.
        optimizer: a Keras optimizer, built on the model's trainable variables.
        interactions: what to train on.
        objective: one of :data:`OBJECTIVES`.
        batch_size: interactions per update; the last batch of an epoch may be smaller.
        negatives_per_positive: m, items drawn per interaction.
        l2: strength of the shrinkage, 0 or more.
        seed: of the draws.
        jit_compile: compile the update with XLA, which fuses its steps: two to four times faster,
            after about a second of compiling.

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
    variables = model.trainable_variables
    tables = embedding_tables(model) if l2 else []
    forward = make_forward(model)
    num_gathered = batch_size * (1 + num_negatives)

    @tf.function(autograph=False, jit_compile=jit_compile)
    def update(batch_users: Any, candidates: Any, batch_ratings: Any) -> Any:
        num_batch = tf.shape(batch_users)[0]
        with tf.GradientTape() as tape:
            losses = _losses(objective, forward(batch_users, candidates), batch_ratings)  # (b,)
            scaled = optimizer.scale_loss(tf.reduce_mean(losses))
        gradients = [
            combine_repeated_rows(gradient, (*variable.shape, 1)[0], num_gathered)
            for gradient, variable in zip(tape.gradient(scaled, variables), variables, strict=True)
        ]
        used = {
            "users": tf.repeat(batch_users, 1 + num_negatives),
            "items": tf.reshape(candidates, [-1]),
        }
        strength = optimizer.scale_loss(l2 / tf.cast(num_batch, tf.float32))
        for position, side in tables:
            table = variables[position]
            gradients[position] = add_shrinkage(gradients[position], table, used[side], strength)
        optimizer.apply(gradients, variables)
        return tf.reduce_sum(losses)

    @tf.function(autograph=False)
    def run_epoch(order: Any, epoch: Any) -> Any:
        columns = [tf.gather(x, order) for x in (users, items, ratings) if x is not None]

        def body(step: Any, loss_sum: Any) -> Any:
            rows = slice(step * batch_size, (step + 1) * batch_size)  # the end is clipped
            batch_users, batch_items = columns[0][rows], columns[1][rows]
            batch_ratings = None if ratings is None else columns[2][rows]
            candidates = batch_items[:, None]  # (b, 1)
            if num_negatives:
                global_step = epoch * num_steps + tf.cast(step, tf.int64)
                negatives = uniform_negatives(
                    tf.shape(batch_users)[0], num_negatives, num_items, seed, global_step
                )
                candidates = tf.concat([candidates, negatives], axis=1)  # (b, 1 + m)
            loss = update(batch_users, candidates, batch_ratings)
            return step + 1, loss_sum + tf.cast(loss, tf.float64)

        return tf.while_loop(
            lambda step, loss_sum: (step < num_steps) & tf.math.is_finite(loss_sum),
            body,
            (tf.constant(0), tf.constant(0.0, tf.float64)),
        )

    def run(order: Any, epoch: int) -> EpochResult:
        steps, loss_sum = run_epoch(tf.constant(order), tf.constant(epoch, tf.int64))
        return EpochResult(float(loss_sum), int(steps))

    return run


def _losses(objective: str, logits: Any, ratings: Any) -> Any:
    """Give one loss per interaction, (b,), from logits (b, 1 + m), the interaction's own first."""
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
