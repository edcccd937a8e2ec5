"""A hidden layer out of a rating model, its work folded into the next layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_number
from recsys_lib.compression.compressed import CompressedModel
from recsys_lib.compression.pruning.importance import layer_outputs, sample_pairs
from recsys_lib.compression.pruning.rating_models import (
    HiddenLayer,
    as_compressed,
    hidden_layers,
    read_config,
    rebuild,
)
from recsys_lib.compression.pruning.refit import RIDGE, ridge_regression
from recsys_lib.compression.weights import named_weights
from recsys_lib.data import Interactions
from recsys_lib.models import RatingModelConfig


@dataclass(frozen=True)
class LayerRemoval:
    """Which hidden layer goes, and how the gap is bridged.

    Args:
        position: of the layer, 0 for the first after the embeddings. In a two_tower both towers
            lose the layer there, and their last one, which is linear, has to stay.
        num_samples: interactions that the bridge is fitted on, with four drawn items each.
        ridge: penalty of that fit, as a share of the mean square of an input.
        seed: of the sample.

    Raises:
        TypeError: an argument is not a number.
        ValueError: an argument is out of range.
    """

    position: int
    num_samples: int = 4096
    ridge: float = RIDGE
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (("position", 0), ("num_samples", 1), ("seed", 0)):
            check_number(name, getattr(self, name), low, integer=True)
        check_number("ridge", self.ridge, 0, include_low=False)


def drop_layer(
    model: Any, config: LayerRemoval, interactions: Interactions | None = None
) -> CompressedModel:
    """Remove a hidden layer; the one that read it reads the layer before instead.

    Widths always fit, because the reader gets a new kernel. With x the inputs of the removed layer,
    ``f(x W + b)`` its outputs, and V, c the reader's kernel (or the part of it that reads this
    layer) and bias, the new kernel M and bias m are

    - without interactions ``M = W V, m = b V + c``: exact if f is linear;
    - with them the least-squares fit of ``x M + m`` to ``f(x W + b) V + c`` over a sample of pairs.

    Args:
        model: mlp_ranker, neumf or two_tower of ``build_rating_model`` (Keras 3 or tf_keras), or a
            fitted KerasRecommender around one; it stays as it is.
        config: which layer.
        interactions: to fit the bridge on, None to fold the kernels.

    Returns:
        ``.model`` is of the same kind with one hidden layer less.

    Raises:
        TypeError: not such a model, or not Interactions.
        ValueError: a layer that is not there or cannot go, or interactions of other counts.

    Example:
        >>> from recsys_lib.models import build_rating_model
        >>> model = build_rating_model(RatingModelConfig("mlp_ranker", 5, 7, 4))
        >>> smaller = drop_layer(model, LayerRemoval(1)).model
        >>> [tuple(layer.kernel.shape) for layer in smaller.layers if hasattr(layer, "kernel")]
        [(8, 64), (64, 16), (16, 1)]
    """
    shape = read_config(model)
    _check_position(shape, config.position)
    removed = [layer for layer in hidden_layers(shape) if layer.position == config.position]
    weights = dict(named_weights(model))
    pairs = None
    if interactions is not None:
        options = {"num_samples": config.num_samples, "seed": config.seed}
        pairs = sample_pairs(model, interactions, **options)[:2]
    for layer in removed:
        inputs = None if pairs is None else _inputs(model, shape, layer, *pairs)
        _bridge(weights, layer, inputs, shape.activation, config.ridge)
    renamed = {_moved_up(name, config.position): values for name, values in weights.items()}
    units = tuple(w for n, w in enumerate(shape.hidden_units or ()) if n != config.position)
    smaller = rebuild(model, replace(shape, hidden_units=units), renamed)
    return as_compressed("layer removal", config, model, smaller)


def ablate_layers(
    model: Any, metric: Callable[[Any], float], interactions: Interactions | None = None
) -> dict[int, float]:
    """Measure a model without each of its hidden layers in turn.

    Args:
        model: as for :func:`drop_layer`.
        metric: of a model of the same type as ``model``, on validation data.
        interactions: as for :func:`drop_layer`.

    Returns:
        The metric by position of the layer that was missing; the layer that matters least has the
        best one.

    Raises:
        TypeError, ValueError: as :func:`drop_layer`.

    Example:
        >>> from recsys_lib.models import build_rating_model
        >>> model = build_rating_model(RatingModelConfig("mlp_ranker", 5, 7, 4))
        >>> ablate_layers(model, lambda smaller: smaller.count_params())
        {0: 881.0, 1: 1681.0, 2: 2737.0}
    """
    shape = read_config(model)
    count = len(shape.hidden_units or ()) - (shape.kind == "two_tower")
    _check_position(shape, 0)
    return {
        position: float(metric(drop_layer(model, LayerRemoval(position), interactions).model))
        for position in range(count)
    }


def _check_position(shape: RatingModelConfig, position: int) -> None:
    units = len(shape.hidden_units or ())
    if units < 2:
        raise ValueError(
            f"model is a {shape.kind} with {units} hidden layers: expected at least two, "
            "one of which can go"
        )
    removable = units - (shape.kind == "two_tower")
    if position >= removable:
        raise ValueError(
            f"position is {position}: expected one in [0, {removable}) of a {shape.kind} with "
            f"hidden units {shape.hidden_units}"
        )


def _inputs(
    model: Any, shape: RatingModelConfig, layer: HiddenLayer, users: Any, items: Any
) -> NDArray[np.float64]:
    """Give what goes into a layer, (n, inputs)."""
    before = layer.name.rsplit("_", 1)[0]
    if layer.position:
        name = f"{before}_{layer.position - 1}"
    else:
        name = {"user_dense": "user_embedding", "item_dense": "item_embedding"}.get(
            before, "concatenate"
        )
    return layer_outputs(model, [name], users, items)[0].astype(np.float64)


def _bridge(
    weights: dict[str, NDArray[np.float32]],
    layer: HiddenLayer,
    inputs: NDArray[np.float64] | None,
    activation: str,
    ridge: float,
) -> None:
    """Put the new kernel and bias of the reader in, and take the layer's own weights out."""
    kernel = weights.pop(f"{layer.name}/kernel").astype(np.float64)
    bias = weights.pop(f"{layer.name}/bias").astype(np.float64)
    reader = weights[f"{layer.reader}/kernel"]
    untouched, read = reader[: layer.offset], reader[layer.offset :].astype(np.float64)
    if inputs is None:
        new, shift = kernel @ read, bias @ read
    else:
        targets = _activate(inputs @ kernel + bias, activation) @ read
        new, shift = ridge_regression(inputs, targets, ridge)
    weights[f"{layer.reader}/kernel"] = np.vstack([untouched, new]).astype(np.float32)
    weights[f"{layer.reader}/bias"] = (weights[f"{layer.reader}/bias"] + shift).astype(np.float32)


def _activate(values: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    import keras

    return np.asarray(keras.activations.get(name)(values), np.float64)


def _moved_up(name: str, position: int) -> str:
    """Give a weight the name that it has when the layer at a position is gone."""
    layer, part = name.split("/")
    stem, _, number = layer.rpartition("_")
    if stem.endswith("dense") and int(number) > position:
        layer = f"{stem}_{int(number) - 1}"
    return f"{layer}/{part}"
