"""Train while pruning: masks that grow with a schedule and hold through any optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.compression.compressed import CompressedModel, store_weights
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
from recsys_lib.models.factors import FactorModel
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
        sparsities: fraction of zeros in the masks during each epoch.
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
    **options: Any,
) -> PrunedModel:
    """Train a model on, and prune it on the way.

    A step of the schedule is an epoch: before epoch ``e``, counted from 0, the masks are drawn
    anew from the magnitudes at ``schedule(e, sparsity)``, and the weights outside them become
    zero. Within an epoch they stay zero after each update, whichever optimizer made it, because
    the mask is set as the *constraint* of its variable, and Keras optimizers apply constraints
    last of all. After the last epoch nothing is pruned any more. A table costs one more pass over
    all of its numbers per update.

    To compare with, train as long without pruning: ``WeightPruning(sparsity=0.0)``.

    Args:
        model: Keras 3 model, or a fitted KerasRecommender, whose own options of training are then
            the defaults. It stays as it is, and training goes on from its weights.
        interactions: what to train on.
        config: what to prune, and the final sparsity.
        schedule: None prunes at once, before the first epoch.
        **options: of :func:`recsys_lib.training.fit`, without ``patience``, ``checkpoint`` and
            ``resume``.

    Returns:
        A new model without constraints, with report, masks and history. The error in the report
        includes what training changed.

    Raises:
        TypeError: a model that cannot be trained here, or an option that fit does not have.
        ValueError: an argument out of range, an unknown name, or a schedule that does not reach
            its end before the last epoch.

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
    options = _training_options(model, options)
    _check_model(model)
    inner = keras_model(with_weights(model, {}))
    final = final_sparsities(named_weights(inner), config)
    _check_schedule(schedule, final, options.get("epochs", 10))
    masks: dict[str, NDArray[np.bool_]] = {}
    holders = _constrain(inner, list(final))
    course: list[float] = []

    def prune(epoch: int) -> None:
        now = {name: schedule(epoch, sparsity) for name, sparsity in final.items()}
        before = {name: schedule(epoch - 1, sparsity) for name, sparsity in final.items()}
        if epoch == 0 or now != before:
            masks.update(pruning_masks(named_weights(inner), config, now))
            for name, holder in holders.items():
                holder.prune(masks[name])
        sizes = [mask.size for mask in masks.values()]
        course.append(
            float(np.average([1 - mask.mean() for mask in masks.values()], weights=sizes))
        )

    on_epoch_end = options.pop("on_epoch_end", None)

    def after_epoch(epoch: int, logs: Mapping[str, float]) -> None:
        if epoch < options.get("epochs", 10):  # epochs are counted from 1 here
            prune(epoch)
        if on_epoch_end is not None:
            on_epoch_end(epoch, logs)

    prune(0)
    history = fit(inner, interactions, on_epoch_end=after_epoch, **options)
    weights = named_weights(inner)
    tensors = {
        name: store_sparse(values, config.layout if name in final else "dense")
        for name, values in weights.items()
    }
    # A fresh clone takes the weights, so that no constraint is left on the result.
    stored = store_weights("weight pruning in training", config, model, tensors)
    return PrunedModel(stored.tensors, stored.model, stored.report, masks, history, tuple(course))


class _MaskConstraint:
    """Multiplies a variable by its mask, after the constraint that it had before."""

    def __init__(self, variable: Any) -> None:
        import keras

        self._variable = variable
        self._before = variable.constraint
        self._mask = keras.Variable(np.ones(variable.shape, np.float32), trainable=False)
        variable.constraint = self

    def __call__(self, values: Any) -> Any:
        constrained = values if self._before is None else self._before(values)
        return constrained * self._mask

    def prune(self, mask: NDArray[np.bool_]) -> None:
        self._mask.assign(mask.astype(np.float32))
        self._variable.assign(self._variable * self._mask)


def _constrain(model: Any, names: list[str]) -> dict[str, _MaskConstraint]:
    variables = dict(zip(named_weights(model), model.weights, strict=True))
    frozen = [name for name in names if not variables[name].trainable]
    if frozen:
        raise ValueError(f"{frozen[0]} is not trainable: expected weights that training changes")
    return {name: _MaskConstraint(variables[name]) for name in names}


def _training_options(model: Any, options: dict[str, Any]) -> dict[str, Any]:
    refused = [name for name in _REFUSED if name in options]
    if refused:
        raise ValueError(
            f"{refused[0]} is given: weights of another epoch would have other zeros; expected "
            f"options of fit without {', '.join(_REFUSED)}"
        )
    own = getattr(model, "options", {}) if isinstance(model, Recommender) else {}
    return {k: v for k, v in own.items() if k not in _NOT_TAKEN_OVER} | options


def _check_model(model: Any) -> None:
    import keras

    if isinstance(model, FactorModel):
        raise TypeError(
            f"model is of type {type(model).__name__}: expected a Keras 3 model or a "
            "KerasRecommender (prune_weights prunes factor models)"
        )
    if not isinstance(keras_model(model), keras.Model):
        raise TypeError(
            f"model is a {type(model).__module__.split('.')[0]} model: expected Keras 3 (for its "
            "tf_keras twin there is recsys_lib.compression.tfmot)"
        )


def _check_schedule(schedule: Callable[..., float], final: dict[str, float], epochs: int) -> None:
    for sparsity in final.values():
        last = schedule(epochs - 1, sparsity)
        if last != sparsity:
            raise ValueError(
                f"schedule reaches sparsity {last:.4g} in the last of {epochs} epochs: expected "
                f"{sparsity}, so an end_step of at most {epochs - 1} or more epochs"
            )
