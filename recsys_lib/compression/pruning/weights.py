"""Single weights to zero: masks by magnitude, and the config that prunes a model with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import (
    check_choice,
    check_names,
    check_number,
    check_shape,
    check_sparsity,
    check_weights,
    store,
    store_numbers,
)
from recsys_lib.compression import CompressedModel, named_weights, store_weights
from recsys_lib.compression.pruning.prune import Pruning
from recsys_lib.compression.pruning.sparse import store_sparse
from recsys_lib.data import Interactions

GRANULARITIES = ("element", "row", "block", "n_of_m")
Array = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class WeightPruning(Pruning):
    """Set the weights of smallest magnitude to zero.

    Args:
        sparsity: fraction of zeros in [0, 1), for all weights or for each by name; then those not
            named are left alone.
        granularity: unit of pruning, see :func:`magnitude_mask`.
        budget: "layer" prunes each weight to ``sparsity``; "global" prunes all of them together
            to it, single numbers only, so that each layer loses what is small among all.
        names: of the weights to prune, as :func:`named_weights` gives them; None for all with two
            or more dimensions (kernels and tables, not biases).
        block_size: rows and columns of a block, for "block".
        group_size: m of "n_of_m".

    Raises:
        TypeError: an argument of a wrong type.
        ValueError: an argument out of range, or two in conflict.

    Source:
        Han et al., *Learning both Weights and Connections for Efficient Neural Networks*, NeurIPS
        2015.

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
    group_size: int = 4

    def __post_init__(self) -> None:
        check_choice("granularity", self.granularity, GRANULARITIES)
        check_choice("budget", self.budget, ("layer", "global"))
        store_numbers(self, 2, "group_size", integer=True)
        by_name = isinstance(self.sparsity, Mapping)
        shares = self.sparsity if isinstance(self.sparsity, Mapping) else {"": self.sparsity}
        label = "sparsity[{!r}]" if by_name else "sparsity"
        checked = {name: check_sparsity(s, label.format(name)) for name, s in shares.items()}
        store(self, sparsity=checked if by_name else checked[""])
        check_shape("block_size", np.asarray(self.block_size), (2,))
        size = tuple(check_number("block_size", n, 1, integer=True) for n in self.block_size)
        store(self, block_size=size)
        if isinstance(self.names, str):
            raise TypeError(f"names is {self.names!r}: expected a tuple of names")
        if by_name and (self.budget == "global" or self.names is not None):
            raise ValueError("sparsity is given by name: expected budget 'layer' and no names")
        if self.budget == "global" and self.granularity != "element":
            raise ValueError(f"granularity is {self.granularity!r}: expected 'element' for global")

    def apply(self, model: Any, data: Interactions | None = None) -> CompressedModel:
        """Return the model with zeros, its pruned weights stored without them."""
        weights = named_weights(model)
        masks = self.masks(weights, self.final_sparsities(weights))
        tensors = {n: store_sparse(weights[n] * mask) for n, mask in masks.items()}
        return store_weights("weight pruning", self, model, tensors)

    def final_sparsities(self, weights: Mapping[str, Array]) -> dict[str, float]:
        """Return the names of the weights to prune with the sparsity that each shall reach.

        Example:
            >>> WeightPruning(0.5).final_sparsities({"a": np.ones((2, 2)), "b": np.ones(2)})
            {'a': 0.5}
        """
        if isinstance(self.sparsity, Mapping):
            check_names("sparsity", self.sparsity, weights)
            result = dict(self.sparsity)
        elif self.names is None:
            result = {name: self.sparsity for name, values in weights.items() if values.ndim > 1}
        else:
            check_names("names", self.names, weights)
            result = dict.fromkeys(self.names, self.sparsity)
        if not result:
            raise ValueError("config names no weight to prune: expected at least one")
        return result

    def masks(self, weights: Mapping[str, Array], shares: Mapping[str, float]) -> dict[str, Mask]:
        """Return the masks at some sparsities, on the way to the final ones or at them.

        Example:
            >>> weights = {"a": np.float32([[1, 2], [3, 4]]), "b": np.float32([[9, 0.5]])}
            >>> masks = WeightPruning(0.5).masks(weights, {"a": 0.25, "b": 0.5})
            >>> {name: mask.astype(int).tolist() for name, mask in masks.items()}
            {'a': [[0, 1], [1, 1]], 'b': [[1, 0]]}
        """
        if self.budget == "layer":
            return {n: _mask(n, np.abs(weights[n]), self, share) for n, share in shares.items()}
        # All numbers compete for the same places: a small weight may lose all of its own.
        flat = np.concatenate([np.abs(weights[name]).ravel() for name in shares])
        kept = _largest(flat, next(iter(shares.values())))
        pieces = np.split(kept, np.cumsum([weights[name].size for name in shares])[:-1])
        pairs = zip(shares, pieces, strict=True)
        return {name: piece.reshape(weights[name].shape) for name, piece in pairs}


