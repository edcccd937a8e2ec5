"""Methods that teach the order of the teacher's best items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys_lib.checks import Ids, store_numbers
from recsys_lib.compression.distillation.losses import (
    relaxed_ranking_loss,
    soft_sigmoid_cross_entropy,
)
from recsys_lib.compression.distillation.methods import (
    Lesson,
    Method,
    Term,
    draw_outside,
    pair_keys,
    term_over_users,
)
from recsys_lib.training.sampling import uniform_negatives


@dataclass(frozen=True)
class RankingDistillation(Method):
    """The teacher's best unseen items count as liked, the first most of all.

    For each of some users, with the teacher's list ``i_1 .. i_K`` of items that the user has not
    met: ``- sum over r of w_r log sigmoid(s(i_r))``. The weights ``w_r`` sum to 1 and follow
    ``exp(-r / decay) * tanh(max(mu * (rank(i_r) - r), 0))``: important are items high in the
    teacher's list that the student ranks lower. The student's rank is estimated from
    ``num_sampled`` drawn items; with 0 of them the second factor is left out.

    Args:
        weight: share of the teacher, in [0, 1].
        num_items: K, length of the list.
        decay: ranks after which a position's importance has fallen to 1/e.
        mu: sharpness of the second factor.
        num_sampled: items drawn to estimate the student's rank.
        users_per_update: users drawn for each update.

    Raises:
        TypeError: an argument is not of the type named.
        ValueError: an argument is out of range.

    Source:
        Tang & Wang, *Ranking Distillation*, KDD 2018, equations 5 to 9.

    Example:
        >>> RankingDistillation(num_items=10).decay
        10.0
    """

    num_items: int = 10
    decay: float = 10.0
    mu: float = 0.1
    num_sampled: int = 100
    users_per_update: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        store_numbers(self, 1, "num_items", "users_per_update", integer=True)
        store_numbers(self, 0, "decay", "mu", include_low=False)
        store_numbers(self, 0, "num_sampled", integer=True)

    def make_term(self, lesson: Lesson, seed: int) -> Term:
        """Return the mean loss of some users, drawn for each update."""
        import tensorflow as tf

        lists = tf.constant(lesson.teacher.best_items(self.num_items, lesson.train))
        places = np.exp(-np.arange(self.num_items) / self.decay)
        places = tf.constant((places / places.sum()).astype(np.float32))  # (K,)

        def losses(users: Any, step: Any) -> Any:
            items, weights = tf.gather(lists, users), places  # (b, K)
            if self.num_sampled:
                shape = self.users_per_update, self.num_sampled, lesson.num_items
                items = tf.concat([items, uniform_negatives(*shape, seed + 1, step)], axis=1)
            logits = lesson.score(users, items)  # (b, K + m)
            listed = logits[:, : self.num_items]
            if self.num_sampled:
                others = tf.stop_gradient(logits[:, None, self.num_items :])
                above = others > tf.stop_gradient(listed)[:, :, None]  # (b, K, m)
                rank = tf.reduce_mean(tf.cast(above, tf.float32), axis=2) * lesson.num_items
                behind = tf.maximum(rank - tf.range(self.num_items, dtype=tf.float32), 0.0)
                weights = weights * tf.tanh(self.mu * behind)
                weights = weights / (tf.reduce_sum(weights, axis=1, keepdims=True) + 1e-9)
            return tf.reduce_sum(weights * tf.nn.softplus(-listed), axis=1)

        return term_over_users(losses, lesson, self.users_per_update, seed)


@dataclass(frozen=True)
class CollaborativeDistillation(Method):
    """Soft labels on unseen items that are drawn by the teacher's rank, anew for each epoch.

    An item at rank r of the teacher's ``pool`` best unseen ones is drawn in proportion to
    ``exp(-r / decay)``, without replacement. The loss is the cross entropy of
    ``sigmoid(t / T)`` and ``sigmoid(s / T)``, times T², as the mean over the drawn items.

    Args:
        weight: share of the teacher, in [0, 1].
        num_items: items drawn per user.
        decay: ranks after which the chance of being drawn has fallen to 1/e.
        pool: how far down the list items can be drawn, at least ``num_items``.
        temperature: T, above 0.
        users_per_update: users drawn for each update.

    Raises:
        TypeError: an argument is not of the type named.
        ValueError: an argument is out of range.

    Source:
        Lee et al., *Collaborative Distillation for Top-N Recommendation*, ICDM 2019, in its form
        guided by the teacher.

    Example:
        >>> CollaborativeDistillation(num_items=50, pool=20)
        Traceback (most recent call last):
        ValueError: pool is 20: expected an integer of at least 50
    """

    num_items: int = 40
    decay: float = 20.0
    pool: int = 200
    temperature: float = 1.0
    users_per_update: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        store_numbers(self, 1, "num_items", "users_per_update", integer=True)
        store_numbers(self, 0, "decay", "temperature", include_low=False)
        store_numbers(self, self.num_items, "pool", integer=True)

    def make_term(self, lesson: Lesson, seed: int) -> Term:
        """Return the mean loss of some users, drawn for each update."""
        import tensorflow as tf

        pool = lesson.teacher.best_items(self.pool, lesson.train)  # (num_users, pool)
        pool_scores = lesson.teacher.scores_of(pool)
        shape = lesson.num_users, self.num_items
        items, scores = tf.Variable(tf.zeros(shape, tf.int32)), tf.Variable(tf.zeros(shape))

        def start_epoch(epoch: int, epochs: int) -> None:
            rng = np.random.default_rng([seed, epoch, 7])
            ranks = draw_by_rank(rng, lesson.num_users, self.pool, self.num_items, self.decay)
            items.assign(np.take_along_axis(pool, ranks, axis=1))
            scores.assign(np.take_along_axis(pool_scores, ranks, axis=1))

        def losses(users: Any, step: Any) -> Any:
            logits = lesson.score(users, tf.gather(items, users))
            wanted = tf.gather(scores, users)
            return soft_sigmoid_cross_entropy(wanted, logits, temperature=self.temperature)

        return term_over_users(losses, lesson, self.users_per_update, seed, start_epoch)


@dataclass(frozen=True)
class RelaxedRankingDistillation(Method):
    """The order of interesting items, above all uninteresting ones, whose order does not matter.

    For each user and epoch, K *interesting* items are drawn from the teacher's ``pool`` best unseen
    ones, rank r in proportion to ``exp(-r / decay)``, and L *uninteresting* ones uniformly from
    the rest. What is maximised is the likelihood of the teacher's order of the first, given that
    the second come below; the loss is divided by K.

    Args:
        weight: share of the teacher, in [0, 1].
        num_interesting: K.
        num_uninteresting: L.
        decay: ranks after which the chance of being drawn has fallen to 1/e (T in the paper).
        pool: how far down the list interesting items are drawn from, at least K.
        users_per_update: users drawn for each update.

    Raises:
        TypeError: an argument is not of the type named.
        ValueError: an argument is out of range.

    Source:
        Kang et al., *DE-RRD: A Knowledge Distillation Framework for Recommender System*, CIKM
        2020, section 3.2, equations 6 to 8.

    Example:
        >>> RelaxedRankingDistillation().num_interesting
        40
    """

    num_interesting: int = 40
    num_uninteresting: int = 40
    decay: float = 10.0
    pool: int = 200
    users_per_update: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = "num_interesting", "num_uninteresting", "users_per_update"
        store_numbers(self, 1, *counts, integer=True)
        store_numbers(self, 0, "decay", include_low=False)
        store_numbers(self, self.num_interesting, "pool", integer=True)

    def make_term(self, lesson: Lesson, seed: int) -> Term:
        """Return the mean loss of some users, drawn for each update."""
        import tensorflow as tf

        count, num_items = self.num_interesting, lesson.num_items
        pool = lesson.teacher.best_items(self.pool, lesson.train)
        listed = np.repeat(np.arange(lesson.num_users), self.pool)
        taken_users = np.concatenate([listed, lesson.train.user_ids])
        taken_items = np.concatenate([pool.ravel(), lesson.train.item_ids])
        not_drawn = pair_keys(num_items, taken_users, taken_items)
        shape = lesson.num_users, count + self.num_uninteresting
        items = tf.Variable(tf.zeros(shape, tf.int32))

        def start_epoch(epoch: int, epochs: int) -> None:
            rng = np.random.default_rng([seed, epoch, 7])
            ranks = draw_by_rank(rng, lesson.num_users, self.pool, count, self.decay)
            others = draw_outside(rng, num_items, self.num_uninteresting, not_drawn)
            interesting = np.take_along_axis(pool, ranks, axis=1)
            items.assign(np.hstack([interesting, others]).astype(np.int32))

        def losses(users: Any, step: Any) -> Any:
            logits = lesson.score(users, tf.gather(items, users))  # (b, K + L)
            return relaxed_ranking_loss(logits[:, :count], logits[:, count:]) / count

        return term_over_users(losses, lesson, self.users_per_update, seed, start_epoch)


def draw_by_rank(rng: Any, num_users: int, pool: int, count: int, decay: float) -> Ids:
    """Draw ranks for each user without replacement, rank r in proportion to ``exp(-r / decay)``.

    Gumbel noise is added to ``-r / decay``, and the ``count`` largest sums win: the same
    distribution as drawing one after the other.

    Args:
        rng: source of randomness.
        num_users: rows.
        pool: ranks are below it, 0 is best.
        count: ranks per row, at most ``pool``.
        decay: above 0.

    Returns:
        (num_users, count) ranks, ascending in each row.

    Source:
        Vieira, *Gumbel-max trick and weighted reservoir sampling*, 2014.

    Example:
        >>> draw_by_rank(np.random.default_rng(0), 2, pool=3, count=3, decay=1.0).tolist()
        [[0, 1, 2], [0, 1, 2]]
    """
    keys = rng.gumbel(size=(num_users, pool)).astype(np.float32) - np.arange(pool) / decay
    chosen = np.argpartition(-keys, count - 1, axis=1)[:, :count]
    return np.sort(chosen, axis=1)
