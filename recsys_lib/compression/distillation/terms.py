"""The teacher's part of the loss: one term for each method, for the compiled training loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.compression.distillation import methods, ranking, soft_labels
from recsys_lib.compression.distillation.ensemble import standardized
from recsys_lib.compression.distillation.experts import Experts
from recsys_lib.compression.distillation.student import Student
from recsys_lib.compression.distillation.teacher import TeacherScores
from recsys_lib.data import Interactions
from recsys_lib.training.loop import Batch
from recsys_lib.training.sampling import uniform_negatives


class Term:
    """A loss of a batch; :meth:`start_epoch` may draw anew what it is about.

    Attributes:
        trainable_variables: trained along with the student's.
    """

    def __init__(self) -> None:
        self.trainable_variables: list[Any] = []

    def __call__(self, batch: Batch) -> Any:
        """Give a scalar, inside the graph."""
        raise NotImplementedError

    def start_epoch(self, epoch: int, epochs: int) -> None:
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


def make_term(
    method: methods.Method,
    teacher: TeacherScores,
    student: Student,
    interactions: Interactions,
    seed: int,
) -> Term:
    """Build the term of a method.

    Args:
        method: its settings.
        teacher: what the teacher says.
        student: functions of the model in training.
        interactions: the training data, whose items are not in ranked lists.
        seed: of all draws.

    Raises:
        TypeError: no known method, or a teacher or student without hidden vectors for
            DistillationExperts.
    """
    if isinstance(method, methods.SoftLabels):
        return _SoftLabelTerm(method, teacher, student, seed)
    if isinstance(method, methods.RankingDistillation):
        return _RankingTerm(method, teacher, student, interactions, seed)
    if isinstance(method, methods.CollaborativeDistillation):
        return _CollaborativeTerm(method, teacher, student, interactions, seed)
    if isinstance(method, methods.RelaxedRankingDistillation):
        return _RelaxedRankingTerm(method, teacher, student, interactions, seed)
    if isinstance(method, methods.DistillationExperts):
        return _ExpertsTerm(method, teacher, student, seed)
    raise TypeError(f"method is of type {type(method).__name__}: expected SoftLabels, for example")


class _UserTerm(Term):
    """A loss on users drawn for each update, uniformly and with repeats."""

    def __init__(self, num_users: int, users_per_update: int, seed: int) -> None:
        super().__init__()
        self._num_users, self._users, self._seed = num_users, users_per_update, seed

    def __call__(self, batch: Batch) -> Any:
        import tensorflow as tf

        users = uniform_negatives(1, self._users, self._num_users, self._seed, batch.step)[0]
        return tf.reduce_mean(self._losses(users, batch.step))

    def _losses(self, users: Any, step: Any) -> Any:
        raise NotImplementedError

    def _rng(self, epoch: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, epoch, 7])


class _SoftLabelTerm(_UserTerm):
    def __init__(
        self, method: methods.SoftLabels, teacher: TeacherScores, student: Student, seed: int
    ) -> None:
        import tensorflow as tf

        super().__init__(teacher.num_users, method.users_per_update, seed)
        self._student, self._loss = student, _soft_loss(method)
        count = method.num_candidates
        self._items: Any = None
        if count is None or count >= teacher.num_items:
            scores = teacher.all_scores()
        else:
            items = _half_best(teacher, count, self._rng(0))
            scores, self._items = teacher.scores_of(items), tf.constant(items, tf.int32)
        self._scores = tf.constant(standardized(scores) if method.standardize else scores)

    def _losses(self, users: Any, step: Any) -> Any:
        import tensorflow as tf

        wanted = tf.gather(self._scores, users)  # (b, c)
        if self._items is None:
            return self._loss(wanted, self._student.score_all(users))
        return self._loss(wanted, self._student.score(users, tf.gather(self._items, users)))


def _soft_loss(method: methods.SoftLabels) -> Callable[[Any, Any], Any]:
    """Give the loss of (b, c) teacher and student scores: (b,) or (b, c), to be averaged."""
    if method.loss == "regression":
        return soft_labels.score_regression
    loss = {
        "listwise": soft_labels.softmax_kl_divergence,
        "binary": soft_labels.soft_sigmoid_cross_entropy,
    }[method.loss]
    return lambda teacher, student: loss(teacher, student, temperature=method.temperature)


def _half_best(teacher: TeacherScores, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Give (num_users, count) items: the teacher's best half, then others drawn from the rest."""
    best = teacher.best_items(count // 2)
    users = np.repeat(np.arange(teacher.num_users), best.shape[1])
    taken = ranking.pair_keys(teacher.num_items, users, best.ravel())
    rest = ranking.draw_outside(rng, teacher.num_items, count - count // 2, taken)
    return np.hstack([best.astype(np.int64), rest])


class _RankingTerm(_UserTerm):
    def __init__(
        self,
        method: methods.RankingDistillation,
        teacher: TeacherScores,
        student: Student,
        interactions: Interactions,
        seed: int,
    ) -> None:
        import tensorflow as tf

        super().__init__(teacher.num_users, method.users_per_update, seed)
        self._method, self._student, self._num_items = method, student, teacher.num_items
        self._lists = tf.constant(teacher.best_items(method.num_items, interactions))
        self._places = ranking.place_weights(method.num_items, method.decay)  # (K,)

    def _losses(self, users: Any, step: Any) -> Any:
        import tensorflow as tf

        count, drawn = self._method.num_items, self._method.num_sampled
        items = tf.gather(self._lists, users)  # (b, K)
        if drawn:
            others = uniform_negatives(
                self._users, drawn, self._num_items, self._seed + 1, step
            )  # (b, m)
            items = tf.concat([items, others], axis=1)
        logits = self._student.score(users, items)
        listed, others_logits = logits[:, :count], tf.stop_gradient(logits[:, count:])
        weights = tf.constant(self._places)[None, :]
        if drawn:
            above = others_logits[:, None, :] > tf.stop_gradient(listed)[:, :, None]  # (b, K, m)
            rank = tf.reduce_mean(tf.cast(above, tf.float32), axis=2) * self._num_items
            behind = tf.maximum(rank - tf.range(count, dtype=tf.float32), 0.0)
            weights = weights * tf.tanh(self._method.mu * behind)
            weights = weights / (tf.reduce_sum(weights, axis=1, keepdims=True) + 1e-9)
        weights = tf.broadcast_to(weights, tf.shape(listed))
        return ranking.weighted_positives_loss(listed, weights)


class _CollaborativeTerm(_UserTerm):
    def __init__(
        self,
        method: methods.CollaborativeDistillation,
        teacher: TeacherScores,
        student: Student,
        interactions: Interactions,
        seed: int,
    ) -> None:
        import tensorflow as tf

        super().__init__(teacher.num_users, method.users_per_update, seed)
        self._method, self._student = method, student
        self._pool = teacher.best_items(method.pool, interactions)  # (users, pool)
        self._pool_scores = teacher.scores_of(self._pool)
        shape = (teacher.num_users, method.num_items)
        self._items = tf.Variable(tf.zeros(shape, tf.int32))
        self._scores = tf.Variable(tf.zeros(shape))

    def start_epoch(self, epoch: int, epochs: int) -> None:
        ranks = ranking.draw_by_rank(
            self._rng(epoch),
            self._num_users,
            self._method.pool,
            self._method.num_items,
            self._method.decay,
        )
        self._items.assign(np.take_along_axis(self._pool, ranks, axis=1))
        self._scores.assign(np.take_along_axis(self._pool_scores, ranks, axis=1))

    def _losses(self, users: Any, step: Any) -> Any:
        import tensorflow as tf

        return soft_labels.soft_sigmoid_cross_entropy(
            tf.gather(self._scores, users),
            self._student.score(users, tf.gather(self._items, users)),
            temperature=self._method.temperature,
        )


class _RelaxedRankingTerm(_UserTerm):
    def __init__(
        self,
        method: methods.RelaxedRankingDistillation,
        teacher: TeacherScores,
        student: Student,
        interactions: Interactions,
        seed: int,
    ) -> None:
        import tensorflow as tf

        super().__init__(teacher.num_users, method.users_per_update, seed)
        self._method, self._student, self._num_items = method, student, teacher.num_items
        self._pool = teacher.best_items(method.pool, interactions)
        users = np.repeat(np.arange(teacher.num_users), method.pool)
        self._not_drawn = ranking.pair_keys(
            teacher.num_items,
            np.concatenate([users, interactions.user_ids]),
            np.concatenate([self._pool.ravel(), interactions.item_ids]),
        )
        width = method.num_interesting + method.num_uninteresting
        self._items = tf.Variable(tf.zeros((teacher.num_users, width), tf.int32))

    def start_epoch(self, epoch: int, epochs: int) -> None:
        rng, method = self._rng(epoch), self._method
        ranks = ranking.draw_by_rank(
            rng, self._num_users, method.pool, method.num_interesting, method.decay
        )
        interesting = np.take_along_axis(self._pool, ranks, axis=1)
        others = ranking.draw_outside(
            rng, self._num_items, method.num_uninteresting, self._not_drawn
        )
        self._items.assign(np.hstack([interesting, others]).astype(np.int32))

    def _losses(self, users: Any, step: Any) -> Any:
        import tensorflow as tf

        count = self._method.num_interesting
        logits = self._student.score(users, tf.gather(self._items, users))  # (b, K + L)
        return ranking.relaxed_ranking_loss(logits[:, :count], logits[:, count:]) / count


class _ExpertsTerm(Term):
    def __init__(
        self,
        method: methods.DistillationExperts,
        teacher: TeacherScores,
        student: Student,
        seed: int,
    ) -> None:
        import tensorflow as tf

        super().__init__()
        if student.user_vectors is None or student.item_vectors is None:
            raise TypeError(
                "student has no vector per user and item: DistillationExperts expected a model "
                "whose score is an inner product, such as dot_product or two_tower"
            )
        self._method = method
        self._temperature = tf.Variable(1.0)
        self._sides = []
        looks = student.user_vectors, student.item_vectors
        for number, (look, vectors) in enumerate(zip(looks, teacher.vectors(), strict=True)):
            width = look(tf.zeros((1,), tf.int32)).shape[1]
            experts = Experts(width, vectors.shape[1], method.num_experts, 2 * seed + number)
            self._sides.append((look, tf.constant(vectors), experts))
            self.trainable_variables += experts.variables

    def start_epoch(self, epoch: int, epochs: int) -> None:
        done = epoch / max(1, epochs - 1)
        self._temperature.assign(self._method.last_temperature**done)

    def __call__(self, batch: Batch) -> Any:
        import tensorflow as tf

        total = 0.0
        count = self._method.rows_per_update
        ids = batch.user_ids[:count], tf.reshape(batch.item_ids[:count, :2], [-1])
        for (look, vectors, experts), side in zip(self._sides, ids, strict=True):
            losses = experts.loss(
                look(side),
                tf.gather(vectors, side),
                temperature=self._temperature,
                step=batch.step,
            )
            total += tf.reduce_mean(losses)
        return total
