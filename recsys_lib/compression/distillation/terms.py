"""The teacher's part of the loss: one term for each method, for the compiled training loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.compression.distillation import methods, ranking, soft_labels
from recsys_lib.compression.distillation.ensemble import standardized
from recsys_lib.compression.distillation.experts import Experts
from recsys_lib.compression.distillation.ranking_terms import (
    CollaborativeTerm,
    RankingTerm,
    RelaxedRankingTerm,
)
from recsys_lib.compression.distillation.student import Student
from recsys_lib.compression.distillation.teacher import TeacherScores
from recsys_lib.compression.distillation.term import Term, UserTerm
from recsys_lib.data import Interactions
from recsys_lib.training.loop import Batch


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
        return RankingTerm(method, teacher, student, interactions, seed)
    if isinstance(method, methods.CollaborativeDistillation):
        return CollaborativeTerm(method, teacher, student, interactions, seed)
    if isinstance(method, methods.RelaxedRankingDistillation):
        return RelaxedRankingTerm(method, teacher, student, interactions, seed)
    if isinstance(method, methods.DistillationExperts):
        return _ExpertsTerm(method, teacher, student, seed)
    raise TypeError(f"method is of type {type(method).__name__}: expected SoftLabels, for example")


class _SoftLabelTerm(UserTerm):
    def __init__(
        self, method: methods.SoftLabels, teacher: TeacherScores, student: Student, seed: int
    ) -> None:
        import tensorflow as tf

        super().__init__(teacher.num_users, method.users_per_update, seed)
        self._student, self._loss = student, _soft_loss(method)
        self._num_items, self._drawn = teacher.num_items, method.items_per_update
        if self._drawn is not None and self._drawn > teacher.num_items:
            raise ValueError(
                f"items_per_update is {self._drawn}: expected at most the {teacher.num_items} items"
            )
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
        if self._drawn is not None:
            items = self._draw(step)  # (items_per_update,)
            wanted = tf.gather(wanted, items, axis=1)
            return self._loss(wanted, self._student.score_all(users, items))
        if self._items is None:
            return self._loss(wanted, self._student.score_all(users))
        return self._loss(wanted, self._student.score(users, tf.gather(self._items, users)))

    def _draw(self, step: Any) -> Any:
        """Give different items, drawn anew for each update."""
        import tensorflow as tf

        stream = tf.stack([tf.constant(self._seed + 1, tf.int64), tf.cast(step, tf.int64)])
        keys = tf.random.stateless_uniform([self._num_items], stream)
        return tf.math.top_k(keys, self._drawn, sorted=False).indices


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
