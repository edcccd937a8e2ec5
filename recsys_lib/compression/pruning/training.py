"""Train while pruning: masks that grow with a schedule and hold through any optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_number
from recsys_lib.compression.compressed import CompressedModel, store_weights
from recsys_lib.compression.pruning.constraints import MaskConstraint, Masks, redraw_every
from recsys_lib.compression.pruning.schedules import ConstantSchedule, Schedule
from recsys_lib.compression.pruning.sparse import store_sparse
from recsys_lib.compression.pruning.weights import (
    WeightPruning,
    check_pruning,
    final_sparsities,
    pruning_masks,
)
from recsys_lib.compression.weights import keras_model, named_weights, with_weights
from recsys_lib.data import Interactions
from recsys_lib.models import Recommender
from recsys_lib.models.factors import Factors
from recsys_lib.training import History, fit

# These bring back weights of an earlier epoch, when fewer of them were zero.
_REFUSED = ("patience", "checkpoint", "resume")
_NOT_TAKEN_OVER = (*_REFUSED, "log_dir", "on_epoch_end", "validation", "metric")


@dataclass(frozen=True, eq=False, repr=False)
class PrunedModel(CompressedModel):
    """A model that was trained while it was pruned.

    Args:
        masks: of the pruned weights by name, True where a weight was kept.
        history: the course of training.
        sparsities: fraction of zeros in the masks at the end of each epoch.
    """

    masks: Mapping[str, NDArray[np.bool_]]
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
    """Train a model on, and prune it on the way.

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
        schedule: None prunes at once, before the first epoch.
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
    check_pruning(config)
    schedule = schedule or ConstantSchedule()
    options = _training_options(model, options, frequency)
    _check_model(model)
    inner = keras_model(with_weights(model, {}))
    final = final_sparsities(named_weights(inner), config)
    epochs = options.get("epochs", 10)
    _check_schedule(schedule, final, epochs, _last_draw(interactions, frequency, epochs, options))
    masks: dict[str, NDArray[np.bool_]] = {}
    holders = _constrain(inner, list(final))
    course: list[float] = []
    drawn: list[dict[str, float]] = [{}]

    def draw(step: int, weights: Mapping[str, NDArray[np.float32]]) -> Masks:
        """Draw the masks where the schedule has moved; what diverges is left for fit to report."""
        now = {name: schedule(step, sparsity) for name, sparsity in final.items()}
        if now != drawn[0] and all(np.isfinite(weights[name]).all() for name in final):
            masks.update(pruning_masks(weights, config, now))
            drawn[0] = now
        return masks

    def prune(step: int) -> None:
        for name, mask in draw(step, named_weights(inner)).items():
            holders[name].prune(mask)

    on_epoch_end = options.pop("on_epoch_end", None)

    def after_epoch(epoch: int, logs: Mapping[str, float]) -> None:
        sizes = [mask.size for mask in masks.values()]
        zeros = [1 - mask.mean() for mask in masks.values()]
        course.append(float(np.average(zeros, weights=sizes)))
        if frequency is None and epoch < epochs:  # epochs are counted from 1 here
            prune(epoch)
        if on_epoch_end is not None:
            on_epoch_end(epoch, logs)

    prune(0)
    if frequency is not None:
        redraw_every(frequency, holders, draw)
    history = fit(inner, interactions, on_epoch_end=after_epoch, **options)
    weights = named_weights(inner)
    tensors = {
        name: store_sparse(values, config.layout if name in final else "dense")
        for name, values in weights.items()
    }
    # A fresh clone takes the weights, so that no constraint is left on the result.
    stored = store_weights("weight pruning in training", config, model, tensors)
    return PrunedModel(stored.tensors, stored.model, stored.report, masks, history, tuple(course))


def _constrain(model: Any, names: list[str]) -> dict[str, MaskConstraint]:
    variables = dict(zip(named_weights(model), model.weights, strict=True))
    frozen = [name for name in names if not variables[name].trainable]
    if frozen:
        raise ValueError(f"{frozen[0]} is not trainable: expected weights that training changes")
    return {name: MaskConstraint(variables[name]) for name in names}


def _training_options(model: Any, options: dict[str, Any], frequency: int | None) -> dict[str, Any]:
    refused = [name for name in _REFUSED if name in options]
    if refused:
        raise ValueError(
            f"{refused[0]} is given: weights of another epoch would have other zeros; expected "
            f"options of fit without {', '.join(_REFUSED)}"
        )
    own = getattr(model, "options", {}) if isinstance(model, Recommender) else {}
    own = {k: v for k, v in own.items() if k not in _NOT_TAKEN_OVER}
    if frequency is None:
        return own | options
    check_number("frequency", frequency, 1, integer=True)
    if options.get("jit_compile"):
        raise ValueError(
            f"jit_compile is True and frequency {frequency}: masks are drawn in NumPy, which XLA "
            "cannot call; expected jit_compile=False, or frequency=None"
        )
    return own | options | {"jit_compile": False}


def _last_draw(data: Interactions, frequency: int | None, epochs: int, options: Any) -> int:
    """Give the last step, as the schedule counts, at which masks are drawn for what follows."""
    if frequency is None:
        return epochs - 1
    updates = epochs * -(-len(data) // options.get("batch_size", 8192))
    return (updates - 1) // frequency * frequency


def _check_model(model: Any) -> None:
    import keras

    if isinstance(model, Factors):
        raise TypeError(
            f"model is of type {type(model).__name__}: expected a Keras 3 model or a "
            "KerasRecommender (prune_weights prunes factor models)"
        )
    if not isinstance(keras_model(model), keras.Model):
        raise TypeError(
            f"model is a {type(model).__module__.split('.')[0]} model: expected Keras 3 (for its "
            "tf_keras twin there is recsys_lib.compression.tfmot)"
        )


def _check_schedule(
    schedule: Schedule, final: dict[str, float], epochs: int, last_draw: int
) -> None:
    for sparsity in final.values():
        last = schedule(last_draw, sparsity)
        if last != sparsity:
            where = f"at the last draw of masks, step {last_draw}, in {epochs} epochs"
            raise ValueError(
                f"schedule reaches sparsity {last:.4g} {where}: expected {sparsity}, so an "
                f"end_step of at most {last_draw} or more epochs"
            )
