"""Which weights to keep: masks by magnitude, for single weights, rows, blocks and n of m."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_choice, check_number, check_sparsity, check_weights

GRANULARITIES = ("element", "row", "block", "n_of_m")
POOLINGS = ("mean", "max")


def magnitude_mask(
    weights: ArrayLike,
    sparsity: float,
    granularity: str = "element",
    *,
    block_size: tuple[int, int] = (4, 4),
    pooling: str = "mean",
    group_size: int = 4,
) -> NDArray[np.bool_]:
    """Give the mask that keeps the weights of largest magnitude.

    What is kept or removed as one is a *unit*. Of ``u`` units, ``num_kept(u, sparsity)`` are kept,
    those with the largest magnitude; of equal ones, the earlier in row-major order. A unit that is
    removed at one sparsity is therefore removed at every higher one.

    - "element": each weight is a unit, of an array of any shape.
    - "row": each row (all that shares the first index) is a unit; its magnitude is the mean of
      ``|w|``. In an embedding table a row is an id, in a Dense kernel an input.
    - "block": each block of ``block_size`` (rows, columns) of a matrix is a unit; its magnitude is
      the mean or the largest ``|w|`` in it. Blocks at the lower and right border may be smaller.
    - "n_of_m": in each column, ``num_kept(group_size, sparsity)`` of each ``group_size``
      consecutive rows are kept. Rows of a Dense kernel (inputs, outputs) are its inputs, so that
      sparsity 0.5 in groups of 4 is the 2:4 pattern of sparse tensor cores. A last group with
      fewer rows keeps as many, as far as there are.

    Args:
        weights: finite numbers; a matrix for "block" and "n_of_m", at least that for "row".
        sparsity: fraction of the units to remove, in [0, 1); of each group for "n_of_m".
        granularity: one of the above.
        block_size: rows and columns of a block.
        pooling: "mean" or "max", for "block".
        group_size: m of n_of_m.

    Returns:
        Booleans of the shape of ``weights``, True where a weight is kept.

    Raises:
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
    check_choice("granularity", granularity, GRANULARITIES)
    check_units(block_size, pooling, group_size)
    sparsity = check_sparsity(sparsity)
    magnitudes = np.abs(check_weights("weights", weights))
    if granularity == "element":
        return _largest(magnitudes, sparsity)
    if magnitudes.ndim < 2 or (granularity != "row" and magnitudes.ndim > 2):
        raise ValueError(
            f"weights has shape {magnitudes.shape}: expected a matrix for {granularity!r}"
        )
    if granularity == "n_of_m":
        return _n_of_m(magnitudes, num_kept(group_size, sparsity), group_size)
    matrix = magnitudes.reshape(len(magnitudes), -1)
    if granularity == "row":
        block_size, pooling = (1, matrix.shape[1]), "mean"
    kept_blocks = _largest(_pool(matrix, block_size, pooling), sparsity)
    rows, columns = matrix.shape
    expanded = kept_blocks.repeat(block_size[0], axis=0).repeat(block_size[1], axis=1)
    return np.array(expanded[:rows, :columns].reshape(magnitudes.shape))


def global_magnitude_masks(
    weights: Mapping[str, NDArray[np.float32]], sparsity: float
) -> dict[str, NDArray[np.bool_]]:
    """Give one mask for each of several weights, from one budget for all of them.

    All numbers compete for the same ``num_kept(number of weights, sparsity)`` places, so that a
    weight whose numbers are small on the whole may lose all of them.

    Args:
        weights: finite arrays of any shapes, by name.
        sparsity: fraction of zeros in all weights together, in [0, 1).

    Raises:
        ValueError: no weights, NaN in them, or a sparsity out of range.

    Example:
        >>> weights = {"a": np.float32([1, 2, 3, 4]), "b": np.float32([30, 40])}
        >>> {name: mask.astype(int) for name, mask in global_magnitude_masks(weights, 0.5).items()}
        {'a': array([0, 0, 0, 1]), 'b': array([1, 1])}
    """
    sparsity = check_sparsity(sparsity)
    if not weights:
        raise ValueError("weights is empty: expected at least one array")
    flat = [np.abs(check_weights(name, values)).ravel() for name, values in weights.items()]
    kept = _largest(np.concatenate(flat), sparsity)
    pieces = np.split(kept, np.cumsum([len(piece) for piece in flat])[:-1])
    return {
        name: piece.reshape(np.shape(values))
        for (name, values), piece in zip(weights.items(), pieces, strict=True)
    }


