"""A quick look after a fit: does the model rank better than popularity does?"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys_lib.checks import Floats, Ids

FEWEST_USERS, _MOST_USERS = 200, 2000
_MOST_SCORES = 20_000_000  # 80 megabytes
ADVICE = "try tune(), or the default settings; popularity ranks better and costs nothing"


def warn_if_below_popularity(
    by_user: csr_matrix,
    by_item: csr_matrix,
    users: Floats,
    items: Floats,
    solve: Callable[[Any, Floats, Floats], Floats],
    seed: int,
) -> None:
    """Warn where factors find a left-out item less well than a list of popular items.

    The pair is left out of the user's history and of the item's vector, which are both solved for
    anew; the vectors of all others keep what they have learned from it, which is little.

    Args:
        by_user: (num_users, num_items), the pairs that met.
        by_item: its transpose.
        users: (num_users, d) vectors.
        items: (num_items, d) vectors.
        solve: ``(matrix, other vectors, start)`` to the vectors of the matrix's rows.
        seed: of the draw of users and of their items.
    """
    random, lengths = np.random.default_rng(seed), np.diff(by_user.indptr)
    able = np.flatnonzero(lengths >= 2)
    most = min(_MOST_USERS, _MOST_SCORES // by_user.shape[1])
    if min(most, len(able)) < FEWEST_USERS:
        return
    chosen = random.choice(able, min(most, len(able)), replace=False)
    left_out = by_user.indices[by_user.indptr[chosen] + random.integers(lengths[chosen])]
    histories = _without(by_user[chosen], left_out)
    others = _without(by_item[left_out], chosen)
    vectors = solve(histories, items, users[chosen])
    own = (vectors * solve(others, users, items[left_out])).sum(axis=1)
    counts = np.diff(by_item.indptr).astype(np.float32)
    by_count = np.tile(counts, (len(chosen), 1))
    gains = [
        _gain(scores, at_item, left_out, histories)
        for scores, at_item in ((vectors @ items.T, own), (by_count, counts[left_out] - 1))
    ]
    difference = gains[0] - gains[1]
    if difference.mean() < -2 * difference.std() / len(difference) ** 0.5:
        warn_below("the model", float(gains[0].mean()), float(gains[1].mean()), stacklevel=5)


def warn_below(what: str, ndcg: float, popularity: float, stacklevel: int = 3) -> None:
    """Warn that what was fitted ranks below popularity on held-out items."""
    found = f"an NDCG@10 of {ndcg:.4f} on held-out items, popularity {popularity:.4f}"
    warnings.warn(f"{what} reaches {found}: {ADVICE}", UserWarning, stacklevel)


def _without(matrix: csr_matrix, columns: NDArray[np.integer]) -> csr_matrix:
    """Take one stored entry, at the given column, out of each row."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    kept = matrix.indices != columns[rows]
    starts = np.concatenate([[0], np.cumsum(np.diff(matrix.indptr) - 1)])
    return csr_matrix((matrix.data[kept], matrix.indices[kept], starts), matrix.shape)


def _gain(scores: Floats, own: Floats, left_out: Ids, histories: csr_matrix) -> NDArray[np.float64]:
    """NDCG@10 of one relevant item a row; ties count against it."""
    scores[histories.nonzero()] = -np.inf
    scores[np.arange(len(scores)), left_out] = -np.inf
    rank = (scores >= own[:, None]).sum(axis=1)
    return np.where(rank < 10, 1 / np.log2(rank + 2.0), 0.0)
