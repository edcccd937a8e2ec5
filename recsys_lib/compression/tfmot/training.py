"""Training of a twin: the objective, the batches and the negatives of our own training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib import objectives
from recsys_lib.checks import check_choice, check_number
from recsys_lib.data import Interactions
from recsys_lib.training.sampling import epoch_order, uniform_negatives

_OBJECTIVES = ("sigmoid_cross_entropy", "squared_error")


@dataclass(frozen=True)
class TwinTraining:
    """How a twin is trained; as :func:`recsys_lib.training.fit`, with fewer choices.

    Args:
        epochs: passes over the data, 1 or more: TFMOT acts while it trains.
        batch_size: interactions per update.
        learning_rate: of the optimizer; 0 leaves the weights where they are, so that what TFMOT
            does to them is all that happens.
        optimizer: name that tf_keras knows.
        negatives_per_positive: items drawn per interaction; "squared_error" needs none.
        objective: "sigmoid_cross_entropy" or "squared_error".
        seed: of shuffles and draws.

    Raises:
        TypeError, ValueError: a number out of range, or an unknown objective.

    Example:
        >>> TwinTraining(objective="bpr")
        Traceback (most recent call last):
        ValueError: objective is 'bpr': expected one of sigmoid_cross_entropy, squared_error
    """

    epochs: int = 2
    batch_size: int = 8192
    learning_rate: float = 1e-3
    optimizer: str = "adam"
    negatives_per_positive: int = 4
    objective: str = "sigmoid_cross_entropy"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "negatives_per_positive"):
            check_number(name, getattr(self, name), 1, integer=True)
        check_number("learning_rate", self.learning_rate, 0)
        check_number("seed", self.seed, 0, integer=True)
        check_choice("objective", self.objective, _OBJECTIVES)


def num_updates(interactions: Interactions, options: TwinTraining) -> int:
    """Give the number of updates of a run."""
    return options.epochs * -(-len(interactions) // options.batch_size)


def check_data(interactions: Any, options: TwinTraining, config: Any) -> None:
    """Raise unless a model of config can be trained on interactions.

    Raises:
        TypeError: not Interactions.
        ValueError: no rows, other numbers of users or items, or ratings missing.
    """
    if not isinstance(interactions, Interactions):
        raise TypeError(
            f"interactions is of type {type(interactions).__name__}: expected Interactions "
            "(of a Split, pass .train)"
        )
    counts = interactions.num_users, interactions.num_items
    if not len(interactions) or counts != (config.num_users, config.num_items):
        raise ValueError(
            f"interactions has {len(interactions)} rows of {counts[0]} users and {counts[1]} "
            f"items: expected at least one, of {config.num_users} and {config.num_items}"
        )
    if options.objective == "squared_error" and interactions.ratings is None:
        raise ValueError("objective is 'squared_error', but interactions has no ratings")


def fit_twin(
    twin: Any, interactions: Interactions, options: TwinTraining, callbacks: Sequence[Any] = ()
) -> None:
    """Train a twin in place, on the same batches and draws as ``fit`` with the same seed.

    Raises:
        ValueError: an optimizer that tf_keras does not know.
        FloatingPointError: the loss or a weight is no longer finite.
    """
    import tf_keras

    per_row = 1
    if options.objective == "sigmoid_cross_entropy":
        per_row += options.negatives_per_positive
    elementwise = getattr(objectives, options.objective)
    try:
        optimizer = tf_keras.optimizers.get(options.optimizer)
    except ValueError as error:
        raise ValueError(
            f"optimizer is {options.optimizer!r}: expected a name that tf_keras knows, such as "
            "'adam' or 'sgd'"
        ) from error
    optimizer.learning_rate = options.learning_rate
    # The loss of an interaction is the sum over it and its negatives, as in our own training.
    twin.compile(optimizer=optimizer, loss=lambda y, z: per_row * elementwise(y, z))
    for epoch in range(options.epochs):
        users, items, labels = _epoch(interactions, options, epoch, per_row)
        run = twin.fit(
            [users, items],
            labels,
            batch_size=options.batch_size * per_row,
            shuffle=False,
            callbacks=list(callbacks),
            verbose=0,
        )
        if not all(np.isfinite(w).all() for w in (run.history["loss"], *twin.get_weights())):
            raise FloatingPointError(
                f"the loss or a weight is no longer finite in epoch {epoch + 1}, with learning "
                f"rate {options.learning_rate:.3g}: try {options.learning_rate / 10:.3g}"
            )


def _epoch(
    interactions: Interactions, options: TwinTraining, epoch: int, per_row: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Give users, items and labels of an epoch, batch after batch."""
    order = epoch_order(len(interactions), options.seed, epoch)
    users = np.repeat(interactions.user_ids[order].astype(np.int32), per_row)
    items = interactions.item_ids[order].astype(np.int32)
    if options.objective == "squared_error":
        assert interactions.ratings is not None
        return users, items, interactions.ratings[order].astype(np.float32)
    size, num_steps = options.batch_size, -(-len(order) // options.batch_size)
    candidates = np.empty((len(order), per_row), np.int32)
    candidates[:, 0] = items
    for step in range(num_steps):
        rows = candidates[step * size : (step + 1) * size]
        rows[:, 1:] = uniform_negatives(
            len(rows), per_row - 1, interactions.num_items, options.seed, epoch * num_steps + step
        )
    labels = np.zeros(candidates.shape, np.float32)
    labels[:, 0] = 1
    return users, candidates.ravel(), labels.ravel()