def magnitude_mask(
    weights: ArrayLike,
    sparsity: float,
    granularity: str = "element",
    *,
    block_size: tuple[int, int] = (4, 4),
    group_size: int = 4,
) -> Mask:
    """Return the mask that keeps the weights of largest magnitude.

    What is kept or removed as one is a *unit*. Of ``u`` units, ``u * (1 - sparsity)``, rounded and
    at least 1, are kept: those with the largest magnitude; of equal ones, the earlier in row-major
    order. A unit that is removed at one sparsity is therefore removed at every higher one.

    - "element": each weight is a unit, of an array of any shape.
    - "row": each row (all that shares the first index) is a unit; its magnitude is the mean of
      ``|w|``. In an embedding table a row is an id, in a Dense kernel an input.
    - "block": each block of ``block_size`` (rows, columns) of a matrix is a unit; its magnitude is
      the mean of ``|w|`` in it. Blocks at the lower and right border may be smaller.
    - "n_of_m": in each column, that many of each ``group_size`` consecutive rows are kept. Rows of
      a Dense kernel (inputs, outputs) are its inputs, so that sparsity 0.5 in groups of 4 is the
      2:4 pattern of sparse tensor cores. A last group with fewer rows keeps as many, as far as
      there are.

    Args:
        weights: finite numbers; a matrix for "block" and "n_of_m", at least that for "row".
        sparsity: fraction of the units to remove, in [0, 1); of each group for "n_of_m".
        granularity: one of the above.
        block_size: rows and columns of a block.
        group_size: m of n_of_m.

    Returns:
        Booleans of the shape of ``weights``, True where a weight is kept.

    Raises:
        TypeError: weights or an argument of a wrong type.
        ValueError: NaN in the weights, an argument out of range, or weights of too few dimensions.

    Source:
        Han et al., *Learning both Weights and Connections for Efficient Neural Networks*, NeurIPS
        2015, section 3.1 (magnitude); Mishra et al., *Accelerating Sparse Deep Neural Networks*,
        2021, section 2 (2:4). Masks are those of TFMOT wherever magnitudes differ and blocks fit
        the matrix. Of equal magnitudes TFMOT keeps more than it was asked to; where blocks do not
        fit, the windows it measures are not the blocks it removes.

    Example:
        >>> weights = np.array([[0.9, -0.1, 0.4], [-0.2, 0.8, 0.3]])
        >>> magnitude_mask(weights, 0.5).astype(int)
        array([[1, 0, 1],
               [0, 1, 0]])
        >>> magnitude_mask(weights, 0.5, "row").astype(int)
        array([[1, 1, 1],
               [0, 0, 0]])
        >>> magnitude_mask(weights, 0.5, "n_of_m", group_size=2).astype(int)
        array([[1, 0, 1],
               [0, 1, 0]])
    """
    config = WeightPruning(sparsity, granularity, block_size=block_size, group_size=group_size)
    return _mask("weights", np.abs(check_weights("weights", weights)), config, sparsity)


def num_kept(num_units: int, sparsity: float) -> int:
    """Return ``num_units * (1 - sparsity)``, rounded half to even in float32, and at least 1.

    Float32 because TFMOT counts so, and masks are to be the same; beyond 16 million units the
    result is therefore exact to seven digits only.

    Example:
        >>> num_kept(10, 0.8), num_kept(4, 0.5), num_kept(3, 0.99)
        (2, 2, 1)
    """
    share = np.float32(1) - np.float32(sparsity)
    return max(int(np.round(np.float32(num_units) * share)), 1)


def _mask(name: str, magnitudes: Array, config: WeightPruning, sparsity: float) -> Mask:
    """Return the mask of one weight; units and patterns are those of ``config``."""
    unit, ndim = config.granularity, magnitudes.ndim
    if unit == "element":
        return _largest(magnitudes, sparsity)
    if ndim < 2 or (unit != "row" and ndim > 2):
        raise ValueError(f"{name} has shape {magnitudes.shape}: expected a matrix for {unit!r}")
    if unit == "n_of_m":
        return _n_of_m(magnitudes, num_kept(config.group_size, sparsity), config.group_size)
    matrix = magnitudes.reshape(len(magnitudes), -1)
    rows, columns = matrix.shape
    size = (1, columns) if unit == "row" else config.block_size
    kept = _largest(_block_means(matrix, size), sparsity).repeat(size[0], axis=0)
    return np.array(kept.repeat(size[1], axis=1)[:rows, :columns].reshape(magnitudes.shape))


def _largest(magnitudes: Array, sparsity: float) -> Mask:
    """Mark the largest entries, of equal ones the earlier; a partition, so linear in time."""
    flat = magnitudes.ravel()
    count = num_kept(flat.size, sparsity)
    threshold = np.partition(flat, flat.size - count)[flat.size - count]
    kept = flat > threshold
    kept[np.flatnonzero(flat == threshold)[: count - int(kept.sum())]] = True
    return kept.reshape(magnitudes.shape)


def _block_means(matrix: Array, block_size: tuple[int, int]) -> Array:
    """Return the mean of each block: (rows, columns) to (blocks down, across)."""
    rows, columns = (np.arange(0, n, s) for n, s in zip(matrix.shape, block_size, strict=True))
    pooled = np.add.reduceat(np.add.reduceat(matrix, rows, axis=0), columns, axis=1)
    lengths = [np.diff(s, append=n) for s, n in zip((rows, columns), matrix.shape, strict=True)]
    return np.asarray(pooled / np.outer(*lengths), np.float32)


def _n_of_m(magnitudes: Array, count: int, group_size: int) -> Mask:
    rows, columns = magnitudes.shape
    # Rows that do not exist fill the last group; below all magnitudes, they are kept last.
    padded = np.pad(magnitudes, ((0, -rows % group_size), (0, 0)), constant_values=-1)
    groups = padded.reshape(-1, group_size, columns)  # (groups, m, columns)
    order = np.argsort(-groups, axis=1, kind="stable")[:, :count]
    kept = np.zeros(groups.shape, bool)
    np.put_along_axis(kept, order, True, axis=1)
    return kept.reshape(-1, columns)[:rows]
