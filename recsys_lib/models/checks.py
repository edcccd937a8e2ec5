"""Checks of what callers hand to a recommender; each names the argument, and what was expected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_counts, check_ids, check_type
from recsys_lib.data import Interactions

if TYPE_CHECKING:
    import scipy.sparse


def check_interactions(interactions: Interactions) -> None:
    """Raise unless it is an :class:`recsys_lib.data.Interactions`."""
    hint = " (split.train, or Interactions.from_frame for a data frame)"
    check_type("interactions", interactions, (Interactions,), hint)


def item_lists_to_csr(
    name: str, lists: Sequence[ArrayLike], num_items: int, *, allow_empty: bool
) -> scipy.sparse.csr_matrix:
    """Return lists of item ids as a (len(lists), num_items) sparse matrix of 0 and 1, float32.

    Raises:
        TypeError: not a list of lists of integers.
        ValueError: an unknown item id, or an empty list where that is not allowed.

    Example:
        >>> item_lists_to_csr("histories", [[2], [0, 2]], 3, allow_empty=False).toarray().tolist()
        [[0.0, 0.0, 1.0], [1.0, 0.0, 1.0]]
    """
    import scipy.sparse

    if isinstance(lists, str | bytes | Interactions) or not hasattr(lists, "__len__"):
        raise TypeError(f"{name} is of type {type(lists).__name__}: expected lists of item ids")
    rows = [
        np.unique(check_ids(f"{name}[{position}]", items, num_items))
        for position, items in enumerate(lists)
    ]
    lengths = np.array([len(row) for row in rows], np.int64)
    if not allow_empty and (lengths == 0).any():
        raise ValueError(f"{name}[{int(np.argmin(lengths))}] is empty: expected an item id")
    starts = np.concatenate([[0], np.cumsum(lengths)])
    items = np.concatenate(rows) if rows else np.empty(0, np.int64)
    shape = (len(rows), num_items)
    return scipy.sparse.csr_matrix((np.ones(len(items), np.float32), items, starts), shape)


def exclusion_matrix(
    exclude: Interactions | Sequence[ArrayLike] | None,
    user_ids: NDArray[np.int64] | None,
    num_rows: int,
    shape: tuple[int, int],
) -> scipy.sparse.csr_matrix:
    """Return the (num_rows, num_items) sparse matrix of what must not be recommended.

    Args:
        exclude: as in :meth:`recsys_lib.models.Recommender.recommend`.
        user_ids: (num_rows,) users, or None when users are known by their histories.
        num_rows: how many rows are asked for.
        shape: (num_users, num_items) of the model.
    """
    import scipy.sparse

    if exclude is None:
        return scipy.sparse.csr_matrix((num_rows, shape[1]), dtype=np.float32)
    if not isinstance(exclude, Interactions):
        matrix = item_lists_to_csr("exclude", exclude, shape[1], allow_empty=True)
        if matrix.shape[0] != num_rows:
            raise ValueError(f"exclude has {matrix.shape[0]} lists: expected {num_rows}")
        return matrix
    if user_ids is None:
        raise ValueError("exclude is Interactions: expected a list of item ids for each history")
    check_counts("exclude", exclude, shape)
    rows = np.isin(exclude.user_ids, user_ids)
    pairs = (exclude.user_ids[rows], exclude.item_ids[rows])
    ones = np.ones(len(pairs[0]), np.float32)
    return scipy.sparse.coo_matrix((ones, pairs), shape).tocsr()[user_ids]
