"""Losses on ranked lists, and draws of items by their rank."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def relaxed_ranking_loss(interesting: Any, uninteresting: Any) -> Any:
    """Negative log-likelihood of the order of some items above an unordered rest.

    ``- sum over k of [ s_k - log( sum over j >= k of exp(s_j) + sum over l of exp(z_l) ) ]``,
    computed with the largest score subtracted, so that it cannot overflow.

    Args:
        interesting: (n, K) the student's scores s of interesting items, in the teacher's order,
            best first.
        uninteresting: (n, L) its scores z of uninteresting items, L at least 1.

    Returns:
        (n,) losses in nats, each 0 or more.

    Raises:
        ValueError: shapes do not fit.

    Source:
        Kang et al., *DE-RRD*, CIKM 2020, equation 8.

    Example:
        >>> print(relaxed_ranking_loss([[0.0, 0.0]], [[0.0]]).numpy().round(4))  # log 3 + log 2
        [1.7918]
    """
    from keras import ops

    s, z = ops.convert_to_tensor(interesting), ops.convert_to_tensor(uninteresting)
    if len(s.shape) != 2 or len(z.shape) != 2 or s.shape[1] == 0 or z.shape[1] == 0:
        raise ValueError(
            f"interesting has shape {tuple(s.shape)} and uninteresting {tuple(z.shape)}: expected "
            "(n, K) and (n, L), with K and L at least 1"
        )
    if None not in (s.shape[0], z.shape[0]) and s.shape[0] != z.shape[0]:
        raise ValueError(
            f"interesting has {s.shape[0]} rows, uninteresting {z.shape[0]}: expected equally many"
        )
    highest = ops.maximum(ops.max(s, axis=1, keepdims=True), ops.max(z, axis=1, keepdims=True))
    highest = ops.stop_gradient(highest)  # (n, 1)
    s, z = s - highest, z - highest
    from_here = ops.flip(ops.cumsum(ops.exp(ops.flip(s, axis=1)), axis=1), axis=1)  # (n, K)
    below = ops.log(from_here + ops.sum(ops.exp(z), axis=1, keepdims=True) + 1e-30)
    return ops.sum(below - s, axis=1)


def weighted_positives_loss(logits: Any, weights: Any) -> Any:
    """Cross entropy of a list of items that count as liked: ``- sum_r w_r log sigmoid(s_r)``.

    Args:
        logits: (n, K) the student's scores of the teacher's list.
        weights: (K,) or (n, K), importance of each place.

    Returns:
        (n,) losses in nats.

    Raises:
        ValueError: shapes do not fit.

    Source:
        Tang & Wang, *Ranking Distillation*, KDD 2018, equation 5.

    Example:
        >>> print(weighted_positives_loss([[0.0, 0.0]], [0.5, 0.5]).numpy().round(4))  # log 2
        [0.6931]
    """
    from keras import ops

    logits, weights = ops.convert_to_tensor(logits), ops.convert_to_tensor(weights)
    if len(logits.shape) != 2 or weights.shape[-1] != logits.shape[1] or len(weights.shape) > 2:
        raise ValueError(
            f"logits has shape {tuple(logits.shape)} and weights {tuple(weights.shape)}: expected "
            "(n, K), and (K,) or (n, K)"
        )
    return ops.sum(weights * ops.softplus(-logits), axis=1)


def place_weights(num_items: int, decay: float) -> NDArray[np.float32]:
    """Give ``exp(-r / decay)`` for the ranks r = 1 .. K, divided by their sum; (K,).

    Example:
        >>> print(place_weights(2, decay=1.0).round(3))  # 1 / (1 + 1/e) first
        [0.731 0.269]
    """
    weights = np.exp(-np.arange(num_items) / decay)
    return (weights / weights.sum()).astype(np.float32)


def draw_by_rank(
    rng: np.random.Generator, num_users: int, pool: int, count: int, decay: float
) -> NDArray[np.int64]:
    """Draw ranks for each user without replacement, rank r in proportion to ``exp(-r / decay)``.

    Gumbel noise is added to ``-r / decay``, and the ``count`` largest sums win: the same
    distribution as drawing one after the other.

    Args:
        rng: source of randomness.
        num_users: rows.
        pool: ranks are below it, 0 is best.
        count: ranks per row, at most ``pool``.
        decay: above 0.

    Returns:
        (num_users, count) ranks, ascending in each row.

    Source:
        Vieira, *Gumbel-max trick and weighted reservoir sampling*, 2014.

    Example:
        >>> draw_by_rank(np.random.default_rng(0), 2, pool=3, count=3, decay=1.0).tolist()
        [[0, 1, 2], [0, 1, 2]]
    """
    keys = rng.gumbel(size=(num_users, pool)).astype(np.float32) - np.arange(pool) / decay
    chosen = np.argpartition(-keys, count - 1, axis=1)[:, :count]
    return np.sort(chosen, axis=1)


def draw_outside(
    rng: np.random.Generator, num_items: int, count: int, excluded: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Draw items uniformly from those that are not excluded; an item can be drawn twice.

    Args:
        rng: source of randomness.
        num_items: size of the catalogue.
        count: items per user.
        excluded: sorted numbers ``user * num_items + item``; see :func:`pair_keys`. The users are
            0 to the last, and each must have an item left.

    Returns:
        (num_users, count) item ids, where num_users is given by the last excluded pair.

    Example:
        >>> draw_outside(np.random.default_rng(0), 3, 2, np.array([0, 1, 3, 5])).tolist()
        [[2, 2], [1, 1]]
    """
    num_users = int(excluded[-1]) // num_items + 1
    first = np.arange(num_users, dtype=np.int64)[:, None] * num_items
    keys = first + rng.integers(0, num_items, (num_users, count))
    while True:
        place = np.minimum(np.searchsorted(excluded, keys), len(excluded) - 1)
        bad = excluded[place] == keys
        if not bad.any():
            return keys - first
        keys[bad] = np.broadcast_to(first, keys.shape)[bad] + rng.integers(
            0, num_items, int(bad.sum())
        )


def pair_keys(num_items: int, user_ids: NDArray[Any], item_ids: NDArray[Any]) -> NDArray[np.int64]:
    """Number pairs ``user * num_items + item``, sorted, each once.

    Example:
        >>> pair_keys(3, np.array([1, 0]), np.array([2, 1])).tolist()
        [1, 5]
    """
    return np.unique(user_ids.astype(np.int64) * num_items + item_ids.astype(np.int64))
