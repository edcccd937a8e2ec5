"""Neurons, or a whole hidden layer, out of a rating model: what is left is smaller and dense."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import (
    check_choice,
    check_ids,
    check_names,
    check_number,
    store_flags,
    store_numbers,
    store_shares,
)
from recsys_lib.compression import CompressedModel, named_weights, with_weights
from recsys_lib.compression.pruning.prune import Pruning
from recsys_lib.compression.pruning.rating_models import (
    RIDGE,
    HiddenLayer,
    as_compressed,
    hidden_layers,
    layer_outputs,
    read_config,
    rebuild,
    ridge_regression,
    sample_pairs,
)
from recsys_lib.compression.weights import keras_model
from recsys_lib.data import Interactions
from recsys_lib.models import RatingModelConfig

METHODS = ("magnitude", "activation", "taylor")
Removed = dict[HiddenLayer, NDArray[np.int64]]
Importance = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class NeuronPruning(Pruning):
    """Remove the least important neurons of a model with hidden layers.

    In a two_tower both towers keep equal widths, as the configuration wants them; of the last layer
    both lose the same outputs, since these are multiplied with each other. What is left is dense
    and smaller; train it on with :func:`recsys_lib.training.fit`.

    Args:
        sparsity: fraction of neurons to remove, in [0, 1).
        method: "magnitude", "activation" or "taylor", see :func:`neuron_importance`.
        scope: "layer" removes the fraction from each layer; "global" removes the least important of
            all layers together. Importance is then compared across layers: as it is for "taylor",
            whose unit is the loss everywhere, divided by the layer's root mean square for the
            others. A layer keeps one neuron at least.
        refit: give each layer that reads fewer neurons the kernel and bias with which it receives,
            by least squares over the sample, most nearly what it received before.
        seed: of the interactions that importance is measured on, and kernels are fitted on.

    Raises:
        TypeError: an argument of a wrong type.
        ValueError: an argument out of range.

    Source:
        Molchanov et al., *Pruning Convolutional Neural Networks for Resource Efficient Inference*,
        ICLR 2017, section 2.2 (layers made comparable by a norm of their importance); He, Zhang &
        Sun, *Channel Pruning for Accelerating Very Deep Neural Networks*, ICCV 2017, section 3.1
        (refit).

    Example:
        >>> from recsys_lib.compression.pruning import prune
        >>> from recsys_lib.models import build_rating_model
        >>> model = build_rating_model(RatingModelConfig("mlp_ranker", 5, 7, 4, hidden_units=(8,)))
        >>> pruned = prune(model, NeuronPruning(0.75, "magnitude"))
        >>> [weights.shape for weights in pruned.model.get_weights()[2:]]
        [(8, 2), (2,), (2, 1), (1,)]
    """

    sparsity: float
    method: str = "taylor"
    scope: str = "layer"
    refit: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        store_numbers(self, 0, "seed", integer=True)
        store_shares(self, "sparsity")
        store_flags(self, "refit")
        check_choice("method", self.method, METHODS)
        check_choice("scope", self.scope, ("layer", "global"))

    def apply(self, model: Any, data: Interactions | None = None) -> CompressedModel:
        """Return the model without its least important neurons."""
        importance = neuron_importance(model, self.method, data, seed=self.seed)
        shape = read_config(model)
        removed = self._least_important(shape, importance)
        smaller = _remove(model, shape, removed)
        if self.refit:
            users, items, _ = sample_pairs(model, data, seed=self.seed)
            smaller = refit_readers(model, smaller, removed, users, items)
        return as_compressed("neuron pruning", self, model, smaller)

    def _least_important(self, shape: RatingModelConfig, importance: Importance) -> Removed:
        groups = _by_position(shape)
        rated = []  # for each width, the neurons of each of the layers that have it
        for layers in groups:
            values = [importance[layer.name].astype(np.float64) for layer in layers]
            if self.scope == "global" and self.method != "taylor":
                values = [v / max(float(np.sqrt(np.mean(v**2))), 1e-30) for v in values]
            if layers[0].reader is None:
                values = [np.sum(values, axis=0)] * len(layers)
            rated.append(values)
        counts = self._counts(rated)
        return {
            layer: np.sort(np.argsort(v, kind="stable")[:count])
            for layers, values, count in zip(groups, rated, counts, strict=True)
            for layer, v in zip(layers, values, strict=True)
        }

    def _counts(self, rated: list[list[Any]]) -> list[int]:
        """Decide how many neurons each width loses."""
        widths = [len(values[0]) for values in rated]
        if self.scope == "layer":
            return [min(round(self.sparsity * width), width - 1) for width in widths]
        costs = [np.mean([np.sort(v) for v in values], axis=0) for values in rated]
        allowed = np.concatenate([cost[:-1] for cost in costs])  # the most important one stays
        group = np.repeat(np.arange(len(widths)), np.array(widths) - 1)
        chosen = np.argsort(allowed, kind="stable")[: round(self.sparsity * sum(widths))]
        return np.bincount(group[chosen], minlength=len(widths)).tolist()


def neuron_importance(
    model: Any, method: str = "taylor", interactions: Interactions | None = None, **options: Any
) -> Importance:
    """Return how much each neuron of each hidden layer matters; the lowest are the first to go.

    With z the output of a neuron (after its activation) and L the cross-entropy of one pair, both
    taken over a sample of interactions (label 1) and drawn items (label 0):

    - "magnitude": ``sum |w|`` over the weights that lead into the neuron. Needs no data.
    - "activation": mean of ``|z|``.
    - "taylor": mean of ``|z dL/dz|``, to first order how much L changes when z becomes 0. The
      absolute value is taken for each pair: the plain mean is zero wherever training has converged.

    Args:
        model: mlp_ranker, neumf or two_tower of ``build_rating_model`` (Keras 3 or tf_keras), or a
            fitted KerasRecommender around one.
        method: one of the above.
        interactions: what to sample from; not needed for "magnitude".
        **options: of the sample, see :func:`sample_pairs`.

    Returns:
        For each hidden layer by name (width,) float32 of 0 or more.

    Raises:
        TypeError: not such a model, or not Interactions.
        ValueError: an unknown method, no interactions where they are needed or of other counts
            than the model, or a model without hidden layers.

    Source:
        "magnitude": Li et al., *Pruning Filters for Efficient ConvNets*, ICLR 2017, section 3.1.
        "activation" and "taylor": Molchanov et al., *Pruning Convolutional Neural Networks for
        Resource Efficient Inference*, ICLR 2017, section 2.2, equation 8 for each example.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("mlp_ranker", 5, 7, 4, hidden_units=(3,)))
        >>> neuron_importance(model, "magnitude")["dense_0"].shape
        (3,)
    """
    check_choice("method", method, METHODS)
    config = read_config(model)
    layers = [layer.name for layer in hidden_layers(config)]
    if not layers:
        raise ValueError(f"model is a {config.kind}: expected one that has hidden layers")
    if method == "magnitude":
        weights = named_weights(model)
        return {name: np.abs(weights[f"{name}/kernel"]).sum(axis=0) for name in layers}
    users, items, labels = sample_pairs(model, interactions, **options)
    import tensorflow as tf

    inner = keras_model(model)
    outputs = [inner.get_layer(name).output for name in layers]
    probe = type(inner)(inner.inputs, [*outputs, inner.outputs[0]])
    with tf.GradientTape() as tape:
        *hidden, logits = probe([users, items], training=False)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(tf.constant(labels), logits)
        total = tf.reduce_sum(losses)  # its gradient for a pair is that of the pair's own loss
    found = [z.numpy() for z in hidden]
    if method == "taylor":
        slopes = tape.gradient(total, hidden)
        found = [z * slope.numpy() for z, slope in zip(found, slopes, strict=True)]
    return {name: np.abs(v).mean(axis=0) for name, v in zip(layers, found, strict=True)}


def remove_neurons(model: Any, neurons: Mapping[str, ArrayLike]) -> CompressedModel:
    """Return the model without some neurons, given by number.

    A neuron is a column of its layer's kernel, an entry of its bias, and the row of the next kernel
    that reads it; all three go. A neuron whose row is zero is dead: without it, no score changes.

    Args:
        model: as for :func:`neuron_importance`; it stays as it is.
        neurons: for some hidden layers by name, different integers in [0, width), not all of them.

    Raises:
        TypeError: not such a model, or not integers.
        ValueError: an unknown layer, a number that is out of range or there twice, a layer that
            would lose all neurons, or two towers that would differ in width or in their outputs.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("mlp_ranker", 5, 7, 4, hidden_units=(3,)))
        >>> remove_neurons(model, {"dense_0": [0, 2]}).model.get_layer("dense_0").units
        1
    """
    config = read_config(model)
    check_names("neurons", neurons, [layer.name for layer in hidden_layers(config)])
    removed = {}
    for layer in hidden_layers(config):
        name, width = f"neurons[{layer.name!r}]", (config.hidden_units or ())[layer.position]
        ids = check_ids(name, neurons.get(layer.name, ()), width)
        removed[layer] = np.unique(ids)
        if len(removed[layer]) < len(ids) or len(ids) == width:
            raise ValueError(f"{name} is {ids}: expected different ones, not all {width}")
    for layers in _by_position(config):
        first, last = removed[layers[0]], removed[layers[-1]]
        if len(first) != len(last) or (layers[0].reader is None and (first != last).any()):
            pair = f"{first} of {layers[0].name} and {last} of {layers[-1].name}"
            raise ValueError(f"neurons takes {pair}: expected as many, and the same outputs")
    choice = {layer.name: tuple(ids.tolist()) for layer, ids in removed.items()}
    return as_compressed("neuron pruning", choice, model, _remove(model, config, removed))


def refit_readers(model: Any, smaller: Any, removed: Removed, users: Any, items: Any) -> Any:
    """Fit the layers that read pruned ones to what they received in the whole model.

    From the first layer to the last: with Z the outputs of a layer of ``model`` and Y those of the
    same layer of ``smaller``, whose own readers before it are fitted already, the new kernel V and
    bias c of its reader minimise ``|Y V + c - (Z V0 + c0)|^2`` over the pairs.

    Args:
        model: the whole rating model, with kernel V0 and bias c0.
        smaller: the same model without some neurons; both stay as they are.
        removed: those neurons, by layer of the whole model.
        users: (n,) user ids of the pairs.
        items: (n,) item ids.

    Returns:
        A model of the shapes of ``smaller``.

    Source:
        He, Zhang & Sun, *Channel Pruning for Accelerating Very Deep Neural Networks*, ICCV 2017,
        section 3.1.
    """
    before = named_weights(model)
    by_name: dict[str | None, Any] = {layer.name: ids for layer, ids in removed.items()}
    for layer in (layer for layer in removed if layer.reader is not None):
        outputs = layer_outputs(model, layer.name, users, items)
        inputs = layer_outputs(smaller, layer.name, users, items)
        if np.array_equal(inputs, outputs):
            continue  # nothing is missing yet
        kernel, bias = f"{layer.reader}/kernel", f"{layer.reader}/bias"
        targets = outputs @ before[kernel][layer.offset :] + before[bias]
        targets = np.delete(targets, by_name.get(layer.reader, ()), axis=1)
        new, shift = ridge_regression(inputs, targets)
        kept = named_weights(smaller)[kernel][: layer.offset]
        smaller = with_weights(smaller, {kernel: np.vstack([kept, new]), bias: shift})
    return smaller


def _remove(model: Any, config: RatingModelConfig, removed: Removed) -> Any:
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
    layers, depth = hidden_layers(config), len(config.hidden_units or ())
    return [[layer for layer in layers if layer.position == n] for n in range(depth)]


@dataclass(frozen=True)
class LayerRemoval(Pruning):
    """Remove a hidden layer; the one that read it reads the layer before instead.

    Widths always fit, because the reader gets a new kernel. With x the inputs of the removed layer,
    ``f(x W + b)`` its outputs, and V, c the reader's kernel (or the part of it that reads this
    layer) and bias, the new kernel M and bias m are

    - without data ``M = W V, m = b V + c``: exact if f is linear;
    - with data the least-squares fit of ``x M + m`` to ``f(x W + b) V + c`` over a sample of pairs.

    Args:
        position: of the layer, 0 for the first after the embeddings. In a two_tower both towers
            lose the layer there, and their last one, which is linear, has to stay.
        ridge: penalty of the fit, as a share of the mean square of an input.

    Raises:
        TypeError: an argument is not a number.
        ValueError: an argument is out of range.

    Example:
        >>> from recsys_lib.compression.pruning import prune
        >>> from recsys_lib.models import build_rating_model
        >>> model = build_rating_model(RatingModelConfig("mlp_ranker", 5, 7, 4))
        >>> smaller = prune(model, LayerRemoval(1)).model
        >>> [tuple(layer.kernel.shape) for layer in smaller.layers if hasattr(layer, "kernel")]
        [(8, 64), (64, 16), (16, 1)]
    """

    position: int
    ridge: float = RIDGE

    def __post_init__(self) -> None:
        store_numbers(self, 0, "position", integer=True)
        store_numbers(self, 0, "ridge", include_low=False)

    def apply(self, model: Any, data: Interactions | None = None) -> CompressedModel:
        """Return the model without the layer."""
        import keras

        shape = read_config(model)
        check_number("position", self.position, 0, _count_removable(shape) - 1, integer=True)
        weights = dict(named_weights(model))
        activate = keras.activations.get(shape.activation)
        for layer in _by_position(shape)[self.position]:
            parts = [weights.pop(f"{layer.name}/{part}") for part in ("kernel", "bias")]
            kernel, bias = (values.astype(np.float64) for values in parts)
            untouched, read = np.split(weights[f"{layer.reader}/kernel"], [layer.offset])
            if data is None:
                new, shift = kernel @ read, bias @ read
            else:
                users, items, _ = sample_pairs(model, data)
                inputs = layer_outputs(model, _layer_before(layer), users, items)
                outputs = np.asarray(activate(inputs @ kernel + bias), np.float64)
                new, shift = ridge_regression(inputs, outputs @ read, self.ridge)
            weights[f"{layer.reader}/kernel"] = np.vstack([untouched, new]).astype(np.float32)
            weights[f"{layer.reader}/bias"] += shift.astype(np.float32)
        renamed = {_moved_up(name, self.position): values for name, values in weights.items()}
        units = tuple(w for n, w in enumerate(shape.hidden_units or ()) if n != self.position)
        smaller = rebuild(model, replace(shape, hidden_units=units), renamed)
        return as_compressed("layer removal", self, model, smaller)


def ablate_layers(
    model: Any, metric: Callable[[Any], float], interactions: Interactions | None = None
) -> dict[int, float]:
    """Return what a model achieves without each of its hidden layers in turn.

    Args:
        model: as for :class:`LayerRemoval`.
        metric: of a model of the same type as ``model``, on validation data.
        interactions: to fit the bridges on, or None to fold kernels.

    Returns:
        The metric by position of the layer that was missing; the layer that matters least has the
        best one.

    Raises:
        TypeError, ValueError: as for :class:`LayerRemoval`.

    Example:
        >>> from recsys_lib.models import build_rating_model
        >>> model = build_rating_model(RatingModelConfig("mlp_ranker", 5, 7, 4))
        >>> ablate_layers(model, lambda smaller: smaller.count_params())
        {0: 881.0, 1: 1681.0, 2: 2737.0}
    """
    places = range(_count_removable(read_config(model)))
    return {n: float(metric(LayerRemoval(n).apply(model, interactions).model)) for n in places}


def _count_removable(shape: RatingModelConfig) -> int:
    units = len(shape.hidden_units or ())
    if units < 2:
        raise ValueError(f"model has {units} hidden layers: expected two or more, so one can go")
    return units - (shape.kind == "two_tower")


def _layer_before(layer: HiddenLayer) -> str:
    stem = layer.name.rsplit("_", 1)[0]
    if layer.position:
        return f"{stem}_{layer.position - 1}"
    return {"user_dense": "user_embedding", "item_dense": "item_embedding"}.get(stem, "concatenate")


def _moved_up(name: str, position: int) -> str:
    """Return the name that a weight has when the layer at a position is gone."""
    layer, part = name.split("/")
    stem, _, number = layer.rpartition("_")
    if stem.endswith("dense") and int(number) > position:
        layer = f"{stem}_{int(number) - 1}"
    return f"{layer}/{part}"
