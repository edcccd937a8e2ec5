"""Checks of vectors and exclusions that callers hand to an index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_ids

# Scores are float32: products of larger values could leave its range.
_LARGEST_VALUE = 1e16
_LARGEST_DIM = 1 << 16


def check_vectors(name: str, values: ArrayLike) -> NDArray[np.float32]:
    """Give (n, d) float32, after checking that they are finite and not too large to multiply.

    Example:
        >>> check_vectors("item_vectors", [[0.0, np.nan]])
        Traceback (most recent call last):
        ValueError: item_vectors[0] holds nan: expected finite numbers below 1e+16
    """
    vectors = np.asarray(values)
    if vectors.dtype.kind not in "fiu":
        raise TypeError(f"{name} is of type {vectors.dtype}: expected real numbers")
    if vectors.ndim != 2 or not 0 < vectors.shape[1] <= _LARGEST_DIM:
        raise ValueError(
            f"{name} has shape {vectors.shape}: expected (n, d) with d from 1 to {_LARGEST_DIM}"
        )
    flat = vectors.reshape(-1)
    # A sum of squares below the square of the limit says all in one fast pass; NaN fails it.
    if not (flat @ flat < _LARGEST_VALUE**2 or np.abs(flat).max(initial=0) < _LARGEST_VALUE):
        row, column = np.argwhere(~(np.abs(vectors) < _LARGEST_VALUE))[0]
        raise ValueError(
            f"{name}[{row}] holds {vectors[row, column]}: "
            f"expected finite numbers below {_LARGEST_VALUE:g}"
        )
    return np.ascontiguousarray(vectors, np.float32)


def check_queries(values: ArrayLike, embedding_dim: int) -> NDArray[np.float32]:
    """Give (b, d) float32 of one user's or a batch's vectors, checked.

    Example:
        >>> check_queries([1.0, 2.0], embedding_dim=3)
        Traceback (most recent call last):
        ValueError: user_vectors has dimension 2: expected 3, as the item vectors
    """
    vectors = np.asarray(values)
    vectors = check_vectors("user_vectors", vectors[None] if vectors.ndim == 1 else vectors)
    if vectors.shape[1] != embedding_dim:
        raise ValueError(
            f"user_vectors has dimension {vectors.shape[1]}: "
            f"expected {embedding_dim}, as the item vectors"
        )
    return vectors


def check_exclude(
    exclude: Sequence[ArrayLike] | None, num_users: int, num_items: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give the ids of all lists, sorted within each, and where the list of each user starts.

    Example:
        >>> ids, starts = check_exclude([[4, 2], []], num_users=2, num_items=5)
        >>> ids.tolist(), starts.tolist()
        ([2, 4], [0, 2, 2])
    """
    if exclude is None:
        return np.empty(0, np.int64), np.zeros(num_users + 1, np.int64)
    if isinstance(exclude, str | bytes) or not hasattr(exclude, "__len__"):
        raise TypeError(f"exclude is a {type(exclude).__name__}: expected a list of item-id lists")
    if len(exclude) != num_users:
        raise ValueError(f"exclude has {len(exclude)} lists: expected {num_users}, one a user")
    lists = [np.sort(check_ids(f"exclude[{u}]", x, num_items)) for u, x in enumerate(exclude)]
    starts = np.concatenate([[0], np.cumsum([len(ids) for ids in lists])]).astype(np.int64)
    return np.concatenate([*lists, np.empty(0, np.int64)]), starts
