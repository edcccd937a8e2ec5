"""Protocols: which items a test item is ranked against, for any model that can score pairs.

A *model* here is anything with ``score(user_ids, item_ids)`` that takes two integer arrays (n,) and
returns n scores, higher is better. If it also has ``score_all_items(user_ids)``, which returns
(len(user_ids), num_items), the full ranking uses that, because it is faster.

Ties are broken pessimistically: an item that ties with a relevant one is placed before it, so a
model that gives every item the same score has no hits. Scores that differ by rounding alone count
as ties, see :func:`recsys_lib.evaluation.metrics.tie_tolerance`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import Ids, check_number, check_shape
from recsys_lib.data.interactions import Interactions
from recsys_lib.data.splits import Split, check_parts
from recsys_lib.evaluation import metrics
from recsys_lib.evaluation.metrics import Doubles, RankingResult, as_scores, tie_tolerance

Scores = NDArray[np.floating]
_PAIRS_PER_BATCH = 2_000_000  # bounds the memory of one batch of scores to some tens of megabytes


class Scorer(Protocol):
    """Anything that scores pairs of users and items."""

    def score(self, user_ids: Ids, item_ids: Ids, /) -> ArrayLike:
        """Score pairs: two (n,) arrays in, (n,) numbers out, higher is better."""
        ...


def evaluate_leave_one_out(model: Scorer, split: Split, k: int = 10) -> RankingResult:
    """Rank each test item against the negatives that the split gives for it.

    A negative that is the test item itself, or that is listed twice, counts once: the evaluator of
    the original split keyed its scores by item.

    Args:
        model: anything with ``score(user_ids, item_ids)``.
        split: with ``negatives`` (len(test), m).
        k: length of the list, from 1 to the number of candidates.

    Returns:
        One value per test row. Recall equals the hit rate, since one item is relevant.

    Raises:
        ValueError: the split has no negatives, ``k`` is out of range, the model returns another
            shape or NaN.

    Source:
        He et al., *Neural Collaborative Filtering*, WWW 2017, section 4.1. Its figures are not
        those of a full ranking: Krichene & Rendle, *On Sampled Metrics*, KDD 2020.

    Example:
        >>> train, test = Interactions([0, 0, 1], [0, 1, 2]), Interactions([1], [1], num_items=3)
        >>> class ById:
        ...     def score(self, user_ids, item_ids):
        ...         return item_ids
        >>> evaluate_leave_one_out(ById(), Split(train, test, negatives=[[0, 2]]), k=2).ndcg
        0.6309297535714575
    """
    if split.negatives is None:
        raise ValueError("split.negatives is None: expected some, such as from sample_negatives")
    num_candidates, test = 1 + split.negatives.shape[1], split.test
    k = check_number("k", k, 1, num_candidates, integer=True)
    hits = np.zeros((len(test), k))
    batch = max(1, _PAIRS_PER_BATCH // num_candidates)
    for start in range(0, len(test), batch):
        rows = slice(start, start + batch)
        negatives, target = split.negatives[rows], test.item_ids[rows, None]
        candidates = np.hstack([target, negatives])  # (b, 1 + m)
        users = np.repeat(test.user_ids[rows], num_candidates)
        scores = _scores(model, users, candidates.ravel()).reshape(candidates.shape)
        counted = (negatives != target) & ~_repeats(negatives)
        own = scores[:, :1]
        as_good = scores[:, 1:] >= own - tie_tolerance(own, scores.max(axis=1, keepdims=True))
        rank = (counted & as_good).sum(axis=1)  # 0 is the top
        found = np.flatnonzero(rank < k)
        hits[start + found, rank[found]] = 1
    protocol = f"leave-one-out against {num_candidates - 1} given negatives"
    return _result(hits, np.ones(len(test)), k, test.user_ids, protocol)


def evaluate_full_ranking(
    model: Scorer,
    train: Interactions,
    test: Interactions,
    k: int = 10,
    *,
    exclude_seen: bool = True,
) -> RankingResult:
    """Rank the whole catalogue for each test user, without the items seen in training.

    Relevant are a user's test items that are not in the training part; users without any are left
    out. An item scored minus infinity is never recommended.

    Args:
        model: anything with ``score(user_ids, item_ids)``.
        train: the interactions that are excluded from the ranking.
        test: the interactions to find.
        k: length of the list, from 1 to the number of items.
        exclude_seen: False where people come back for the same things: then all items are ranked,
            and all of a user's test items are relevant.

    Returns:
        One value per test user.

    Raises:
        ValueError: the parts count different users or items, ``k`` is out of range, no test user
            is left, the model returns another shape or NaN.

    Example:
        >>> train, test = Interactions([0, 1, 1], [3, 0, 2]).split_leave_one_out()
        >>> class ById:
        ...     def score(self, user_ids, item_ids):
        ...         return -item_ids
        >>> evaluate_full_ranking(ById(), train, test, k=2)
        RankingResult(HR@2 1.0000, NDCG@2 ..., recall@2 1.0000; 1 users; full ranking of 4 items)
    """
    check_parts(train=train, test=test)
    num_items, seen, relevant = train.num_items, train.to_csr(), test.to_csr()
    if exclude_seen:
        relevant = (relevant - relevant.multiply(seen)).tocsr()
        relevant.eliminate_zeros()
    if relevant.nnz == 0:
        raise ValueError("test has no pair that is not in train: expected at least one to rank")

    def score_rows(users: Ids) -> Scores:
        if (fast := getattr(model, "score_all_items", None)) is not None:
            return _checked(fast(users), "model.score_all_items", (len(users), num_items))
        pairs = np.repeat(users, num_items), np.tile(np.arange(num_items), len(users))
        return _scores(model, *pairs).reshape(len(users), num_items)

    label = f"full ranking of {num_items:,} items" + ", repeats included" * (not exclude_seen)
    return _rank_catalogue(score_rows, seen if exclude_seen else None, relevant, k, label)


def evaluate_cold_items(scores: ArrayLike, test: Interactions, k: int = 10) -> RankingResult:
    """Rank all cold items for each user who met at least one of them.

    No user has met a candidate in training, so nothing is excluded.

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
    values = _checked(scores, "scores", (test.num_users, test.num_items))
    label = f"full ranking of {test.num_items:,} cold items"
    return _rank_catalogue(values.__getitem__, None, test.to_csr(), k, label)


