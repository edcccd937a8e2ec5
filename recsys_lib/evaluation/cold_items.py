"""Judge how new items are ranked for known users."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from recsys_lib.checks import check_k
from recsys_lib.data.interactions import Interactions
from recsys_lib.evaluation.metrics import hit_rate_at_k, ndcg_at_k, recall_at_k
from recsys_lib.evaluation.results import RankingResult


def evaluate_cold_items(scores: ArrayLike, test: Interactions, k: int = 10) -> RankingResult:
    """Rank all cold items for each user who met at least one of them.

    No user has met a candidate in training, so nothing is excluded. Ties go to the item with the
    smaller id.

    Args:
        scores: (num_users, num_items) of the cold items, higher is better.
        test: the interactions with them, see :func:`recsys_lib.data.split_cold_items`.
        k: length of the list.

    Raises:
        ValueError: another shape, NaN, or k out of range.

    Example:
        >>> test = Interactions([0, 1], [1, 0], num_items=3)
        >>> evaluate_cold_items([[0.1, 0.9, 0.3], [0.1, 0.9, 0.3]], test, k=1).hit_rate
        0.5
    """
    check_k(k)
    values, shape = np.asarray(scores), (test.num_users, test.num_items)
    if values.shape != shape:
        raise ValueError(f"scores has shape {values.shape}: expected {shape}")
    if np.isnan(values).any():
        raise ValueError(f"scores holds {int(np.isnan(values).sum())} NaN: expected numbers")
    if k > test.num_items:
        raise ValueError(f"k is {k}: expected at most {test.num_items}, the number of items")
    relevant = test.to_csr().toarray() > 0
    users = np.flatnonzero(relevant.any(axis=1))
    best = np.argsort(-values[users], axis=1, kind="stable")[:, :k]
    hits = np.take_along_axis(relevant[users], best, axis=1)
    num_relevant = relevant[users].sum(axis=1)
    return RankingResult(
        k=k,
        protocol=f"full ranking of {test.num_items:,} cold items",
        user_ids=users,
        hit_rate_per_user=hit_rate_at_k(hits, k),
        ndcg_per_user=ndcg_at_k(hits, k, num_relevant),
        recall_per_user=recall_at_k(hits, k, num_relevant),
    )
