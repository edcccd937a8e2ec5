"""Neurons out of a rating model: what is left is a smaller dense model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_choice, check_names, check_number, check_sparsity
from recsys_lib.compression.compressed import CompressedModel
from recsys_lib.compression.pruning.importance import METHODS, neuron_importance, sample_pairs
from recsys_lib.compression.pruning.rating_models import (
    HiddenLayer,
    as_compressed,
    hidden_layers,
    read_config,
    rebuild,
)
from recsys_lib.compression.pruning.refit import refit_readers
from recsys_lib.compression.weights import named_weights
from recsys_lib.data import Interactions
from recsys_lib.models import RatingModelConfig


@dataclass(frozen=True)
class NeuronPruning:
    """How many neurons go, and which ones.

    Args:
        sparsity: fraction of neurons to remove, in [0, 1): one for all layers, or by layer name
            (layers that are not named stay whole).
        method: "magnitude", "activation" or "taylor", see :func:`neuron_importance`.
        scope: "layer" removes the fraction from each layer; "global" removes the least important of
            all layers together. Importance is then compared across layers: as it is for "taylor",
            whose unit is the loss everywhere, divided by the layer's root mean square for the
            others. A layer keeps one neuron at least.
        refit: give each layer that reads fewer neurons the kernel and bias with which it receives,
            by least squares over the sample, most nearly what it received before.
        num_samples: interactions that importance is measured on, and kernels are fitted on.
        seed: of their sample.

    Raises:
        TypeError: an argument of a wrong type.
        ValueError: an argument out of range, or sparsities by layer with scope "global".

    Source:
        Molchanov et al., *Pruning Convolutional Neural Networks for Resource Efficient Inference*,
        ICLR 2017, section 2.2 (layers made comparable by a norm of their importance); He, Zhang &
        Sun, *Channel Pruning for Accelerating Very Deep Neural Networks*, ICCV 2017, section 3.1
        (refit).

    Example:
        >>> NeuronPruning(1.0)
        Traceback (most recent call last):
        ValueError: sparsity is 1.0: expected a number in [0, 1)
    """

    sparsity: float | Mapping[str, float]
    method: str = "taylor"
    scope: str = "layer"
    refit: bool = False
    num_samples: int = 4096
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (("num_samples", 1), ("seed", 0)):
            check_number(name, getattr(self, name), low, integer=True)
        check_choice("method", self.method, METHODS)
        check_choice("scope", self.scope, ("layer", "global"))
        if not isinstance(self.sparsity, Mapping):
            check_sparsity(self.sparsity)
            return
        if self.scope == "global":
            raise ValueError("sparsity is given by layer: expected one number for scope 'global'")
        for name, fraction in self.sparsity.items():
            check_sparsity(fraction, f"sparsity[{name!r}]")


def prune_neurons(
    model: Any, config: NeuronPruning, interactions: Interactions | None = None
) -> CompressedModel:
    """Remove the least important neurons.

    In a two_tower both towers keep equal widths, as the configuration wants them; of the last layer
    both lose the same outputs, since these are multiplied with each other.

    Args:
        model: mlp_ranker, neumf or two_tower of ``build_rating_model`` (Keras 3 or tf_keras), or a
            fitted KerasRecommender around one; it stays as it is.
        config: how many and which.
        interactions: for the methods that look at data.

    Returns:
        ``.model`` is of the same kind, dense and smaller; train it on with
        :func:`recsys_lib.training.fit`.

    Raises:
        TypeError: not such a model, or not Interactions.
        ValueError: an unknown layer, or as for :func:`neuron_importance`.

    Example:
        >>> from recsys_lib.models import build_rating_model
        >>> model = build_rating_model(RatingModelConfig("mlp_ranker", 5, 7, 4, hidden_units=(8,)))
        >>> pruned = prune_neurons(model, NeuronPruning(0.75, "magnitude"))
        >>> [weights.shape for weights in pruned.model.get_weights()[2:]]
        [(8, 2), (2,), (2, 1), (1,)]
    """
    options = {"num_samples": config.num_samples, "seed": config.seed}
    if config.refit:
        pairs = sample_pairs(model, interactions, **options)[:2]
    importance = neuron_importance(model, config.method, interactions, **options)
    shape = read_config(model)
    removed = _least_important(shape, config, importance)
    smaller = _remove(model, shape, removed)
    if config.refit:
        by_name = {layer.name: ids for layer, ids in removed.items()}
        smaller = refit_readers(model, smaller, by_name, *pairs)
    return as_compressed("neuron pruning", config, model, smaller)


def remove_neurons(model: Any, neurons: Mapping[str, ArrayLike]) -> CompressedModel:
    """Remove neurons by number.

    A neuron is a column of its layer's kernel, an entry of its bias, and the row of the next kernel
    that reads it; all three go. A neuron whose row is zero is dead: without it, no score changes.

    Args:
        model: as for :func:`prune_neurons`.
        neurons: for some hidden layers by name, different integers in [0, width), not all of them.

    Raises:
        TypeError: not such a model, or not integers.
        ValueError: an unknown layer, a number that is out of range or there twice, a layer that
            would lose all neurons, or two towers that would differ in width or in their outputs.

    Example:
        >>> from recsys_lib.models import build_rating_model
        >>> model = build_rating_model(RatingModelConfig("mlp_ranker", 5, 7, 4, hidden_units=(3,)))
        >>> remove_neurons(model, {"dense_0": [0, 2]}).model.get_layer("dense_0").units
        1
    """
    config = read_config(model)
    check_names("neurons", neurons, [layer.name for layer in hidden_layers(config)])
    removed = {layer: _checked(layer, config, neurons) for layer in hidden_layers(config)}
    _check_towers(config, removed)
    choice = {layer.name: tuple(ids.tolist()) for layer, ids in removed.items()}
    return as_compressed("neuron pruning", choice, model, _remove(model, config, removed))


def _checked(
    layer: HiddenLayer, config: RatingModelConfig, neurons: Mapping[str, ArrayLike]
) -> NDArray[np.int64]:
    name, width = f"neurons[{layer.name!r}]", (config.hidden_units or ())[layer.position]
    ids = np.asarray(neurons.get(layer.name, ()))
    if ids.ndim != 1:
        raise ValueError(f"{name} has shape {ids.shape}: expected one dimension, (n,)")
    if ids.size and ids.dtype.kind not in "iu":
        raise TypeError(f"{name} is of type {ids.dtype}: expected integers")
    ids = ids.astype(np.int64)
    if ids.size and (ids.min() < 0 or ids.max() >= width):
        wrong = ids[(ids < 0) | (ids >= width)][0]
        raise ValueError(f"{name} holds {wrong}: expected neurons in [0, {width})")
    if len(np.unique(ids)) != len(ids):
        raise ValueError(f"{name} holds a neuron twice: expected different ones")
    if len(ids) == width:
        raise ValueError(
            f"{name} names all {width} neurons: expected at least one to stay "
            "(drop_layer removes a layer)"
        )
    return np.sort(ids)


def _check_towers(
    config: RatingModelConfig, removed: Mapping[HiddenLayer, NDArray[np.int64]]
) -> None:
    for layers in _by_position(config):
        first, *others = (removed[layer] for layer in layers)
        for other in others:
            if len(other) != len(first):
                raise ValueError(
                    f"neurons takes {len(first)} from {layers[0].name} and {len(other)} from "
                    f"{layers[1].name}: expected as many from both towers"
                )
            if layers[0].reader is None and (other != first).any():
                raise ValueError(
                    f"neurons takes other outputs from {layers[0].name} than from "
                    f"{layers[1].name}: expected the same, which are multiplied with each other"
                )


def _remove(
    model: Any, config: RatingModelConfig, removed: Mapping[HiddenLayer, NDArray[np.int64]]
) -> Any:
    weights = dict(named_weights(model))
    units = list(config.hidden_units or ())
    for layer, ids in removed.items():
        for part in ("kernel", "bias"):
            name = f"{layer.name}/{part}"
            weights[name] = np.delete(weights[name], ids, axis=-1)
        if layer.reader is not None:
            name = f"{layer.reader}/kernel"
            weights[name] = np.delete(weights[name], ids + layer.offset, axis=0)
        units[layer.position] = weights[f"{layer.name}/bias"].size
    return rebuild(model, replace(config, hidden_units=tuple(units)), weights)


def _by_position(config: RatingModelConfig) -> list[list[HiddenLayer]]:
    """Group the layers that have one width: the two towers', or each alone."""
    layers = hidden_layers(config)
    return [
        [layer for layer in layers if layer.position == n]
        for n in range(len(config.hidden_units or ()))
    ]


