"""Train while pruning: masks that grow with a schedule and hold through any optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys_lib.checks import check_number, check_sparsity, check_type, store_numbers, store_shares
from recsys_lib.compression import CompressedModel, named_weights, store_weights, with_weights
from recsys_lib.compression.pruning.sparse import store_sparse
from recsys_lib.compression.pruning.weights import Array, Mask, WeightPruning
from recsys_lib.compression.weights import keras_model, named_variables
from recsys_lib.data import Interactions
from recsys_lib.models import Recommender
from recsys_lib.models.factors import Factors
from recsys_lib.training import History, fit

# These bring back weights of an earlier epoch, when fewer of them were zero.
_REFUSED = ("patience", "checkpoint", "resume")
_NOT_TAKEN_OVER = (*_REFUSED, "log_dir", "on_epoch_end", "validation", "metric")
# From the number of steps made and the final sparsity to the sparsity now.
Schedule = Callable[[int, float], float]
# From the number of updates made and the weights by name to the masks from now on.
Draw = Callable[[int, dict[str, Array]], dict[str, Mask]]


@dataclass(frozen=True)
class PolynomialSchedule:
    """Much at first, while there is plenty to remove, then ever less.

    With ``p = (step - begin_step) / (end_step - begin_step)`` between 0 and 1::

        sparsity = final + (initial - final) * (1 - p) ** power

    No weight is removed before ``begin_step``. A final sparsity below the initial one is reached
    at once.

    Args:
        end_step: first step with the final sparsity, above ``begin_step``.
        begin_step: first step with the initial sparsity.
        initial_sparsity: in [0, 1).
        power: 3 in the paper; 1 grows evenly.

    Raises:
        ValueError: an argument out of range.

    Source:
        Zhu & Gupta, *To prune, or not to prune*, 2017, equation 1.

    Example:
        >>> schedule = PolynomialSchedule(end_step=4)
        >>> [round(schedule(step, 0.8), 3) for step in range(6)]
        [0.0, 0.463, 0.7, 0.788, 0.8, 0.8]
    """

    end_step: int
    begin_step: int = 0
    initial_sparsity: float = 0.0
    power: float = 3.0

    def __post_init__(self) -> None:
        store_numbers(self, 0, "begin_step", integer=True)
        store_numbers(self, self.begin_step + 1, "end_step", integer=True)
        store_numbers(self, 0, "power", include_low=False)
        store_shares(self, "initial_sparsity")

    def __call__(self, step: int, final_sparsity: float) -> float:
        """Return the sparsity after ``step`` steps on the way to ``final_sparsity``."""
        final_sparsity = check_sparsity(final_sparsity, "final_sparsity")
        if step < self.begin_step:
            return 0.0
        progress = (step - self.begin_step) / (self.end_step - self.begin_step)
        missing = max(final_sparsity - self.initial_sparsity, 0.0)
        return final_sparsity - missing * (1 - min(progress, 1.0)) ** self.power


@dataclass(frozen=True, eq=False, repr=False)
class PrunedModel(CompressedModel):
    """A model that was trained while it was pruned.

    Args:
        masks: of the pruned weights by name, True where a weight was kept.
        history: the course of training.
        sparsities: fraction of zeros in the masks at the end of each epoch.
    """

    masks: Mapping[str, Mask]
    history: History
    sparsities: tuple[float, ...]


def fit_pruned(
    model: Any,
    interactions: Interactions,
    config: WeightPruning,
    *,
    schedule: Schedule | None = None,
    frequency: int | None = None,
    **options: Any,
) -> PrunedModel:
    """Train a model on, prune it on the way, and return a new one.

    Without ``frequency`` a step of the schedule is an epoch: before epoch ``e``, counted from 0,
    the masks are drawn anew from the magnitudes at ``schedule(e, sparsity)``, and the weights
    outside them become zero. With it a step is an update of the weights, as in the paper: masks
    are drawn before the first update and after every ``frequency`` of them, from
    ``schedule(updates, sparsity)``. In between weights stay zero after each update, whichever
    optimizer made it, because the mask is set as the *constraint* of its variable, and Keras
    optimizers apply constraints last of all. A table costs one more pass over all of its numbers
    per update. Masks are drawn in NumPy; with ``frequency`` training leaves the compiled loop for
    it, which rules XLA out.

    To compare with, train as long without pruning: ``WeightPruning(sparsity=0.0)``.

    Args:
        model: Keras 3 model, or a fitted KerasRecommender, whose own options of training are then
            the defaults. It stays as it is, and training goes on from its weights.
        interactions: what to train on.
        config: what to prune, and the final sparsity.
        schedule: from a step and the final sparsity to the sparsity at that step, such as
            :class:`PolynomialSchedule`. None prunes at once, before the first epoch.
        frequency: updates between two draws of the masks; None draws them between epochs only.
        **options: of :func:`recsys_lib.training.fit`, without ``patience``, ``checkpoint`` and
            ``resume``.

    Returns:
        A new model without constraints, with report, masks and history. The error in the report
        includes what training changed.

    Raises:
        TypeError: a model that cannot be trained here, or an option that fit does not have.
        ValueError: an argument out of range, an unknown name, a schedule that does not reach its
            end before the last epoch (with ``frequency``: by the last draw), or XLA and
            ``frequency`` together.

    Source:
        Zhu & Gupta, *To prune, or not to prune*, 2017, section 3.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("mlp_ranker", 4, 5, 4, hidden_units=(8,)))
        >>> data = Interactions([0, 0, 1, 1, 2, 3], [0, 1, 1, 2, 3, 4])
        >>> pruned = fit_pruned(model, data, WeightPruning(0.75), epochs=2, progress=False)
        >>> weights = named_weights(pruned.model)
        >>> float(np.mean(weights["dense_0/kernel"] == 0)), pruned.sparsities
        (0.75, (0.75, 0.75))
    """
    import keras

    check_type("config", config, (WeightPruning,))
    schedule = schedule or (lambda step, final_sparsity: final_sparsity)
    options = _training_options(model, options, frequency)
    inner = model if isinstance(model, Factors) else keras_model(model)
    check_type("model", inner, (keras.Model,), " of Keras 3 (see prune, and tfmot)")
    inner = with_weights(inner, {})
    final = config.final_sparsities(named_weights(inner))
    epochs = options.get("epochs", 10)
    last_draw = epochs - 1
    if frequency is not None:
        updates = epochs * -(-len(interactions) // options.get("batch_size", 8192))
        last_draw = (updates - 1) // frequency * frequency
    for sparsity in final.values():
        if (last := schedule(last_draw, sparsity)) != sparsity:
            raise ValueError(f"schedule ends at {last:.4g} (step {last_draw}): expected {sparsity}")
    masks: dict[str, Mask] = {}
    variables = named_variables(inner)
    for name in final:
        if not variables[name].trainable:
            raise ValueError(f"{name} is not trainable: expected weights that training changes")
    holders = {name: _MaskConstraint(variables[name]) for name in final}
    course: list[float] = []
    drawn: list[dict[str, float]] = [{}]

    def draw(step: int, weights: dict[str, Array]) -> dict[str, Mask]:
        """Draw the masks where the schedule has moved; what diverges is left for fit to report."""
        now = {name: schedule(step, sparsity) for name, sparsity in final.items()}
        if now != drawn[0] and all(np.isfinite(weights[name]).all() for name in final):
            masks.update(config.masks(weights, now))
            drawn[0] = now
        return masks

    def prune(step: int) -> None:
        for name, mask in draw(step, named_weights(inner)).items():
            holders[name].prune(mask)

    on_epoch_end = options.pop("on_epoch_end", None)

    def after_epoch(epoch: int, logs: Mapping[str, float]) -> None:
        kept = sum(int(mask.sum()) for mask in masks.values())
        course.append(1 - kept / sum(mask.size for mask in masks.values()))
        if frequency is None and epoch < epochs:  # epochs are counted from 1 here
            prune(epoch)
        if on_epoch_end is not None:
            on_epoch_end(epoch, logs)

    prune(0)
    if frequency is not None:
        _redraw_every(frequency, holders, draw)
    history = fit(inner, interactions, on_epoch_end=after_epoch, **options)
    weights = named_weights(inner).items()
    tensors = {n: store_sparse(w, "smallest" if n in final else "dense") for n, w in weights}
    # A fresh clone takes the weights, so that no constraint is left on the result.
    stored = store_weights("weight pruning in training", config, model, tensors)
    return PrunedModel(stored.tensors, stored.model, stored.report, masks, history, tuple(course))


def _training_options(model: Any, options: dict[str, Any], frequency: int | None) -> dict[str, Any]:
    refused = [name for name in _REFUSED if name in options]
    if refused:
        raise ValueError(f"{refused[0]} is given: weights of another epoch have other zeros")
    own = getattr(model, "options", {}) if isinstance(model, Recommender) else {}
    own = {name: value for name, value in own.items() if name not in _NOT_TAKEN_OVER}
    if frequency is None:
        return own | options
    check_number("frequency", frequency, 1, integer=True)
    if options.get("jit_compile"):
        raise ValueError("jit_compile is True, but masks of a frequency are drawn outside of XLA")
    return own | options | {"jit_compile": False}


class _MaskConstraint:
    """Multiplies a variable by its mask, after the constraint that it had before."""

    def __init__(self, variable: Any) -> None:
        import keras

        self.variable = variable
        self.mask = keras.Variable(np.ones(variable.shape, np.float32), trainable=False)
        self.before_all: Callable[[], None] | None = None
        self._before = variable.constraint
        own = {"__call__": staticmethod(self.after_update)}  # older Keras takes no functions
        variable.constraint = type("Mask", (keras.constraints.Constraint,), own)()

    def after_update(self, values: Any) -> Any:
        """Return what the variable is to be after an update."""
        if self.before_all is not None:
            self.before_all()
        return self.masked(values)

    def masked(self, values: Any) -> Any:
        """Apply the earlier constraint, then the mask."""
        constrained = values if self._before is None else self._before(values)
        return constrained * self.mask

    def prune(self, mask: Mask) -> None:
        """Set the mask, and what it leaves out to zero."""
        self.mask.assign(mask.astype(np.float32))
        self.variable.assign(self.variable * self.mask)


def _redraw_every(frequency: int, holders: Mapping[str, _MaskConstraint], draw: Draw) -> None:
    """Have masks drawn anew in the midst of training, after every ``frequency`` updates.

    The compiled loop stays as it is. Optimizers call the constraints after all variables have been
    updated; the first constraint counts the updates and, where the masks are due, leaves the graph
    for NumPy. XLA cannot do that: the loop has to be compiled without it.
    """
    import keras
    import tensorflow as tf

    updates = keras.Variable(0, dtype="int64", trainable=False)

    def in_numpy(step: Any, *values: Array) -> list[Array]:
        masks = draw(int(step), dict(zip(holders, values, strict=True)))
        return [masks[name].astype(np.float32) for name in holders]

    def renew() -> Any:
        weights = [holder.masked(holder.variable) for holder in holders.values()]
        inputs = [updates.value, *weights]
        masks = tf.nest.flatten(tf.numpy_function(in_numpy, inputs, [tf.float32] * len(holders)))
        for holder, mask in zip(holders.values(), masks, strict=True):
            holder.mask.assign(tf.ensure_shape(mask, holder.mask.shape))
        return tf.constant(True)

    def count() -> None:
        updates.assign_add(1)
        tf.cond(updates.value % frequency == 0, renew, lambda: tf.constant(False))

    next(iter(holders.values())).before_all = count
