"""Prune the weights of a model: which, how many, in which pattern, and how they are stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_choice, check_names, check_sparsity
from recsys_lib.compression.compressed import CompressedModel, store_weights
from recsys_lib.compression.pruning.masks import (
    GRANULARITIES,
    check_units,
    global_magnitude_masks,
    magnitude_mask,
)
from recsys_lib.compression.pruning.sparse import LAYOUTS, store_sparse
from recsys_lib.compression.weights import named_weights

BUDGETS = ("layer", "global")


@dataclass(frozen=True)
class WeightPruning:
    """What to prune and how.

    Args:
        sparsity: fraction of zeros in [0, 1), for all weights or for each by name; then those not
            named are left alone.
        granularity: unit of pruning, see :func:`magnitude_mask`.
        budget: "layer" prunes each weight to ``sparsity``; "global" prunes all of them together
            to it, single numbers only, so that each layer loses what is small among all.
        names: of the weights to prune, as :func:`named_weights` gives them; None for all with two
            or more dimensions (kernels and tables, not biases).
        block_size: rows and columns of a block, for "block".
        pooling: "mean" or "max" of a block.
        group_size: m of "n_of_m".
        layout: how pruned weights are stored: "csr", "bitmap", "dense" or the "smallest" of them.

    Raises:
        TypeError: an argument of a wrong type.
        ValueError: an argument out of range, or two in conflict.

    Example:
        >>> WeightPruning(0.5, "n_of_m").group_size
        4
        >>> WeightPruning({"dense_0/kernel": 1.0})
        Traceback (most recent call last):
        ValueError: sparsity['dense_0/kernel'] is 1.0: expected a number in [0, 1)
    """

    sparsity: float | Mapping[str, float] = 0.5
    granularity: str = "element"
    budget: str = "layer"
    names: tuple[str, ...] | None = None
    block_size: tuple[int, int] = (4, 4)
    pooling: str = "mean"
    group_size: int = 4
    layout: str = "smallest"

    def __post_init__(self) -> None:
        check_choice("granularity", self.granularity, GRANULARITIES)
        check_choice("budget", self.budget, BUDGETS)
        check_choice("layout", self.layout, LAYOUTS)
        check_units(self.block_size, self.pooling, self.group_size)
        if isinstance(self.names, str):
            raise TypeError(f"names is {self.names!r}: expected a tuple of names")
        if isinstance(self.sparsity, Mapping):
            for name, value in self.sparsity.items():
                check_sparsity(value, f"sparsity[{name!r}]")
            if self.budget == "global" or self.names is not None:
                raise ValueError(
                    "sparsity is given by name: expected budget 'layer' and no names beside it"
                )
        else:
            check_sparsity(self.sparsity)
        if self.budget == "global" and self.granularity != "element":
            raise ValueError(
                f"granularity is {self.granularity!r}: expected 'element' for a global budget"
            )


def prune_weights(model: Any, config: WeightPruning) -> CompressedModel:
    """Set the weights of smallest magnitude to zero, at once and without training.

    Args:
        model: what :func:`named_weights` takes: factor models too; it stays as it is.
        config: what to prune.

    Returns:
        A new model with the report, its pruned weights stored without their zeros.

    Raises:
        TypeError: another kind of model or config.
        ValueError: unknown names, nothing to prune, NaN in the weights, a model that is not built.

    Source:
        Han et al., *Learning both Weights and Connections for Efficient Neural Networks*, NeurIPS
        2015.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("mlp_ranker", 100, 50, 16))
        >>> pruned = prune_weights(model, WeightPruning(0.8))
        >>> pruned.report.to_frame().query("name == 'dense_1/kernel'").sparsity.round(2).tolist()
        [0.8]
        >>> pruned.report.ratio > 3
        True
    """
    check_pruning(config)
    weights = named_weights(model)
    masks = pruning_masks(weights, config, final_sparsities(weights, config))
    tensors = {
        name: store_sparse(weights[name] * mask, config.layout) for name, mask in masks.items()
    }
    return store_weights("weight pruning", config, model, tensors)


def final_sparsities(
    weights: Mapping[str, NDArray[np.float32]], config: WeightPruning
) -> dict[str, float]:
    """Give the names of the weights to prune with the sparsity that each, or all, shall reach.

    Raises:
        ValueError: an unknown name, or nothing to prune.

    Example:
        >>> final_sparsities({"a": np.ones((2, 2)), "b": np.ones(2)}, WeightPruning(0.5))
        {'a': 0.5}
    """
    if isinstance(config.sparsity, Mapping):
        check_names("sparsity", config.sparsity, weights)
        result = {name: float(value) for name, value in config.sparsity.items()}
    else:
        names = config.names
        if names is None:
            names = tuple(name for name, values in weights.items() if values.ndim > 1)
        check_names("names", names, weights)
        result = dict.fromkeys(names, float(config.sparsity))
    if not result:
        raise ValueError("config names no weight to prune: expected at least one")
    return result


def pruning_masks(
    weights: Mapping[str, NDArray[np.float32]],
    config: WeightPruning,
    sparsities: Mapping[str, float],
) -> dict[str, NDArray[np.bool_]]:
    """Give the masks at some sparsities, on the way to the final ones or at them.

    Example:
        >>> weights = {"a": np.float32([[1, 2], [3, 4]]), "b": np.float32([[9, 0.5]])}
        >>> masks = pruning_masks(weights, WeightPruning(0.5), {"a": 0.25, "b": 0.5})
        >>> {name: mask.astype(int).tolist() for name, mask in masks.items()}
        {'a': [[0, 1], [1, 1]], 'b': [[1, 0]]}
    """
    if config.budget == "global":
        chosen = {name: weights[name] for name in sparsities}
        return global_magnitude_masks(chosen, next(iter(sparsities.values())))
    masks = {}
    for name, sparsity in sparsities.items():
        try:
            masks[name] = magnitude_mask(
                weights[name],
                sparsity,
                config.granularity,
                block_size=config.block_size,
                pooling=config.pooling,
                group_size=config.group_size,
            )
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return masks


def check_pruning(config: WeightPruning) -> None:
    """Raise TypeError unless it is a WeightPruning."""
    if not isinstance(config, WeightPruning):
        raise TypeError(f"config is of type {type(config).__name__}: expected WeightPruning")
