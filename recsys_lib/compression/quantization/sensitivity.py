"""How much each weight loses in few bits by itself, and the best bits for all under a budget."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_number
from recsys_lib.compression.compressed import scorer_of
from recsys_lib.compression.quantization.mixed import (
    MixedPrecision,
    WeightGroups,
    check_width,
    encode_width,
    part_bytes,
    weight_pieces,
)
from recsys_lib.compression.quantization.uniform import UniformQuantization
from recsys_lib.compression.weights import keras_model, named_weights, with_weights
from recsys_lib.models.factors import Factors

Loss = Callable[[Any], float]


@dataclass(frozen=True, eq=False)
class SensitivityCurve:
    """The loss, and the bytes, with one piece of a model in few bits and all else in float32.

    A piece is a weight, or a group of its rows or columns.

    Args:
        pieces: their p names.
        bits: the b numbers of bits, ascending.
        loss: (p, b) loss of the model, lower is better.
        nbytes: (p, b) stored bytes of the piece, with its scales and header.
        reference: loss of the model as it is.
        fixed_bytes: bytes of all that has no piece: weights that stay float32, indices of groups.
        groups: by name of weight, the rows or columns that make a piece.
        base: how whole numbers are made.

    Attributes:
        increase: (p, b) loss above the reference; below 0 where rounding happened to help.
    """

    pieces: tuple[str, ...]
    bits: tuple[int, ...]
    loss: NDArray[np.float64]
    nbytes: NDArray[np.int64]
    reference: float
    fixed_bytes: int
    groups: Mapping[str, WeightGroups]
    base: UniformQuantization

    increase = property(lambda self: self.loss - self.reference)


def sensitivity(
    model: Any,
    loss: Loss,
    bits: Sequence[int] = (2, 3, 4, 5, 6, 8, 16),
    *,
    groups: Mapping[str, WeightGroups] | None = None,
    base: UniformQuantization | None = None,
) -> SensitivityCurve:
    """Measure what each weight loses by itself: one at a time is quantized, the rest is exact.

    Args:
        model: factor model, Keras model or KerasRecommender; it stays as it is. Its weights of two
            or more dimensions are measured; vectors such as biases are a few bytes.
        loss: takes a model of the same kind and gives a number, lower is better: minus the NDCG of
            *validation* users (never of those that judge the result), or :func:`score_error`. It
            is called once for each piece and number of bits, always with the same private copy,
            whose weights change in between.
        bits: to try, ascending: 2 to 8, 16, 32 (float16, float32), and 0 (zeros, nothing stored).
        groups: by name of weight, rows or columns to be treated as pieces of their own.
        base: all other choices; default ``UniformQuantization()``.

    Returns:
        Loss and bytes by piece and bits, for :func:`allocate_bits`.

    Raises:
        TypeError, ValueError: an unknown name, groups that do not fit, other bits, or a loss that
            is no finite number.

    Source:
        Dong et al., *HAWQ-V2: Hessian Aware trace-Weighted Quantization of Neural Networks*,
        NeurIPS 2020, for one sensitivity a layer that adds up; measured here and not derived.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("dot_product", 50, 60, 8))
        >>> curve = sensitivity(model, score_error(model, range(50), range(60)), bits=(2, 4, 8))
        >>> curve.pieces
        ('user_embedding/embeddings', 'item_embedding/embeddings')
        >>> bool((np.diff(curve.loss) < 0).all())
        True
    """
    widths = tuple(check_width(width) for width in bits)
    if not widths or list(widths) != sorted(set(widths)):
        raise ValueError(f"bits is {tuple(bits)}: expected one or more different ones, ascending")
    base = UniformQuantization() if base is None else base
    weights, groups = named_weights(model), dict(groups or {})
    matrices = {name: values for name, values in weights.items() if values.ndim > 1}
    pieces = weight_pieces(matrices, groups)
    trial = with_weights(model, {})
    reference = _loss(loss, trial, "the model as it is")
    losses = np.zeros((len(pieces), len(widths)))
    nbytes = np.zeros(losses.shape, np.int64)
    for row, (piece, (name, index)) in enumerate(pieces.items()):
        for column, width in enumerate(widths):
            stored = encode_width(weights[name][index], width, base)
            nbytes[row, column] = part_bytes(stored) if name in groups else stored.nbytes
            changed = weights[name].copy()
            changed[index] = stored.decode()
            _assign(trial, weights | {name: changed})
            losses[row, column] = _loss(loss, trial, f"{piece} in {width} bits")
    whole = MixedPrecision(dict.fromkeys(pieces, widths[0]), groups, base).compress(model)
    fixed = whole.nbytes - int(nbytes[:, 0].sum())
    return SensitivityCurve(tuple(pieces), widths, losses, nbytes, reference, fixed, groups, base)


def score_error(model: Any, user_ids: ArrayLike, item_ids: ArrayLike) -> Loss:
    """Return a loss that needs no labels: how far scores move away from those of a model.

    ``sum over u of var_i(new score - score) / sum over u of var_i(score)``, the variances taken
    over the items of each user: what is added to all scores of a user changes no ranking.

    Args:
        model: to compare with; anything with ``score``, or a Keras model.
        user_ids: (b,) users, a sample.
        item_ids: (m,) items, a sample, two or more. All b * m pairs are scored.

    Returns:
        A function of a model: 0 for equal scores, 1 for scores that are all the same.

    Raises:
        ValueError: fewer than two items, no users, or a model that scores all items alike.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("dot_product", 5, 6, 8))
        >>> score_error(model, [0, 1], [2, 3, 4])(model)
        0.0
    """
    users, items = np.asarray(user_ids), np.asarray(item_ids)
    if users.ndim != 1 or items.ndim != 1 or len(users) == 0 or len(items) < 2:
        raise ValueError(f"item_ids has shape {items.shape}: expected two or more, and a user")
    pairs = np.repeat(users, len(items)), np.tile(items, len(users))
    last: list[Any] = [None, None]

    def centred(other: Any) -> NDArray[np.float64]:
        if last[0] is not other:  # a Keras model is compiled once, and follows its weights
            last[:] = [other, scorer_of(other)]
        scores = np.asarray(last[1].score(*pairs), np.float64).reshape(len(users), len(items))
        return scores - scores.mean(axis=1, keepdims=True)

    target = centred(model)
    spread = float((target**2).sum())
    if spread == 0:
        raise ValueError("model gives all items the same score: expected others")

    def loss(other: Any) -> float:
        return float(((centred(other) - target) ** 2).sum()) / spread

    return loss


def _loss(loss: Loss, model: Any, what: str) -> float:
    value = float(loss(model))
    if not np.isfinite(value):
        raise ValueError(f"loss is {value} for {what}: expected a finite number")
    return value


def _assign(trial: Any, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Change the private copy; a new Keras model for each trial would be compiled each time."""
    if isinstance(trial, Factors):
        for name, values in weights.items():
            setattr(trial, name, values)
    else:
        keras_model(trial).set_weights(list(weights.values()))


