"""A part of the training data to stop and to choose by, and what popularity reaches on it."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys_lib.data import Interactions
from recsys_lib.evaluation import evaluate_full_ranking
from recsys_lib.models import Popularity

_MOST_PAIRS = 20_000_000  # scores in one judgement


def hold_out(
    data: Interactions, share: float = 0.1, most_users: int = 3000, seed: int = 0
) -> tuple[Interactions, Interactions | None]:
    """Hold out the last items of some users: by time, or at random where times are not known.

    Args:
        data: the interactions.
        share: of each chosen user's different items, in [0, 1); at least one item, and not all.
        most_users: how many users are drawn, of those with two different items or more.
        seed: of the draws.

    Returns:
        ``(train, held_out)``. A held-out pair has its last row in ``held_out`` and none in
        ``train``. ``held_out`` is None without a user who has two items.

    Example:
        >>> train, held = hold_out(Interactions([0, 0, 0], [2, 0, 1], timestamps=[5, 9, 7]))
        >>> train.item_ids.tolist(), held.item_ids.tolist()
        ([2, 1], [0])
    """
    random = np.random.default_rng(seed)
    pair = data.user_ids * np.int64(data.num_items) + data.item_ids
    times = data.timestamps
    order = random.permutation(len(data))
    if times is not None:
        order = np.argsort(times, kind="stable")
    last = len(order) - 1 - np.unique(pair[order][::-1], return_index=True)[1]
    rows = order[np.sort(last)]  # the last row of each pair, oldest first
    rows = rows[np.argsort(data.user_ids[rows], kind="stable")]
    users = data.user_ids[rows]
    counts = np.bincount(users, minlength=data.num_users)
    from_end = np.cumsum(counts)[users] - 1 - np.arange(len(rows))
    able = np.flatnonzero(counts >= 2)
    if len(able) == 0:
        return data, None
    most = min(len(able), most_users, max(1, _MOST_PAIRS // data.num_items))
    chosen = np.zeros(data.num_users, bool)
    chosen[random.choice(able, most, replace=False)] = True
    many = np.minimum(np.maximum(1, (counts * share).astype(np.int64)), counts - 1)
    held = rows[chosen[users] & (from_end < many[users])]
    return data.take(~np.isin(pair, pair[held])), data.take(np.sort(held))


def judge(model: Any, train: Interactions, held_out: Interactions) -> float:
    """Return NDCG@10 (or @num_items) of the held-out pairs in a ranking of all items.

    Example:
        >>> train, held = hold_out(Interactions([0, 0, 1, 1], [0, 1, 1, 2]))
        >>> 0 <= judge(Popularity().fit(train), train, held) <= 1
        True
    """
    return evaluate_full_ranking(model, train, held_out, min(10, train.num_items)).ndcg


def popularity_ndcg(train: Interactions, held_out: Interactions) -> float:
    """Return what :func:`judge` says of popularity."""
    return judge(Popularity().fit(train), train, held_out)