def evaluate_ratings(
    model: Scorer, test: Interactions, clip: tuple[float, float] | None = None
) -> metrics.RatingResult:
    """Compare predicted with observed ratings.

    Args:
        model: anything whose ``score(user_ids, item_ids)`` is a rating.
        test: interactions with ratings.
        clip: lowest and highest rating that can be given, or None to leave predictions alone.

    Raises:
        ValueError: ``test`` has no ratings, or the model returns another shape or NaN.

    Example:
        >>> class Three:
        ...     def score(self, user_ids, item_ids):
        ...         return 3.0 + 0.0 * item_ids
        >>> evaluate_ratings(Three(), Interactions([0, 0], [0, 1], ratings=[4, 2])).rmse
        1.0
    """
    if test.ratings is None:
        raise ValueError("test has no ratings: expected interactions with ratings")
    predicted = _scores(model, test.user_ids, test.item_ids)
    if clip is not None:
        predicted = np.clip(predicted, *clip)
    pairs = test.ratings, predicted
    return metrics.RatingResult(metrics.rmse(*pairs), metrics.mae(*pairs), len(test))


def _scores(model: Scorer, user_ids: Ids, item_ids: Ids) -> Scores:
    return _checked(model.score(user_ids, item_ids), "model.score", (len(user_ids),))


def _checked(values: ArrayLike, name: str, shape: tuple[int, ...]) -> Scores:
    check_shape(name, np.asarray(values), shape)
    return as_scores(name, values)


def _rank_catalogue(
    score_rows: Callable[[Ids], Scores], seen: Any, relevant: Any, k: int, protocol: str
) -> RankingResult:
    """Rank all items but those seen for each user who has relevant ones, in batches of users."""
    num_items, num_relevant = relevant.shape[1], np.diff(relevant.indptr)
    k = check_number("k", k, 1, num_items, integer=True)
    users = np.flatnonzero(num_relevant)
    hits = np.zeros((len(users), k))
    batch = max(1, _PAIRS_PER_BATCH // num_items)
    for start in range(0, len(users), batch):
        rows = users[start : start + batch]
        scores = np.array(score_rows(rows))  # a copy, to write into
        if seen is not None:
            scores[seen[rows].nonzero()] = -np.inf
        row, rank = _relevant_ranks(scores, relevant[rows], k)
        hits[start + row[rank < k], rank[rank < k]] = 1
    return _result(hits, num_relevant[users], k, users, protocol)


def _relevant_ranks(scores: Scores, relevant: Any, k: int) -> tuple[Ids, Ids]:
    """Find (row, rank) of each relevant pair; a rank of k or more only means "not in the list".

    The rank is the number of other items that score at least as high, plus the place among the
    relevant items of the same user. Only the k best of the others are needed for that.
    """
    row, item = relevant.nonzero()
    own = scores[row, item]
    scores[row, item] = -np.inf
    if (np.diff(relevant.indptr) == 1).all():  # one each: to count is much sooner done
        lowest = own - tie_tolerance(own, np.maximum(own, scores.max(axis=1)))
        return row, (scores >= lowest[:, None]).sum(axis=1)
    others = np.take_along_axis(scores, metrics.best_columns(scores, k), axis=1)  # (b, k)
    best = np.maximum.reduceat(own, np.flatnonzero(np.diff(row, prepend=-1)))
    best = np.maximum(best, others.max(axis=1))
    lowest = own - tie_tolerance(own, best[row])
    others_before = (others[row] >= lowest[:, None]).sum(axis=1)
    order = np.lexsort((-own, row))
    first = np.searchsorted(row[order], np.arange(scores.shape[0]))
    place = np.empty(len(row), np.int64)
    place[order] = np.arange(len(row)) - first[row[order]]
    return row, others_before + place


def _repeats(negatives: Ids) -> NDArray[np.bool_]:
    """True where an item stands earlier in the same row already."""
    order = np.argsort(negatives, axis=1, kind="stable")
    ordered = np.take_along_axis(negatives, order, axis=1)
    repeated = np.zeros(negatives.shape, bool)
    np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    return repeated


def _result(
    hits: Doubles, num_relevant: Any, k: int, user_ids: Ids, protocol: str
) -> RankingResult:
    hit_rate, ndcg = metrics.hit_rate_at_k(hits, k), metrics.ndcg_at_k(hits, k, num_relevant)
    recall = metrics.recall_at_k(hits, k, num_relevant)
    return RankingResult(k, protocol, user_ids, hit_rate, ndcg, recall)