def num_kept(num_units: int, sparsity: float) -> int:
    """Give ``num_units * (1 - sparsity)``, rounded half to even in float32, and at least 1.

    Float32 because TFMOT counts so, and masks are to be the same; beyond 16 million units the
    result is therefore exact to seven digits only.

    Example:
        >>> num_kept(10, 0.8), num_kept(4, 0.5), num_kept(3, 0.99)
        (2, 2, 1)
    """
    share = np.float32(1) - np.float32(check_sparsity(sparsity))
    return max(int(np.round(np.float32(num_units) * share)), 1)


def check_units(block_size: tuple[int, int], pooling: str, group_size: int) -> None:
    """Raise unless these describe blocks and groups.

    Example:
        >>> check_units((4, 0), "mean", 4)
        Traceback (most recent call last):
        ValueError: block_size[1] is 0: expected an integer of at least 1
    """
    if not isinstance(block_size, tuple) or len(block_size) != 2:
        raise TypeError(f"block_size is {block_size!r}: expected a tuple (rows, columns)")
    for axis, length in enumerate(block_size):
        check_number(f"block_size[{axis}]", length, 1, integer=True)
    check_choice("pooling", pooling, POOLINGS)
    check_number("group_size", group_size, 2, integer=True)


def _largest(magnitudes: NDArray[np.float32], sparsity: float) -> NDArray[np.bool_]:
    """Mark the largest entries, of equal ones the earlier; a partition, so linear in time."""
    flat = magnitudes.ravel()
    count = num_kept(flat.size, sparsity)
    threshold = np.partition(flat, flat.size - count)[flat.size - count]
    kept = flat > threshold
    kept[np.flatnonzero(flat == threshold)[: count - int(kept.sum())]] = True
    return kept.reshape(magnitudes.shape)


def _pool(
    matrix: NDArray[np.float32], block_size: tuple[int, int], pooling: str
) -> NDArray[np.float32]:
    """Give the mean or maximum of each block: (rows, columns) to (blocks down, blocks across)."""
    starts = [
        np.arange(0, length, step) for length, step in zip(matrix.shape, block_size, strict=True)
    ]
    if pooling == "max":
        pooled = np.maximum.reduceat(matrix, starts[0], axis=0)
        return np.maximum.reduceat(pooled, starts[1], axis=1)
    pooled = np.add.reduceat(np.add.reduceat(matrix, starts[0], axis=0), starts[1], axis=1)
    lengths = [np.diff(s, append=n) for s, n in zip(starts, matrix.shape, strict=True)]
    return np.asarray(pooled / np.outer(*lengths), np.float32)


def _n_of_m(magnitudes: NDArray[np.float32], count: int, group_size: int) -> NDArray[np.bool_]:
    rows, columns = magnitudes.shape
    # Rows that do not exist fill the last group; below all magnitudes, they are kept last.
    missing = -rows % group_size
    padded = np.pad(magnitudes, ((0, missing), (0, 0)), constant_values=-1)
    groups = padded.reshape(-1, group_size, columns)  # (groups, m, columns)
    order = np.argsort(-groups, axis=1, kind="stable")[:, :count]
    kept = np.zeros(groups.shape, bool)
    np.put_along_axis(kept, order, True, axis=1)
    return kept.reshape(-1, columns)[:rows]
