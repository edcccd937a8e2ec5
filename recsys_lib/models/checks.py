"""Checks of what callers hand to a recommender; each names the argument, and what was expected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from recsys_lib.checks import Ids, check_counts, check_ids, check_shape, check_type
from recsys_lib.data import Interactions

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


def check_interactions(interactions: Interactions) -> None:
    """Raise unless it is an :class:`recsys_lib.data.Interactions`."""
    hint = " (split.train, or Interactions.from_frame for a data frame)"
    check_type("interactions", interactions, (Interactions,), hint)


def item_lists_to_csr(
    name: str, lists: Sequence[ArrayLike], num_items: int, may_be_empty: bool
) -> csr_matrix:
    """Return lists of item ids as a (len(lists), num_items) sparse matrix of 0 and 1, float32.

    Raises:
        TypeError: not a list of lists of integers.
        ValueError: an unknown item id, or an empty list where that is not allowed.

    Example:
        >>> item_lists_to_csr("histories", [[2], [0, 2]], 3, False).toarray().tolist()
        [[0.0, 0.0, 1.0], [1.0, 0.0, 1.0]]
    """
    from scipy.sparse import csr_matrix

    if isinstance(lists, str | bytes | Interactions) or not hasattr(lists, "__len__"):
        raise TypeError(f"{name} is of type {type(lists).__name__}: expected lists of item ids")
    rows = [np.unique(check_ids(f"{name}[{n}]", x, num_items)) for n, x in enumerate(lists)]
    lengths = np.array([len(row) for row in rows], np.int64)
    if not may_be_empty and (lengths == 0).any():
        raise ValueError(f"{name}[{int(np.argmin(lengths))}] is empty: expected an item id")
    items = np.concatenate([np.empty(0, np.int64), *rows])
    starts, ones = np.cumsum([0, *lengths]), np.ones(len(items), np.float32)
    return csr_matrix((ones, items, starts), (len(rows), num_items))


def exclusion_matrix(
    exclude: Interactions | Sequence[ArrayLike] | None,
    user_ids: Ids | None,
    num_rows: int,
    shape: tuple[int, int],
) -> csr_matrix:
    """Return the (num_rows, num_items) sparse matrix of what must not be recommended.

    Args:
        exclude: as in :meth:`recsys_lib.models.Recommender.recommend`.
        user_ids: (num_rows,) users, or None when users are known by their histories.
        num_rows: how many rows are asked for.
        shape: (num_users, num_items) of the model.
    """
    from scipy.sparse import coo_matrix, csr_matrix

    if exclude is None:
        return csr_matrix((num_rows, shape[1]), dtype=np.float32)
    if not isinstance(exclude, Interactions):
        matrix = item_lists_to_csr("exclude", exclude, shape[1], True)
        check_shape("exclude", matrix, (num_rows, shape[1]))
        return matrix
    if user_ids is None:
        raise ValueError("exclude is Interactions: expected a list of item ids for each history")
    check_counts("exclude", exclude, shape)
    rows = np.isin(exclude.user_ids, user_ids)
    pairs = exclude.user_ids[rows], exclude.item_ids[rows]
    return coo_matrix((np.ones(len(pairs[0]), np.float32), pairs), shape).tocsr()[user_ids]
