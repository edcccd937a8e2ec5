"""What a student learns from its teacher: settings, and the term of the loss that they make."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import Ids, check_choice, check_number, store_flags, store_numbers
from recsys_lib.compression.distillation.losses import SOFT_LOSSES, soft_loss
from recsys_lib.compression.distillation.teacher import TeacherScores, standardized
from recsys_lib.data import Interactions
from recsys_lib.training.forward import make_forward, split_at_dot
from recsys_lib.training.loop import Batch
from recsys_lib.training.sampling import uniform_negatives


class Lesson:
    """What methods make their terms from: a teacher, a student in training, the data.

    The student's functions work inside a graph and under the tape. Where its score is an inner
    product, all items of all users are one product of two matrices; any other model is called on
    every pair, which takes ``num_items`` times as long as one item.

    Args:
        teacher: what the teacher says.
        model: the student, ``[user_ids, item_ids]``, each (n,) int32, to (n,) logits.
        train: the training data, whose items are not in ranked lists.

    Attributes:
        teacher, train, num_users, num_items: as given.
        score: a function of (b,) user ids and (b, c) item ids that gives the student's (b, c)
            logits.
        parts: the student's ``user_side`` and ``item_side`` where its score is an inner product,
            else None.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("dot_product", 2, 3, 4))
        >>> teacher, train = TeacherScores(np.eye(2, 3), 2, 3), Interactions([0, 1], [1, 2])
        >>> Lesson(teacher, model, train).score_all(np.array([1, 0])).shape
        TensorShape([2, 3])
    """

    def __init__(self, teacher: TeacherScores, model: Any, train: Interactions) -> None:
        self.teacher, self.train = teacher, train
        self.num_users, self.num_items = train.num_users, train.num_items
        self.score, self.parts = make_forward(model), split_at_dot(model)

    def score_all(self, user_ids: Any, item_ids: Any = None) -> Any:
        """Score (c,) items, all without ``item_ids``, for each of (b,) users: (b, c) logits."""
        import tensorflow as tf

        item_ids = tf.range(self.num_items, dtype=tf.int32) if item_ids is None else item_ids
        shape = [tf.shape(user_ids)[0], tf.shape(item_ids)[0]]
        if self.parts is None:
            return self.score(user_ids, tf.broadcast_to(item_ids[None, :], shape))
        users = self.parts.user_side(user_ids, training=True)  # (b, d)
        items = self.parts.item_side(item_ids, training=True)  # (c, d)
        dots = tf.reshape(tf.matmul(users, items, transpose_b=True), [-1, 1])  # (b c, 1)
        pairs = [dots, tf.repeat(user_ids, shape[1]), tf.tile(item_ids, shape[:1])]
        logits = self.parts.rest(pairs, training=True)
        return tf.reshape(tf.cast(logits, tf.float32), shape)


@dataclass(frozen=True, eq=False)
class Term:
    """A method's part of the loss, for the compiled training loop.

    Args:
        loss: of a batch, a scalar of the graph.
        start_epoch: gets ready for an epoch, counted from 0, of so many: draws anew, for example.
        trainable_variables: trained along with the student's.
    """

    loss: Callable[[Batch], Any]
    start_epoch: Callable[[int, int], None] = lambda epoch, epochs: None
    trainable_variables: Sequence[Any] = ()

    def __call__(self, batch: Batch) -> Any:
        """Return the loss of a batch."""
        return self.loss(batch)


@dataclass(frozen=True)
class Method(ABC):
    """What all methods share.

    Args:
        weight: share of the teacher in the loss, in [0, 1]; the labels have the rest.
    """

    weight: float = 0.5

    def __post_init__(self) -> None:
        store_numbers(self, 0, "weight", high=1)

    @abstractmethod
    def make_term(self, lesson: Lesson, seed: int) -> Term:
        """Return what is added to the loss, before it is multiplied by the weight.

        Args:
            lesson: the teacher, the student in training, and the data.
            seed: of all draws.
        """


@dataclass(frozen=True)
class SoftLabels(Method):
    """The student is to say what the teacher says: scores in place of labels.

    With the teacher's scores ``t``, the student's ``s`` and temperature T, for each of some users:

    - "listwise": ``T² KL(softmax(t / T) || softmax(s / T))`` over the candidates;
    - "binary": ``T²`` times the cross entropy of ``sigmoid(t / T)`` and ``sigmoid(s / T)``, as the
      mean over the candidates;
    - "regression": ``(t - s)²``, as the mean over the candidates; it has no temperature.

    Args:
        weight: share of the teacher, in [0, 1].
        loss: one of the three names.
        temperature: T, above 0. Divides logits; the larger, the more the lower ranks count.
        num_candidates: None for the whole catalogue; else so many items per user, half of them the
            teacher's best, the others drawn once from the rest. 2 or more.
        standardize: subtract the mean of each user's teacher scores and divide by their standard
            deviation, so that one temperature suits teachers of any scale.
        users_per_update: users drawn for each update.
        items_per_update: None, or so many items of the catalogue, drawn anew for each update and
            the same for all its users. An update then takes so much less time, and every item has
            its turn, where ``num_candidates`` stays with one choice. 2 or more.

    Raises:
        TypeError: an argument is not of the type named.
        ValueError: an argument is out of range, or both ``num_candidates`` and
            ``items_per_update`` are given.

    Source:
        Hinton, Vinyals & Dean, *Distilling the Knowledge in a Neural Network*, 2015, section 2.

    Example:
        >>> SoftLabels(weight=1.5)
        Traceback (most recent call last):
        ValueError: weight is 1.5: expected a finite number from 0 to 1
    """

    loss: str = "listwise"
    temperature: float = 1.0
    num_candidates: int | None = None
    standardize: bool = False
    users_per_update: int = 64
    items_per_update: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("loss", self.loss, SOFT_LOSSES)
        store_flags(self, "standardize")
        store_numbers(self, 0, "temperature", include_low=False)
        store_numbers(self, 1, "users_per_update", integer=True)
        chosen = [n for n in ("num_candidates", "items_per_update") if getattr(self, n) is not None]
        store_numbers(self, 2, *chosen, integer=True)
        if len(chosen) == 2:
            raise ValueError("items_per_update and num_candidates are given: expected one of them")

    def make_term(self, lesson: Lesson, seed: int) -> Term:
        """Return the mean loss of some users, drawn for each update."""
        import tensorflow as tf

        teacher, num_items = lesson.teacher, lesson.num_items
        count, drawn = self.num_candidates, self.items_per_update
        loss = soft_loss(self.loss, self.temperature)
        if drawn is not None:
            check_number("items_per_update", drawn, 2, num_items, integer=True)
        if count is None or count >= num_items:
            scores, candidates = teacher.all_scores(), None
        else:
            items = half_best(teacher, count, np.random.default_rng([seed, 0, 7]))
            scores, candidates = teacher.scores_of(items), tf.constant(items, tf.int32)
        kept = tf.constant(standardized(scores) if self.standardize else scores)

        def losses(users: Any, step: Any) -> Any:
            wanted = tf.gather(kept, users)  # (b, c)
            if drawn is not None:
                stream = tf.stack([tf.constant(seed + 1, tf.int64), tf.cast(step, tf.int64)])
                keys = tf.random.stateless_uniform([num_items], stream)
                some = tf.math.top_k(keys, drawn, sorted=False).indices  # (drawn,), all different
                return loss(tf.gather(wanted, some, axis=1), lesson.score_all(users, some))
            if candidates is None:
                return loss(wanted, lesson.score_all(users))
            return loss(wanted, lesson.score(users, tf.gather(candidates, users)))

        return term_over_users(losses, lesson, self.users_per_update, seed)


@dataclass(frozen=True)
class DistillationExperts(Method):
    """The teacher's hidden vectors are to be readable from the student's.

    For the users and the items of a batch, experts rebuild the teacher's vector from the student's;
    a gate reads the teacher's vector and picks the expert. The loss is the squared distance, as the
    mean over the numbers of a vector. An expert is ``d_s -> (d_s + d_t) // 2 -> d_t`` with a ReLU
    between; the gate is a linear layer. With Gumbel noise g and temperature tau, the experts are
    mixed by ``softmax((log softmax(gate) + g) / tau)``: softly at first and hard at the end, as tau
    falls from 1 to ``last_temperature`` over the epochs. Experts and gates are thrown away after
    training.

    Args:
        weight: share of the teacher, in [0, 1].
        num_experts: for users, and as many for items.
        rows_per_update: rows of the batch that are looked at: so many users, and twice as many
            items (those met and, with an objective that draws, one drawn for each).
        last_temperature: of the gate in the last epoch, in (0, 1].

    Raises:
        TypeError: an argument is not of the type named; from ``distill``: a teacher or student
            whose score is no inner product.
        ValueError: an argument is out of range.

    Source:
        Kang et al., *DE-RRD*, CIKM 2020, section 3.1, equations 1 to 5; Jang, Gu & Poole,
        *Categorical Reparameterization with Gumbel-Softmax*, 2016.

    Example:
        >>> DistillationExperts(num_experts=5).num_experts
        5
    """

    num_experts: int = 5
    rows_per_update: int = 128
    last_temperature: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        store_numbers(self, 1, "num_experts", "rows_per_update", integer=True)
        store_numbers(self, 0, "last_temperature", high=1, include_low=False)

    def make_term(self, lesson: Lesson, seed: int) -> Term:
        """Return the mean squared error of rebuilt users plus that of rebuilt items."""
        import tensorflow as tf

        if lesson.parts is None:
            raise TypeError("student's score is no inner product: expected such as two_tower")
        temperature, count = tf.Variable(1.0), self.rows_per_update
        looks, sides = (lesson.parts.user_side, lesson.parts.item_side), []
        for number, (look, vectors) in enumerate(zip(looks, lesson.teacher.vectors(), strict=True)):
            own_seed, widths = 2 * seed + number, (look.outputs[0].shape[1], vectors.shape[1])
            weights = _expert_weights(*widths, self.num_experts, own_seed)
            sides.append((look, tf.constant(vectors), weights, own_seed))

        def rebuild(student: Any, teacher: Any, weights: list[Any], noise: Any) -> Any:
            first, first_bias, second, second_bias, gate, gate_bias = weights
            hidden = tf.nn.relu(tf.matmul(student[None], first) + first_bias)  # (experts, n, _)
            rebuilt = tf.matmul(hidden, second) + second_bias  # (experts, n, d_t)
            logits = tf.nn.log_softmax(tf.matmul(teacher, gate) + gate_bias)  # (n, experts)
            uniform = tf.random.stateless_uniform(tf.shape(logits), noise, 1e-10, 1.0)
            gumbel = -tf.math.log(-tf.math.log(uniform) + 1e-20)
            return tf.einsum("ne,end->nd", tf.nn.softmax((logits + gumbel) / temperature), rebuilt)

        def loss(batch: Batch) -> Any:
            total = 0.0
            ids = batch.user_ids[:count], tf.reshape(batch.item_ids[:count, :2], [-1])
            for (look, vectors, weights, own_seed), side in zip(sides, ids, strict=True):
                noise = tf.stack([tf.constant(own_seed, tf.int64), tf.cast(batch.step, tf.int64)])
                wanted = tf.gather(vectors, side)  # (n, d_t)
                found = rebuild(look(side, training=True), wanted, weights, noise)
                total += tf.reduce_mean((wanted - found) ** 2)
            return total

        def start_epoch(epoch: int, epochs: int) -> None:
            temperature.assign(self.last_temperature ** (epoch / max(1, epochs - 1)))

        return Term(loss, start_epoch, [w for _, _, weights, _ in sides for w in weights])


def _expert_weights(student_dim: int, teacher_dim: int, num_experts: int, seed: int) -> list[Any]:
    """Kernel and bias of the experts' two layers and of the gate: Glorot, and zeros."""
    import tensorflow as tf

    rng, weights = np.random.default_rng(seed), []
    middle = (student_dim + teacher_dim) // 2
    expert = (num_experts, student_dim, middle), (num_experts, middle, teacher_dim)
    for *several, rows, columns in (*expert, (teacher_dim, num_experts)):
        limit = np.sqrt(6.0 / (rows + columns))
        kernel = rng.uniform(-limit, limit, (*several, rows, columns)).astype(np.float32)
        weights += [tf.Variable(kernel), tf.Variable(tf.zeros((*several, 1, columns)))]
    return weights