def _least_important(
    shape: RatingModelConfig, config: NeuronPruning, importance: Mapping[str, NDArray[np.float32]]
) -> dict[HiddenLayer, NDArray[np.int64]]:
    orders: dict[HiddenLayer, NDArray[np.int64]] = {}
    costs: list[NDArray[np.float64]] = []  # of the neurons of each width, in order of removal
    groups = _by_position(shape)
    for layers in groups:
        values = [importance[layer.name].astype(np.float64) for layer in layers]
        if config.scope == "global" and config.method != "taylor":
            values = [v / max(float(np.sqrt(np.mean(v**2))), 1e-30) for v in values]
        if layers[0].reader is None:
            values = [np.sum(values, axis=0)] * len(layers)
        for layer, v in zip(layers, values, strict=True):
            orders[layer] = np.argsort(v, kind="stable")
        costs.append(np.mean([np.sort(v) for v in values], axis=0))
    removed: dict[HiddenLayer, NDArray[np.int64]] = {}
    for layers, count in zip(groups, _counts(groups, config, costs), strict=True):
        removed |= {layer: np.sort(orders[layer][:count]) for layer in layers}
    return removed


def _counts(
    groups: list[list[HiddenLayer]], config: NeuronPruning, costs: list[NDArray[np.float64]]
) -> list[int]:
    """Decide how many neurons each width loses."""
    widths = [len(cost) for cost in costs]
    asked = config.sparsity
    if config.scope == "global":
        assert not isinstance(asked, Mapping)
        allowed = np.concatenate([cost[:-1] for cost in costs])  # the most important one stays
        group = np.repeat(np.arange(len(widths)), np.array(widths) - 1)
        chosen = np.argsort(allowed, kind="stable")[: round(asked * sum(widths))]
        return np.bincount(group[chosen], minlength=len(widths)).tolist()
    if not isinstance(asked, Mapping):
        return [min(round(asked * width), width - 1) for width in widths]
    check_names("sparsity", asked, [x.name for layers in groups for x in layers])
    counts = []
    for layers, width in zip(groups, widths, strict=True):
        fractions = {asked.get(layer.name, 0.0) for layer in layers}
        if len(fractions) > 1:
            raise ValueError(
                f"sparsity differs between {' and '.join(layer.name for layer in layers)}: "
                "expected the same for both towers"
            )
        counts.append(min(round(fractions.pop() * width), width - 1))
    return counts
