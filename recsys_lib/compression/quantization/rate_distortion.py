"""Rate-distortion optimised tables: whole numbers that rank well and are cheap to code."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_counts, check_type, check_weights, store_flags, store_numbers
from recsys_lib.compression.compressed import CompressedModel, compare_weights
from recsys_lib.compression.pruning import rotate_to_principal_axes
from recsys_lib.compression.quantization.entropy import EntropyCoding, fit_spread
from recsys_lib.compression.quantization.transform import SteppedTensor
from recsys_lib.compression.tensors import EncodedTensor
from recsys_lib.compression.weights import named_weights
from recsys_lib.data import Interactions
from recsys_lib.models.base import check_interactions
from recsys_lib.models.factors import Factors, epochs_with_progress
from recsys_lib.models.least_squares import one_blas_thread

# At a rate weight of .0002 the first steps make an error of scores of 17 %. Distortion goes with
# the square of a step, so the step goes with the root of the rate weight.
_FIRST_ERROR, _AT_WEIGHT = 0.17, 2e-4
_USER_SPEED = 4  # a user moves once an epoch, an item with each batch
_BATCH = 300
_SCORES_KEPT = 1 << 28  # of a teacher, 1 GB; more are asked for in each step
Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
Wanted = Callable[[Ids, Ids | slice], Floats]  # (b,) users and (n,) items to (b, n) scores


@dataclass(frozen=True)
class RateDistortion:
    """How to store a factor model in the tables that rank most like it at a price for each bit.

    A score becomes ``sum_j c_j n_uj m_ij`` with whole numbers n for users and m for items. They,
    and the d numbers c, minimise::

        mean over u of KL(softmax(a_u s_u) || softmax(b_u s'_u)) + rate_weight * bits / num_users

    where s_u are the teacher's scores of the items that the user has not met (the old scores, if
    no teacher is given), s'_u the new ones, a_u divides by the standard deviation of s_u, and b_u
    is learned and then forgotten: a positive factor does not change a ranking. Bits are those of an
    ideal coder under a geometric law whose mean is a product of a factor of the row and one of the
    column. Rounding is straight-through: whole numbers forward, the identity backward. It starts
    from principal axes, as :class:`TransformCoding`. What is gained over rounding: items already
    met, whose large scores take most of the capacity, cost nothing; errors that change no order are
    allowed; and numbers that are worth less than their bits become zeros. A teacher that ranks
    better than the model pays for a part of what rounding loses. Measure before choosing it:
    ``benchmarks/results/codec.csv`` compares it with :class:`TransformCoding`, which gives users
    steps of their own.

    Args:
        rate_weight: nats of divergence from the old model that a bit may cost: the one dial of
            quality against bytes. Half of it makes tables about a fifth larger.
        embedding_dim: dimensions at most; as many as the model has, if it has fewer.
        sharpness: of what is imitated: scores of a user's unseen items are divided by their
            standard deviation, times this, before the softmax.
        epochs: passes over the users, at most.
        max_steps: steps of 300 users, at most; on many users fewer epochs then suffice.
        items_per_step: items that a step looks at, drawn anew for each, so that its time does not
            grow with the catalogue. All, where there are not more.
        max_seconds: time, at most, to the end of an epoch; None for no such end. Rates fall with
            the time used, if it is the first to run out, so the result is that of a shorter
            training and not of one that was broken off; but it then depends on the machine.
        learning_rate: of Adam, in steps of the item table, four times as large for users; falls to
            0 in the second half.
        seed: of the order of users.
        progress: show a progress bar.

    The defaults were chosen on held-out training interactions of ncf-ml-1m.

    Raises:
        TypeError, ValueError: an argument out of range.

    Source:
        Balle, Laparra & Simoncelli, *End-to-end Optimized Image Compression*, ICLR 2017, for
        rate and distortion in one objective; Bengio, Leonard & Courville, 1308.3432, for the
        straight-through gradient; Hinton, Vinyals & Dean, 1503.02531, for the distortion.

    Example:
        >>> from recsys_lib.compression.quantization import RateDistortion, quantize
        >>> from recsys_lib.models import IALS
        >>> pairs = [(u, i) for u in range(40) for i in range(30) if (u + i) % 3 == 0]
        >>> train = Interactions(*np.array(pairs).T)
        >>> model = IALS(embedding_dim=8, epochs=3).fit(train)
        >>> stored = quantize(model, RateDistortion(epochs=2), train=train)
        >>> stored.model.user_vectors.shape, stored.tensors["item_vectors"].kind
        ((40, 3), 'entropy')
    """

    rate_weight: float = 5e-5
    embedding_dim: int = 80
    sharpness: float = 0.8
    epochs: int = 60
    max_steps: int = 1500
    items_per_step: int = 4096
    max_seconds: float | None = None
    learning_rate: float = 0.02
    seed: int = 0
    progress: bool = False

    def __post_init__(self) -> None:
        limits = () if self.max_seconds is None else ("max_seconds",)
        rates = "rate_weight", "sharpness", "learning_rate"
        store_numbers(self, 0, *rates, *limits, include_low=False)
        whole = "embedding_dim", "epochs", "max_steps", "items_per_step"
        store_numbers(self, 1, *whole, integer=True)
        store_numbers(self, 0, "seed", integer=True)
        store_flags(self, "progress")

    def compress(self, model: Factors, train: Interactions, teacher: Any = None) -> CompressedModel:
        """Return a new model with shorter vectors which ranks like the teacher.

        Its scores have the order of the old ones for each user, not their size, and scores of items
        already met mean little. Biases of items become a dimension of the vectors; what is added to
        all scores of a user changes no order and is left out.

        Args:
            model: IALS or ALS, fitted; it stays as it is.
            train: what users have met: not imitated, since it is not recommended.
            teacher: another model of the same users and items to imitate, such as
                :class:`recsys_lib.compression.distillation.Ensemble`: anything with
                ``score_all_items(user_ids)``, ``num_users`` and ``num_items``. Its scores are kept
                in memory, 4 bytes each. None for the model itself.

        Raises:
            TypeError: no factor model, no Interactions, or a teacher without ``score_all_items``.
            ValueError: other numbers of users or items, a model that scores 0 everywhere, scores of
                the teacher that are not finite, or a rate weight so small that a table needs more
                than 2000 steps.
        """
        check_type("model", model, (Factors,), " such as IALS")
        check_interactions(train)
        users, items = model._users(), model.item_vectors
        counts = (len(users), len(items))
        check_counts("train", train, counts)
        wanted = None if teacher is None else _scores_of(teacher, counts)
        if model.item_biases is not None:
            users = np.hstack([users, np.ones((counts[0], 1), np.float32)])
            items = np.hstack([items, model.item_biases[:, None]])
        start = _start(users, items, self)

        def own(batch: Ids, chosen: Ids | slice) -> Floats:
            return users[batch] @ items[chosen].T

        with one_blas_thread():
            tables = _optimise(start, wanted or own, own, self, train)
        tensors: dict[str, EncodedTensor] = {
            "user_vectors": _code(tables.users, tables.user_steps),
            "item_vectors": _code(tables.items, tables.item_steps),
        }
        how = None if model.item_biases is not None else model.how_to_fold_in
        decoded: dict[str, Any] = {name: tensor.decode() for name, tensor in tensors.items()}
        smaller = Factors(**decoded, fold_in=how)
        report = compare_weights("rate-distortion", self, named_weights(model), tensors)
        return CompressedModel(tensors, smaller, report)


class _Latents(NamedTuple):
    """Tables in steps, and the steps; changed in place while they are optimised."""

    users: Floats
    items: Floats
    user_steps: Floats
    item_steps: Floats


def _code(table: Floats, steps: Floats) -> EncodedTensor:
    return EntropyCoding("size").encode(SteppedTensor(np.rint(table).astype(np.int64), steps))


def _start(users: Floats, items: Floats, config: RateDistortion) -> _Latents:
    """Return tables in principal axes, in steps with which all columns contribute equal errors."""
    users, items, energy = rotate_to_principal_axes(users, items)
    if energy[0] <= 0:
        raise ValueError("model scores 0 everywhere: expected one that has learned something")
    kept = int(min(config.embedding_dim, (energy > 1e-5 * energy[0]).sum()))
    error = _FIRST_ERROR * np.sqrt(config.rate_weight / _AT_WEIGHT)
    mean_square = (energy.astype(np.float64) ** 2).sum() / (len(users) * len(items))
    ratio = np.sqrt(len(users) / len(items))
    unit = error * np.sqrt(mean_square / (len(energy) / 12 * (ratio + 1 / ratio)))
    roots = np.sqrt(energy[:kept])
    user_steps = (unit * np.sqrt(ratio * len(items)) / roots).astype(np.float32)
    item_steps = (unit * np.sqrt(len(users) / ratio) / roots).astype(np.float32)
    users, items = users[:, :kept] / user_steps, items[:, :kept] / item_steps
    return _Latents(users, items, user_steps, item_steps)


def check_teacher(teacher: Any, counts: tuple[int, int]) -> None:
    """Refuse a teacher that cannot score, or that counts other users and items than ``counts``."""
    if not hasattr(teacher, "score_all_items"):
        raise TypeError(f"teacher is of type {type(teacher).__name__}: expected score_all_items()")
    check_counts("teacher", teacher, counts)


def _scores_of(teacher: Any, counts: tuple[int, int]) -> Wanted:
    """Ask a teacher once for all scores, (users, items) = ``counts``; if they fit into memory."""
    check_teacher(teacher, counts)
    if counts[0] * counts[1] > _SCORES_KEPT:
        return lambda batch, chosen: check_weights(
            "scores of teacher", np.asarray(teacher.score_all_items(batch), np.float32)[:, chosen]
        )
    batches = np.array_split(np.arange(counts[0]), -(-counts[0] // _BATCH))
    scores = np.concatenate([teacher.score_all_items(batch) for batch in batches], dtype=np.float32)
    check_weights("scores of teacher", scores)
    return lambda batch, chosen: scores[batch][:, chosen]


def _optimise(
    start: _Latents, wanted: Wanted, own: Wanted, config: RateDistortion, train: Interactions
) -> _Latents:
    users, items = start.users, start.items
    seen = train.to_csr("binary")
    rng = np.random.default_rng(config.seed)
    batches = np.array_split(rng.permutation(len(users)), max(1, len(users) // _BATCH))
    first = np.log(start.user_steps * start.item_steps)
    logs = first.copy()  # of c
    teacher, student = (np.empty(len(users), np.float32) for _ in range(2))
    chosen = _draw(rng, len(items), config.items_per_step)
    for batch in batches:
        unseen = seen[batch].toarray()[:, chosen] == 0
        teacher[batch] = _temper(wanted(batch, chosen), unseen, config.sharpness)
        student[batch] = np.log(_temper(own(batch, chosen), unseen, config.sharpness))  # of b
    moves = [(_adam(len(b)), _adam((len(b), len(first)))) for b in batches]
    move_items, move_logs = _adam(items.shape), _adam(len(first))
    epochs = min(config.epochs, -(-config.max_steps // len(batches)))
    total, step = epochs * len(batches), 0
    seconds, begun = config.max_seconds or np.inf, time.perf_counter()

    def share_done() -> float:
        return max(step / total, (time.perf_counter() - begun) / seconds)

    for _ in epochs_with_progress(epochs, "rate-distortion", config.progress):
        if share_done() >= 1:
            break
        user_price = config.rate_weight * _bits_per_step(users, by_row=False)
        item_price = config.rate_weight * _bits_per_step(items, by_row=True)
        for number in rng.permutation(len(batches)):
            batch, (move_student, move_users) = batches[number], moves[number]
            late = min(max(2 * share_done() - 1, 0.0), 1.0)  # 0 in the first half, then up to 1
            rate, step = config.learning_rate * (1 + np.cos(np.pi * late)) / 2, step + 1
            chosen = _draw(rng, len(items), config.items_per_step)
            some = items[chosen]
            n, m = np.rint(users[batch]), np.rint(some)
            scaled, b = n * np.exp(logs), np.exp(student[batch])[:, None]
            unseen = seen[batch].toarray()[:, chosen] == 0
            target = _softmax(wanted(batch, chosen) * teacher[batch][:, None], unseen)
            scores = scaled @ m.T
            error = (_softmax(scores * b, unseen) - target) * b  # gradient for scores
            by_user, by_item = error @ m, np.zeros_like(items)
            by_item[chosen] = error.T @ scaled * np.float32(len(items) / len(some))
            by_log = np.exp(logs) * (by_user * n).sum(axis=0)
            student[batch] -= move_student(np.einsum("ui,ui->u", error, scores), rate)
            by_user *= np.exp(logs)
            by_user += user_price[batch] * np.clip(2 * users[batch], -1, 1)
            by_item += len(batch) / len(users) * item_price * np.clip(2 * items, -1, 1)
            users[batch] -= move_users(by_user, _USER_SPEED * rate)
            items -= move_items(by_item, rate)
            logs -= move_logs(by_log, rate / 5)
    grown = np.exp((logs - first) / 2)  # shared by both tables
    return _Latents(users, items, start.user_steps * grown, start.item_steps * grown)


def _draw(rng: np.random.Generator, count: int, most: int) -> Ids | slice:
    """Return so many different items in order, or all of them as a slice."""
    return slice(None) if count <= most else np.sort(rng.choice(count, most, replace=False))


def _temper(scores: Floats, unseen: NDArray[np.bool_], sharpness: float) -> Floats:
    """Return sharpness over the standard deviation of a user's unseen items' scores, (b,)."""
    count = np.maximum(unseen.sum(axis=1), 1)
    mean = (scores * unseen).sum(axis=1) / count
    variance = ((scores - mean[:, None]) ** 2 * unseen).sum(axis=1) / count
    return (sharpness / np.sqrt(np.maximum(variance, 1e-38))).astype(np.float32)


def _softmax(logits: Floats, allowed: NDArray[np.bool_]) -> Floats:
    logits = np.where(allowed, logits, np.float32(-1e9))
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def _bits_per_step(table: Floats, *, by_row: bool) -> Floats:
    """Return what a number costs more than one nearer to 0 under a geometric law, (rows, columns).

    With the mean absolute value v, ``p(k)`` is proportional to ``t ** |k|``, where t solves
    ``v = 2 t / (1 - t²)``; a step costs ``-log2 t`` bits.
    """
    rows, columns = fit_spread(np.rint(table), by_row=by_row)
    mean = np.maximum(rows[:, None] * columns, 1e-3)
    return -np.log2((np.sqrt(1 + mean**2) - 1) / mean).astype(np.float32)


def _adam(shape: Any) -> Callable[[Floats, float], Floats]:
    """Make a function from a gradient and a learning rate to what is to be subtracted.

    Source:
        Kingma & Ba, *Adam*, ICLR 2015, with decays of .9 and .99.
    """
    mean, square = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    times = 0

    def move(gradient: Floats, rate: float) -> Floats:
        nonlocal times
        times += 1
        np.add(mean, 0.1 * (gradient - mean), out=mean)
        np.add(square, 0.01 * (gradient**2 - square), out=square)
        root = np.sqrt(square / (1 - 0.99**times)) + 1e-12
        return np.asarray(rate * mean / (1 - 0.9**times) / root, np.float32)

    return move
