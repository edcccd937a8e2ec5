"""What a teacher says, kept; several teachers as one; how far a student says the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import (
    Floats,
    check_counts,
    check_ids,
    check_number,
    check_shape,
    check_type,
    check_weights,
)
from recsys_lib.data import Interactions
from recsys_lib.models import inner_product_vectors
from recsys_lib.models.topk import top_k
from recsys_lib.training import KerasScorer

_SCORES_PER_BATCH = 1 << 22  # 4 million float32, 16 MB


class TeacherScores:
    """Scores and best items of a teacher, each computed once, in batches of 16 MB.

    What is kept: all scores, ``4 * num_users * num_items`` bytes, only for methods that look at the
    whole catalogue, and refused beforehand if that is more than ``max_cache_bytes``; else lists
    of best items, as for ``SoftLabels(num_candidates=100)``.

    Args:
        teacher: a fitted recommender; a Keras model ``[user_ids, item_ids]`` to (n,) logits;
            anything with ``score(user_ids, item_ids)`` or ``score_all_items(user_ids)``; a
            function of (user_ids, item_ids), each (n,), that gives (n,) scores; or an array
            (num_users, num_items) of scores. Higher is better.
        num_users: of the data.
        num_items: of the data.

    Raises:
        TypeError: a teacher that is none of these.
        ValueError: an array of another shape, or a teacher of other users or items.

    Example:
        >>> scores = TeacherScores(np.array([[0.1, 0.9, 0.5]]), 1, 3)
        >>> scores.best_items(2).tolist()
        [[1, 2]]
    """

    max_cache_bytes = 1 << 30

    def __init__(self, teacher: Any, num_users: int, num_items: int) -> None:
        self.teacher = teacher
        self.num_users, self.num_items = num_users, num_items
        self._rows = _rows_of(teacher, num_users, num_items)
        self._all: NDArray[np.float32] | None = None
        # The interactions are kept beside the lists, so that an id() is not used again.
        self._best: dict[tuple[int, int], tuple[NDArray[np.int32], Interactions | None]] = {}

    def all_scores(self) -> NDArray[np.float32]:
        """Return (num_users, num_items) float32, computed once.

        Raises:
            MemoryError: more than ``max_cache_bytes``.
            ValueError: NaN or infinity in the scores, or another shape.
        """
        if self._all is None:
            needed, limit = 4 * self.num_users * self.num_items, self.max_cache_bytes
            if needed > limit:
                raise MemoryError(f"all scores need {needed:,} bytes: expected at most {limit:,}")
            scores = np.empty((self.num_users, self.num_items), np.float32)
            for users, rows in self._batches():
                scores[users] = rows
            self._all = scores
        return self._all

    def best_items(self, k: int, exclude: Interactions | None = None) -> NDArray[np.int32]:
        """Return the k best items of each user, best first, without those in ``exclude``.

        Returns:
            (num_users, k) int32.

        Raises:
            ValueError: a user has fewer than k items left, or the scores are not finite.
        """
        key = k, id(exclude)
        if key not in self._best:
            seen = None if exclude is None else exclude.to_csr("binary")
            best = np.empty((self.num_users, k), np.int32)
            for users, rows in self._batches():
                best[users] = top_k(_without(rows, users, seen), k)
            user = int(np.argmin(best[:, -1]))
            if best[user, -1] < 0:
                raise ValueError(f"user {user} has fewer than {k} new items: take shorter lists")
            self._best[key] = best, exclude
        return self._best[key][0]

    def scores_of(self, item_ids: NDArray[Any]) -> NDArray[np.float32]:
        """Score each user's own items: (num_users, c) ids to (num_users, c) float32."""
        ids = item_ids.astype(np.int64)
        parts = [np.take_along_axis(rows, ids[users], axis=1) for users, rows in self._batches()]
        return np.concatenate(parts)

    def vectors(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return vectors whose inner products are the scores, (num_users, d) and (num_items, d).

        Raises:
            TypeError: the teacher has none.
        """
        vectors = inner_product_vectors(getattr(self.teacher, "keras_model", self.teacher))
        if vectors is None:
            kind = type(self.teacher).__name__
            raise TypeError(f"teacher is of type {kind}: expected one whose score is a dot product")
        return vectors

    def _batches(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Some users, and their finite scores (b, num_items), in order until all had their turn."""
        size = max(1, _SCORES_PER_BATCH // self.num_items)
        for start in range(0, self.num_users, size):
            users = np.arange(start, min(start + size, self.num_users))
            if self._all is not None:
                yield users, self._all[users]
                continue
            rows = np.asarray(self._rows(users), np.float32)
            check_shape("teacher's answer", rows, (len(users), self.num_items))
            yield users, check_weights("teacher's answer", rows)


def _rows_of(teacher: Any, num_users: int, num_items: int) -> Callable[..., NDArray[Any]]:
    """Turn a teacher into a function of (b,) user ids that gives (b, num_items) scores."""
    if isinstance(teacher, np.ndarray):
        check_shape("teacher", teacher, (num_users, num_items))
        return lambda users: teacher[users]
    if None not in (getattr(teacher, "num_users", None), getattr(teacher, "num_items", None)):
        check_counts("teacher", teacher, (num_users, num_items))
    if hasattr(teacher, "score_all_items"):
        return lambda users: teacher.score_all_items(users)
    vectors = inner_product_vectors(teacher)
    if vectors is not None:
        return lambda users: vectors[0][users] @ vectors[1].T
    is_keras = hasattr(teacher, "trainable_variables")
    score = KerasScorer(teacher).score if is_keras else getattr(teacher, "score", teacher)
    if not callable(score):
        kind = type(teacher).__name__
        raise TypeError(f"teacher is of type {kind}: expected a model, a function or an array")

    def rows(users: NDArray[np.int64]) -> NDArray[Any]:
        pairs = np.repeat(users, num_items), np.tile(np.arange(num_items), len(users))
        scores = np.asarray(score(*pairs))
        check_shape("teacher's answer", scores, pairs[0].shape)
        return scores.reshape(len(users), num_items)

    return rows


class Ensemble:
    """The weighted mean of several models' scores, each brought to one scale.

    Scores of different models have different units. Each model's scores of a user are therefore
    standardised over the catalogue (mean 0, standard deviation 1) before they are averaged; a user
    to whom a model gives the same score for every item gets zeros from it. Items that the user has
    met score far above all others in most models, each in its own way, and are not recommended:
    with ``exclude`` mean and deviation are those of the other items.

    Args:
        members: fitted models with ``score_all_items(user_ids)``, of the same users and items.
        weights: one number per member, not below 0, not all 0; None for equal ones.
        exclude: what users have met, left out of mean and deviation (not of the scores); None for
            the whole catalogue.

    Attributes:
        num_users: of the first member.
        num_items: of the first member.

    Raises:
        TypeError: a member without ``score_all_items``.
        ValueError: no members, other users or items (of ``exclude``, too), or weights that do not
            fit.

    Example:
        >>> from recsys_lib.data import Interactions
        >>> from recsys_lib.models import EASE, Popularity
        >>> data = Interactions([0, 0, 1, 1], [0, 1, 1, 2])
        >>> both = Ensemble([Popularity().fit(data), EASE(l2=1.0).fit(data)])
        >>> both.score_all_items([0]).argmax().item()
        1
    """

    def __init__(
        self, members: Sequence[Any], weights: Sequence[float] | None = None, exclude: Any = None
    ) -> None:
        if strangers := [one for one in members if not hasattr(one, "score_all_items")]:
            raise TypeError(f"members: {type(strangers[0]).__name__} has no score_all_items")
        given = [1.0] * len(members) if weights is None else weights
        checked = [check_number(f"weights[{n}]", weight, 0) for n, weight in enumerate(given)]
        if len(checked) != len(members) or not any(checked):
            raise ValueError(f"weights is {checked}: expected one for each member, and one above 0")
        check_type("exclude", exclude, (Interactions, type(None)))
        self.members = tuple(members)
        self.weights = tuple(weight / sum(checked) for weight in checked)
        self.num_users, self.num_items = counts = members[0].num_users, members[0].num_items
        for number, one in enumerate(members):
            check_counts(f"members[{number}]", one, counts)
        if exclude is not None:
            check_counts("exclude", exclude, counts)
        self._seen = None if exclude is None else exclude.to_csr("binary")

    def score_all_items(self, user_ids: ArrayLike) -> NDArray[np.float32]:
        """Score every item for each user: (b,) ids to (b, num_items) float32."""
        total: Any = 0.0
        counted = None if self._seen is None else self._seen[np.asarray(user_ids)].toarray() == 0
        for weight, member in zip(self.weights, self.members, strict=True):
            total = total + weight * standardized(member.score_all_items(user_ids), counted)
        return np.asarray(total, np.float32)

    def score(self, user_ids: ArrayLike, item_ids: ArrayLike) -> NDArray[np.float32]:
        """Score pairs: two (n,) arrays of ids to (n,) float32."""
        users, row = np.unique(np.asarray(user_ids), return_inverse=True)
        items, scores = np.asarray(item_ids), np.empty(len(row), np.float32)
        size = max(1, _SCORES_PER_BATCH // self.num_items)
        for start in range(0, len(users), size):
            here = np.flatnonzero((row >= start) & (row < start + size))
            rows = self.score_all_items(users[start : start + size])
            scores[here] = rows[row[here] - start, items[here]]
        return scores


def standardized(scores: NDArray[Any], counted: NDArray[np.bool_] | None = None) -> Floats:
    """Bring each row to mean 0 and standard deviation 1; a constant row becomes zeros.

    Args:
        scores: (b, n).
        counted: (b, n), which of them make up mean and deviation; None for all.

    Example:
        >>> standardized(np.array([[1.0, 3.0], [2.0, 2.0]])).tolist()
        [[-1.0, 1.0], [0.0, 0.0]]
        >>> standardized(np.array([[1.0, 3.0, 6.0]]), np.array([[True, True, False]])).tolist()
        [[-1.0, 1.0, 4.0]]
    """
    counted = np.ones(scores.shape, bool) if counted is None else counted
    counted = counted | ~counted.any(axis=1, keepdims=True)  # who has met everything: of all
    centred = scores - scores.mean(axis=1, keepdims=True, where=counted)
    spread = centred.std(axis=1, keepdims=True, where=counted)
    return np.asarray(np.divide(centred, spread, where=spread > 0, out=np.zeros_like(centred)))


@dataclass(frozen=True)
class Agreement:
    """How far a student ranks as its teacher does, as means over users.

    Args:
        overlap: share of the teacher's k best items that are among the student's k best, in
            [0, 1].
        rank_correlation: Spearman's, over the whole catalogue, in [-1, 1].
        k: length of the lists.
    """

    overlap: float
    rank_correlation: float
    k: int


def agreement(
    teacher: Any, student: Any, user_ids: ArrayLike, k: int = 10, exclude: Any = None
) -> Agreement:
    """Compare two models' rankings of the catalogue.

    Args:
        teacher: a model with ``score_all_items(user_ids)``.
        student: another.
        user_ids: (n,) users to compare for.
        k: length of the lists that are compared.
        exclude: interactions whose items are left out of the lists (not of the correlation).

    Returns:
        Overlap and correlation.

    Raises:
        ValueError: unknown ids, no users, or k out of range.

    Source:
        Spearman, *The Proof and Measurement of Association between Two Things*, 1904.

    Example:
        >>> from recsys_lib.models import Popularity
        >>> model = Popularity().fit(Interactions([0, 0, 1], [0, 1, 1]))
        >>> agreement(model, model, [0, 1], k=1)
        Agreement(overlap=1.0, rank_correlation=1.0, k=1)
    """
    from scipy.stats import rankdata

    users = check_ids("user_ids", user_ids, teacher.num_users)
    seen = None if exclude is None else exclude.to_csr("binary")
    if len(users) == 0:
        raise ValueError("user_ids is empty: expected at least one user")
    overlaps, correlations = [], []
    for some in np.array_split(users, -(-len(users) // 256)):
        scores = [np.asarray(model.score_all_items(some)) for model in (teacher, student)]
        ranks = standardized(np.concatenate([rankdata(one, axis=1) for one in scores]))
        correlations.append(np.mean(np.multiply(*np.split(ranks, 2)), axis=1))
        lists = [top_k(_without(one, some, seen), k) for one in scores]
        shared = (lists[0][:, :, None] == lists[1][:, None, :]) & (lists[0][:, :, None] >= 0)
        overlaps.append(shared.sum(axis=(1, 2)) / np.maximum((lists[0] >= 0).sum(axis=1), 1))
    correlation = float(np.mean(np.concatenate(correlations)))
    return Agreement(float(np.mean(np.concatenate(overlaps))), round(correlation, 12), k)


def _without(scores: NDArray[Any], users: NDArray[np.int64], seen: Any) -> NDArray[Any]:
    """The users' scores (b, num_items) with -inf where a sparse matrix says they met the item."""
    return scores if seen is None else np.where(seen[users].toarray() > 0, -np.inf, scores)
