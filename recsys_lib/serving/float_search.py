"""Exact search in NumPy: one matrix product, and only the few items near the top ordered."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Scores held at once: 4 million float32, 16 MB.
_SCORES_AT_ONCE = 1 << 22
_BLOCK = 256
_TINY = 1e-32  # products below the range of float32 may be lost, up to 1e-37 each

Found = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]


def search_float(
    rows: NDArray[np.float32],
    row_ids: NDArray[np.int64],
    longest: float,
    queries: NDArray[np.float32],
    k: int,
    excluded: NDArray[np.int64],
    starts: NDArray[np.int64],
) -> Found:
    """Find the best k rows for each query.

    The float32 product may be off by ``(d + 2) * 2**-23 * |x| |q|``, in an order of summing that
    depends on the machine. So every row within twice that of the k-th score is scored again, in
    float64, and those scores are ordered: the answer is the same on all machines.

    Args:
        rows: (n, d) vectors.
        row_ids: (n,) item id of each row.
        longest: largest length of a row.
        queries: (b, d).
        k: at least 1, at most n; or n = 0.
        excluded: ids not to be found, sorted within each user.
        starts: (b + 1,) where the ids of each user start.

    Returns:
        (b, k) ids and scores, -1 and -inf where nothing is left; (b,) how many were scored again.

    Example:
        >>> none = np.empty(0, np.int64), np.zeros(2, np.int64)
        >>> table, query = np.eye(3, dtype=np.float32), np.float32([[1, 3, 2]])
        >>> ids, scores, _ = search_float(table, np.arange(3), 1.0, query, 2, *none)
        >>> ids.tolist(), scores.tolist()
        ([[1, 2]], [[3.0, 2.0]])
    """
    num_users, num_rows = len(queries), len(rows)
    ids = np.full((num_users, k), -1, np.int64)
    scores = np.full((num_users, k), -np.inf, np.float32)
    rescored = np.zeros(num_users, np.int64)
    if num_rows == 0:
        return ids, scores, rescored
    place_of = np.argsort(row_ids) if len(excluded) else row_ids
    lengths = np.sqrt(np.einsum("bd,bd->b", queries, queries, dtype=np.float64))
    slack = (rows.shape[1] + 2) * 2.0**-22 * longest * lengths + _TINY
    users_at_once = max(1, _SCORES_AT_ONCE // num_rows)
    for first in range(0, num_users, users_at_once):
        batch = queries[first : first + users_at_once]
        product = batch @ rows.T
        for user, near in enumerate(product, start=first):
            near[place_of[excluded[starts[user] : starts[user + 1]]]] = -np.inf
            keep = np.flatnonzero(near >= _lower_bound(near, k) - slack[user])
            keep = keep[near[keep] > -np.inf]
            exact = np.einsum("nd,d->n", rows[keep], queries[user], dtype=np.float64)
            exact = exact.astype(np.float32)
            best = np.lexsort((row_ids[keep], -exact))[:k]
            ids[user, : len(best)] = row_ids[keep[best]]
            scores[user, : len(best)] = exact[best]
            rescored[user] = len(keep)
    return ids, scores, rescored


def _lower_bound(scores: NDArray[np.float32], k: int) -> np.float32:
    """Give a number that at least k scores reach, close to the k-th best."""
    num_blocks = len(scores) // _BLOCK
    if num_blocks < 4 * k:  # few blocks: order the scores themselves
        return np.partition(scores, len(scores) - k)[len(scores) - k]
    maxima = scores[: num_blocks * _BLOCK].reshape(num_blocks, _BLOCK).max(axis=1)
    return np.partition(maxima, num_blocks - k)[num_blocks - k]
