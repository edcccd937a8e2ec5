"""What a teacher says: any scorer's scores, computed in batches and kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.data import Interactions
from recsys_lib.models import inner_product_vectors
from recsys_lib.models.factors import Factors
from recsys_lib.models.topk import top_k

MAX_CACHE_BYTES = 1 << 30
_SCORES_PER_BATCH = 1 << 22  # 4 million float32, 16 MB

Rows = Callable[[NDArray[np.int64]], NDArray[Any]]


class TeacherScores:
    """Scores and best items of a teacher, each computed once, in batches of 16 MB.

    What is kept: all scores, ``4 * num_users * num_items`` bytes, only for methods that look at the
    whole catalogue; else 4 bytes for each item in the lists of best items and for each of their
    scores. It is refused beforehand if it would be more than ``max_cache_bytes``.

    Args:
        teacher: a fitted recommender; a Keras model ``[user_ids, item_ids]`` to (n,) logits;
            anything with ``score(user_ids, item_ids)`` or ``score_all_items(user_ids)``; a
            function of (user_ids, item_ids), each (n,), that gives (n,) scores; or an array
            (num_users, num_items) of scores. Higher is better.
        num_users: of the data.
        num_items: of the data.
        max_cache_bytes: bound of the memory kept; one gibibyte by default.
        progress: show a progress bar over batches of users.

    Raises:
        TypeError: a teacher that is none of these.
        ValueError: an array of another shape.

    Example:
        >>> scores = TeacherScores(np.array([[0.1, 0.9, 0.5]]), 1, 3)
        >>> scores.best_items(2).tolist()
        [[1, 2]]
    """

    def __init__(
        self,
        teacher: Any,
        num_users: int,
        num_items: int,
        *,
        max_cache_bytes: int = MAX_CACHE_BYTES,
        progress: bool = False,
    ) -> None:
        self.teacher = teacher
        self.num_users, self.num_items = num_users, num_items
        self.max_cache_bytes, self.progress = max_cache_bytes, progress
        self._rows = _rows_of(teacher, num_users, num_items)
        self._all: NDArray[np.float32] | None = None
        self._best: dict[tuple[int, int | None], NDArray[np.int32]] = {}
        self._excluded: list[Interactions] = []  # kept, so that an id() is not used again

    @property
    def cache_bytes(self) -> int:
        """Bytes kept so far."""
        kept = [*self._best.values(), *([] if self._all is None else [self._all])]
        return sum(values.nbytes for values in kept)

    def all_scores(self) -> NDArray[np.float32]:
        """Give (num_users, num_items) float32, computed once.

        Raises:
            MemoryError: more than ``max_cache_bytes``.
            ValueError: NaN or infinity in the scores, or another shape.
        """
        if self._all is None:
            self._check_room(4 * self.num_users * self.num_items)
            scores = np.empty((self.num_users, self.num_items), np.float32)
            for users, rows in self._batches():
                scores[users] = rows
            self._all = scores
        return self._all

    def best_items(self, k: int, exclude: Interactions | None = None) -> NDArray[np.int32]:
        """Give the k best items of each user, best first, without those in ``exclude``.

        Returns:
            (num_users, k) int32.

        Raises:
            ValueError: a user has fewer than k items left, or the scores are not finite.
        """
        key = k, None if exclude is None else id(exclude)
        if key not in self._best:
            self._check_room(4 * self.num_users * k)
            seen = None if exclude is None else exclude.to_csr("binary")
            best = np.empty((self.num_users, k), np.int32)
            for users, rows in self._batches():
                if seen is not None:
                    rows = rows.copy()
                    met = seen[users]
                    rows[
                        np.repeat(np.arange(len(rows)), np.diff(met.indptr)), met.indices
                    ] = -np.inf
                best[users] = top_k(rows, k)
            short = np.flatnonzero(best[:, -1] < 0)
            if len(short):
                raise ValueError(
                    f"user {short[0]} has fewer than {k} items that are not excluded: expected a "
                    "method with shorter lists"
                )
            self._best[key] = best
            if exclude is not None:
                self._excluded.append(exclude)
        return self._best[key]

    def scores_of(self, item_ids: NDArray[Any]) -> NDArray[np.float32]:
        """Score each user's own items: (num_users, c) ids to (num_users, c) float32."""
        scores = np.empty(item_ids.shape, np.float32)
        for users, rows in self._batches():
            scores[users] = np.take_along_axis(rows, item_ids[users].astype(np.int64), axis=1)
        return scores

    def vectors(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Give the teacher's hidden vectors: (num_users, d) and (num_items, d) float32.

        Raises:
            TypeError: the teacher has none.
        """
        if isinstance(self.teacher, Factors):
            return self.teacher.user_vectors, self.teacher.item_vectors
        vectors = inner_product_vectors(getattr(self.teacher, "keras_model", self.teacher))
        if vectors is None:
            raise TypeError(
                f"teacher is of type {type(self.teacher).__name__}: expected one with a vector per "
                "user and item, such as IALS or a dot_product, matrix_factorization or two_tower"
            )
        return vectors

    def _batches(self) -> Any:
        """Give pairs of a slice of users and their finite scores (b, num_items)."""
        size = max(1, _SCORES_PER_BATCH // self.num_items)
        starts: Any = range(0, self.num_users, size)
        if self._all is not None:
            yield from ((slice(s, s + size), self._all[s : s + size]) for s in starts)
            return
        if self.progress:
            from tqdm.auto import tqdm

            starts = tqdm(starts, desc="teacher", unit="batch")
        for start in starts:
            users = np.arange(start, min(start + size, self.num_users))
            rows = np.asarray(self._rows(users), np.float32)
            shape = (len(users), self.num_items)
            if rows.shape != shape:
                raise ValueError(f"teacher gave scores of shape {rows.shape}: expected {shape}")
            bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
            if len(bad):
                raise ValueError(
                    f"teacher scores hold NaN or infinity for user {users[bad[0]]}: "
                    "expected finite numbers"
                )
            yield slice(start, start + size), rows

    def _check_room(self, more: int) -> None:
        if self.cache_bytes + more > self.max_cache_bytes:
            raise MemoryError(
                f"teacher scores would need {self.cache_bytes + more:,} bytes: expected at most "
                f"max_cache_bytes, {self.max_cache_bytes:,}; SoftLabels(num_candidates=...) and "
                "the ranking methods keep only a list per user"
            )


def _rows_of(teacher: Any, num_users: int, num_items: int) -> Rows:
    """Turn a teacher into a function of (b,) user ids that gives (b, num_items) scores."""
    if isinstance(teacher, np.ndarray):
        if teacher.shape != (num_users, num_items):
            raise ValueError(
                f"teacher is an array of shape {teacher.shape}: expected "
                f"{(num_users, num_items)}, a score for each user and item"
            )
        return lambda users: teacher[users]
    _check_counts(teacher, num_users, num_items)
    if hasattr(teacher, "score_all_items"):
        return lambda users: teacher.score_all_items(users)
    score = getattr(teacher, "score", teacher)
    if hasattr(teacher, "trainable_variables"):
        vectors = inner_product_vectors(teacher)
        if vectors is not None:
            return lambda users: vectors[0][users] @ vectors[1].T
        from recsys_lib.training import KerasScorer

        score = KerasScorer(teacher).score
    if not callable(score):
        raise TypeError(
            f"teacher is of type {type(teacher).__name__}: expected a model with score(), a Keras "
            "model, a function of (user_ids, item_ids), or an array of scores"
        )

    def rows(users: NDArray[np.int64]) -> NDArray[Any]:
        pairs = np.repeat(users, num_items), np.tile(np.arange(num_items), len(users))
        scores = np.asarray(score(*pairs))
        if scores.shape != pairs[0].shape:
            raise ValueError(
                f"teacher gave scores of shape {scores.shape} for {len(pairs[0])} pairs: expected "
                f"({len(pairs[0])},)"
            )
        return scores.reshape(len(users), num_items)

    return rows


def _check_counts(teacher: Any, num_users: int, num_items: int) -> None:
    counts = getattr(teacher, "num_users", num_users), getattr(teacher, "num_items", num_items)
    if counts != (num_users, num_items) and None not in counts:
        raise ValueError(
            f"teacher counts {counts[0]} users and {counts[1]} items, interactions {num_users} and "
            f"{num_items}: expected the same"
        )
