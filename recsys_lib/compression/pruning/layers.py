"""A hidden layer out of a rating model, its work folded into the next layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from recsys_lib.checks import check_number
from recsys_lib.compression import CompressedModel, named_weights
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
from recsys_lib.data import Interactions
from recsys_lib.models import RatingModelConfig


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
        num_samples: interactions that the bridge is fitted on, with four drawn items each.
        ridge: penalty of that fit, as a share of the mean square of an input.
        seed: of the sample.

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
    num_samples: int = 4096
    ridge: float = RIDGE
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_integers(position=0, num_samples=1, seed=0)
        check_number("ridge", self.ridge, 0, include_low=False)

    def apply(self, model: Any, data: Interactions | None = None) -> CompressedModel:
        """Return the model without the layer."""
        import keras

        shape = read_config(model)
        count = _count_removable(shape)
        if self.position >= count:
            raise ValueError(f"position is {self.position}: expected one in [0, {count})")
        weights = dict(named_weights(model))
        activate = keras.activations.get(shape.activation)
        for layer in [la for la in hidden_layers(shape) if la.position == self.position]:
            kernel, bias = (
                weights.pop(f"{layer.name}/{part}").astype(np.float64)
                for part in ("kernel", "bias")
            )
            untouched, read = np.split(weights[f"{layer.reader}/kernel"], [layer.offset])
            if data is None:
                new, shift = kernel @ read, bias @ read
            else:
                size = {"num_samples": self.num_samples, "seed": self.seed}
                users, items, _ = sample_pairs(model, data, **size)
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
    return {
        position: float(metric(LayerRemoval(position).apply(model, interactions).model))
        for position in range(_count_removable(read_config(model)))
    }


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