def term_over_users(
    losses: Callable[[Any, Any], Any], lesson: Lesson, count: int, seed: int, *start_epoch: Any
) -> Term:
    """Return the mean of ``losses(users, step)`` over users drawn for each batch, as a Term."""
    import tensorflow as tf

    def loss(batch: Batch) -> Any:
        users = uniform_negatives(1, count, lesson.num_users, seed, batch.step)[0]
        return tf.reduce_mean(losses(users, batch.step))

    return Term(loss, *start_epoch)


def half_best(teacher: TeacherScores, count: int, rng: Any) -> Ids:
    """Return (num_users, count) items: the teacher's best half, then others from the rest."""
    best = teacher.best_items(count // 2)
    users = np.repeat(np.arange(teacher.num_users), best.shape[1])
    taken = pair_keys(teacher.num_items, users, best.ravel())
    rest = draw_outside(rng, teacher.num_items, count - count // 2, taken)
    return np.hstack([best.astype(np.int64), rest])


def draw_outside(rng: Any, num_items: int, count: int, excluded: Ids) -> Ids:
    """Draw items uniformly from those that are not excluded; an item can be drawn twice.

    Args:
        rng: source of randomness.
        num_items: size of the catalogue.
        count: items per user.
        excluded: sorted numbers ``user * num_items + item``; see :func:`pair_keys`. The users are
            0 to the last, and each must have an item left.

    Returns:
        (num_users, count) item ids, where num_users is given by the last excluded pair.

    Example:
        >>> draw_outside(np.random.default_rng(0), 3, 2, np.array([0, 1, 3, 5])).tolist()
        [[2, 2], [1, 1]]
    """
    num_users = int(excluded[-1]) // num_items + 1
    first = np.arange(num_users, dtype=np.int64)[:, None] * num_items
    keys = first + rng.integers(0, num_items, (num_users, count))
    while True:
        place = np.minimum(np.searchsorted(excluded, keys), len(excluded) - 1)
        bad = excluded[place] == keys
        if not bad.any():
            return keys - first
        again = rng.integers(0, num_items, int(bad.sum()))
        keys[bad] = np.broadcast_to(first, keys.shape)[bad] + again


def pair_keys(num_items: int, user_ids: NDArray[Any], item_ids: NDArray[Any]) -> Ids:
    """Return pairs as numbers ``user * num_items + item``, sorted, each once.

    Example:
        >>> pair_keys(3, np.array([1, 0]), np.array([2, 1])).tolist()
        [1, 5]
    """
    return np.unique(user_ids.astype(np.int64) * num_items + item_ids.astype(np.int64))
