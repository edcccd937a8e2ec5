"""What every term of the teacher's loss has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from recsys_lib.training.loop import Batch
from recsys_lib.training.sampling import uniform_negatives


class Term(ABC):
    """A loss of a batch; :meth:`start_epoch` may draw anew what it is about.

    Attributes:
        trainable_variables: trained along with the student's.
    """

    def __init__(self) -> None:
        self.trainable_variables: list[Any] = []

    @abstractmethod
    def __call__(self, batch: Batch) -> Any:
        """Give a scalar, inside the graph."""

    def start_epoch(self, epoch: int, epochs: int) -> None:  # noqa: B027 (most have nothing to do)
        """Get ready for an epoch, counted from 0, of so many."""


class WeightedTerms(Term):
    """The sum of several terms, each times its weight.

    Example:
        >>> WeightedTerms([], []).trainable_variables
        []
    """

    def __init__(self, terms: Sequence[Term], weights: Sequence[float]) -> None:
        super().__init__()
        self._terms = list(zip(terms, weights, strict=True))
        self.trainable_variables = [v for term in terms for v in term.trainable_variables]

    def __call__(self, batch: Batch) -> Any:
        """Give the weighted sum."""
        return sum(weight * term(batch) for term, weight in self._terms)

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Get every term ready."""
        for term, _ in self._terms:
            term.start_epoch(epoch, epochs)


class UserTerm(Term):
    """A loss on users drawn for each update, uniformly and with repeats."""

    def __init__(self, num_users: int, users_per_update: int, seed: int) -> None:
        super().__init__()
        self._num_users, self._users, self._seed = num_users, users_per_update, seed

    def __call__(self, batch: Batch) -> Any:
        """Give the mean loss of the drawn users."""
        import tensorflow as tf

        users = uniform_negatives(1, self._users, self._num_users, self._seed, batch.step)[0]
        return tf.reduce_mean(self._losses(users, batch.step))

    @abstractmethod
    def _losses(self, users: Any, step: Any) -> Any:
        """Give the losses of (b,) users in the ``step``-th update, to be averaged."""

    def _rng(self, epoch: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, epoch, 7])
