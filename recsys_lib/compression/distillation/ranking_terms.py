"""Terms that teach the order of the teacher's best items."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys_lib.compression.distillation import methods, ranking, soft_labels
from recsys_lib.compression.distillation.student import Student
from recsys_lib.compression.distillation.teacher import TeacherScores
from recsys_lib.compression.distillation.term import UserTerm
from recsys_lib.data import Interactions
from recsys_lib.training.sampling import uniform_negatives


class RankingTerm(UserTerm):
    """The term of ``RankingDistillation``."""

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


class CollaborativeTerm(UserTerm):
    """The term of ``CollaborativeDistillation``."""

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
        """Draw new items."""
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


class RelaxedRankingTerm(UserTerm):
    """The term of ``RelaxedRankingDistillation``."""

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
        """Draw new items."""
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