@dataclass(frozen=True, eq=False)
class BitAllocation:
    """Bits by piece, and what they take.

    Args:
        config: for :func:`quantize`; ``config.bits`` has the bits by piece.
        nbytes: stored bytes of the whole model.
        predicted_loss: reference loss plus the sum of what each piece loses by itself. The loss
            of the model need not be that: see chapter 10.

    Attributes:
        bits: by piece.
    """

    config: MixedPrecision
    nbytes: int
    predicted_loss: float

    bits = property(lambda self: self.config.bits)


def allocate_bits(curve: SensitivityCurve, budget_bytes: float) -> BitAllocation:
    """Choose bits for each piece so that the losses sum up to the least within a budget.

    Exact: a whole number of 0 or 1 for each piece and number of bits, one of them 1 for each piece,
    sizes within the budget (a knapsack with choices), solved by SciPy's branch and bound.

    Args:
        curve: of :func:`sensitivity`.
        budget_bytes: of the whole model as stored, with what stays float32.

    Returns:
        The least sum of losses; where other bits of a piece lose as much, the smallest.

    Raises:
        ValueError: a budget below the smallest possible, which the error names.

    Source:
        Shoham & Gersho, *Efficient bit allocation for an arbitrary set of quantizers*, IEEE
        Transactions on Acoustics, Speech, and Signal Processing 1988, for the problem.

    Example:
        >>> curve = SensitivityCurve(("a", "b"), (2, 4), np.array([[5.0, 1.0], [2.0, 1.5]]),
        ...     np.array([[10, 20], [10, 20]]), 1.0, 0, {}, MixedPrecision({}).base)
        >>> dict(allocate_bits(curve, 30).bits)
        {'a': 4, 'b': 2}
    """
    budget = check_number("budget_bytes", budget_bytes, 0)
    smallest = int(curve.nbytes.min(axis=1).sum()) + curve.fixed_bytes
    if budget < smallest:
        raise ValueError(f"budget_bytes is {budget_bytes:,}: expected at least {smallest:,}")
    from scipy.optimize import Bounds, LinearConstraint, milp

    cost, (count, width) = curve.increase, curve.loss.shape
    one_each = np.kron(np.eye(count), np.ones(width))
    size, room = curve.nbytes.reshape(1, -1), budget - curve.fixed_bytes
    with _silent():
        found = milp(
            1e6 * cost.ravel() / max(np.abs(cost).max(), 1e-300),  # the solver stops within 1e-6
            integrality=np.ones(cost.size),
            bounds=Bounds(0, 1),
            constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(size, -np.inf, room)],
            options={"mip_rel_gap": 0.0},
        )
    chosen = cost[found.x.reshape(cost.shape) > 0.5]
    as_good = np.where(cost <= chosen[:, None], curve.nbytes, np.iinfo(np.int64).max)
    return _allocation(curve, as_good.argmin(axis=1))


@contextmanager
def _silent() -> Iterator[None]:
    """Keep a line away that HiGHS now and then prints, past Python, about its own progress."""
    saved, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(null)


def uniform_bits(curve: SensitivityCurve, bits: int) -> BitAllocation:
    """Return the allocation with the same bits for all pieces, to compare with.

    Raises:
        ValueError: bits that were not measured.
    """
    if bits not in curve.bits:
        raise ValueError(f"bits is {bits}: expected one of {', '.join(map(str, curve.bits))}")
    return _allocation(curve, np.full(len(curve.pieces), curve.bits.index(bits)))


def _allocation(curve: SensitivityCurve, choice: NDArray[np.int64]) -> BitAllocation:
    rows = np.arange(len(choice))
    bits = {p: curve.bits[c] for p, c in zip(curve.pieces, choice, strict=True)}
    return BitAllocation(
        MixedPrecision(bits, curve.groups, curve.base),
        int(curve.nbytes[rows, choice].sum()) + curve.fixed_bytes,
        curve.reference + float(curve.increase[rows, choice].sum()),
    )
