"""Two tables of vectors that score with NumPy alone: what a compressed file is opened as."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.compression.checks import check_weights
from recsys_lib.data import Interactions
from recsys_lib.models import IALS, inner_product_vectors
from recsys_lib.models.checks import check_array, check_ids, check_number
from recsys_lib.models.factors import FactorModel
from recsys_lib.models.least_squares import one_blas_thread
from recsys_lib.models.topk import check_k

if TYPE_CHECKING:
    import scipy.sparse

_FIRST_BLOCK = 256
_SLACK = 1e-5  # covers the rounding of float32 products, as a share of the largest


@dataclass(frozen=True)
class FoldIn:
    """How to solve for a user known only by items; see :class:`recsys_lib.models.IALS`.

    Args:
        l2: weight of the penalty, scaled by frequency.
        unobserved_weight: weight of the items that the user has not met.

    Raises:
        TypeError, ValueError: a negative number or none.
    """

    l2: float
    unobserved_weight: float

    def __post_init__(self) -> None:
        check_number("l2", self.l2, 0)
        check_number("unobserved_weight", self.unobserved_weight, 0)


class Factors(FactorModel):
    """Item vectors, and user vectors or a way to find them, ready to serve.

    Args:
        item_vectors: (num_items, d) finite numbers, kept as float32.
        user_vectors: (num_users, d), or None where users come with their history.
        fold_in: how a history becomes a vector, or None where it cannot.

    Raises:
        TypeError: not floating-point numbers.
        ValueError: not two matrices of equal width, NaN or infinity, or neither users nor fold-in.

    Example:
        >>> model = Factors(np.float32([[1, 0], [0, 1], [1, 1]]), np.float32([[2, 1]]))
        >>> model.top_k(0, k=2).tolist(), model.score([0], [2]).tolist()
        ([2, 0], [3.0])
        >>> Factors(np.float32([[1, 0], [0, 1]]), fold_in=FoldIn(0.1, 0.1)).top_k(history=[1], k=1)
        array([0])
    """

    user_vectors: NDArray[np.float32] | None  # type: ignore[assignment]

    def __init__(
        self,
        item_vectors: ArrayLike,
        user_vectors: ArrayLike | None = None,
        fold_in: FoldIn | None = None,
    ) -> None:
        items = check_weights("item_vectors", item_vectors, ndim=2)
        self.item_vectors, self.user_vectors = items, None
        self.num_users, (self.num_items, self.embedding_dim) = 0, items.shape
        self.how_to_fold_in = fold_in
        if user_vectors is not None:
            users = check_weights("user_vectors", user_vectors, ndim=2)
            if users.shape[1] != items.shape[1]:
                raise ValueError(
                    f"user_vectors has shape {users.shape}, item_vectors {items.shape}: expected "
                    "the same number of dimensions"
                )
            self.user_vectors, self.num_users = users, len(users)
        elif fold_in is None:
            raise ValueError("user_vectors and fold_in are None: expected one of them")

    def __repr__(self) -> str:
        users = "items only" if self.user_vectors is None else f"{self.num_users:,} users"
        return f"Factors({users}, {self.num_items:,} items, d = {self.embedding_dim})"

    def __copy__(self) -> Self:
        """Give a copy without what was computed from the tables, since it may get other ones."""
        result = type(self).__new__(type(self))
        cached = {"_by_length", "_place_of", "_axes"}
        vars(result).update({key: v for key, v in vars(self).items() if key not in cached})
        return result

    def top_k(
        self,
        user_id: int | None = None,
        k: int = 10,
        *,
        history: ArrayLike | None = None,
        exclude: ArrayLike = (),
    ) -> NDArray[np.int64]:
        """Give the k best items for one user, exactly and fast.

        Rows lie in order of length. The longest ones give a score that k items reach; rows too
        short to reach it, by the inequality of Cauchy and Schwarz, are not looked at.

        Args:
            user_id: one of the user vectors; or use ``history``.
            k: how many.
            history: ids of the items the user has met; left out of the result.
            exclude: ids of more items to leave out.

        Returns:
            (k,) item ids, best first, equal scores by lowest id; -1 where no item is left.

        Raises:
            TypeError: ids are not integers, or the model cannot fold in or has no users.
            ValueError: both or none of user_id and history, an unknown id, or an empty history.
        """
        check_k(k)
        banned = check_ids("exclude", exclude, self.item_vectors.shape[0])
        if history is not None:
            met = self._checked_history(history)
            banned = np.concatenate([banned, met]) if len(banned) else met
        return self._search(self._vector(user_id, history), k, banned)

    def score_candidates(
        self, user_id: int | None, item_ids: ArrayLike, *, history: ArrayLike | None = None
    ) -> NDArray[np.float32]:
        """Score candidates (n,) for one user, known by id or history: (n,) float32.

        Raises:
            TypeError, ValueError: as in :meth:`top_k`.
        """
        items = check_ids("item_ids", item_ids, self.item_vectors.shape[0])
        return self.item_vectors.take(items, axis=0) @ self._vector(user_id, history)

    def fold_in(self, histories: Sequence[ArrayLike]) -> NDArray[np.float32]:
        """Solve for the vectors of users known only by their items, as :meth:`IALS.fold_in`.

        Args:
            histories: b lists of item ids; repeats count once.

        Returns:
            (b, d) float32.

        Raises:
            TypeError: the model cannot fold in, or ids are not integers.
            ValueError: an unknown item id, or an empty history.
        """
        with one_blas_thread():
            rows = [self._solve(self._checked_history(history)) for history in histories]
        return np.array(rows, np.float32).reshape(len(rows), self.embedding_dim)

    def with_folded_users(self, interactions: Interactions) -> Factors:
        """Give a model whose user vectors are folded in from interactions; zeros without any.

        Example:
            >>> model = Factors(np.float32([[1, 0], [0, 1]]), fold_in=FoldIn(0.1, 0.1))
            >>> model.with_folded_users(Interactions([0, 1], [0, 1])).user_vectors.shape
            (2, 2)
        """
        matrix = interactions.to_csr("binary")
        users = np.zeros((matrix.shape[0], self.embedding_dim), np.float32)
        with one_blas_thread():
            for row in np.flatnonzero(np.diff(matrix.indptr)):
                users[row] = self._solve(
                    matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]]
                )
        return Factors(self.item_vectors, users, self.how_to_fold_in)

    def _vector(self, user_id: int | None, history: ArrayLike | None) -> NDArray[np.float32]:
        if (user_id is None) == (history is None):
            given = "none" if user_id is None else "both"
            raise ValueError(f"user_id, history: {given} given: expected exactly one")
        if history is not None:
            return self._solve(self._checked_history(history))
        users = self._users()
        return users[check_ids("user_id", np.array([user_id]), len(users))[0]]

    def _users(self) -> NDArray[np.float32]:
        if self.user_vectors is None:
            raise TypeError("the model holds items only: expected the user's history, not an id")
        return self.user_vectors

    def _checked_history(self, history: ArrayLike) -> NDArray[np.int64]:
        if self.how_to_fold_in is None:
            raise TypeError("history: the model cannot fold in: expected the id of a user")
        items = np.unique(check_ids("history", history, self.item_vectors.shape[0]))
        if len(items) == 0:
            raise ValueError("history is empty: expected at least one item id")
        return items

    @cached_property
    def _by_length(self) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
        """Rows, longest first; their ids; and minus their lengths."""
        lengths = np.sqrt(np.einsum("nd,nd->n", self.item_vectors, self.item_vectors))
        ids = np.argsort(-lengths, kind="stable")
        return np.ascontiguousarray(self.item_vectors[ids]), ids, -lengths[ids]

    @cached_property
    def _place_of(self) -> NDArray[np.int64]:
        return np.argsort(self._by_length[1])

    def _search(
        self, vector: NDArray[np.float32], k: int, banned: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        rows, ids, shortness = self._by_length
        places = self._place_of[banned] if len(banned) else banned
        wanted = min(k, len(rows))
        first = min(len(rows), max(_FIRST_BLOCK, 4 * wanted) + len(banned))
        scores = _masked(rows[:first] @ vector, places)
        lowest = np.partition(scores, first - wanted)[first - wanted]
        if first < len(rows):
            needed = (lowest - _SLACK * abs(lowest)) / max(float(np.sqrt(vector @ vector)), 1e-30)
            reach = int(shortness.searchsorted(-needed, side="right")) if needed > 0 else len(rows)
            if reach > first:
                scores = _masked(rows[:reach] @ vector, places)
                lowest = np.partition(scores, reach - wanted)[reach - wanted]
        best = np.flatnonzero(scores >= lowest)
        best = best[np.lexsort((ids[best], -scores[best]))[:wanted]]
        found = np.where(np.isneginf(scores[best]), -1, ids[best])
        return found if wanted == k else np.pad(found, (0, k - wanted), constant_values=-1)

    @cached_property
    def _axes(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Item vectors in axes in which their weighted Gram matrix is diagonal; it; the axes."""
        assert self.how_to_fold_in is not None
        items = self.item_vectors.astype(np.float64)
        values, axes = np.linalg.eigh(self.how_to_fold_in.unobserved_weight * items.T @ items)
        turned = np.ascontiguousarray(items @ axes, np.float32)
        return turned, np.maximum(values, 0).astype(np.float32), axes.astype(np.float32)

    def _solve(self, met: NDArray[np.integer]) -> NDArray[np.float32]:
        """Solve ``(G + ridge I + F'F) x = F'1`` for one user, the smaller way round.

        G is the weighted Gram matrix of all items, F the vectors of those met. In axes in which G
        is diagonal, D = G + ridge I is inverted at once; fewer items than dimensions leave a
        system of their number, ``x = D^-1 F' (I + F D^-1 F')^-1 1`` (Woodbury).
        """
        how = self.how_to_fold_in
        assert how is not None
        turned, gram, axes = self._axes
        features = turned.take(met, axis=0)  # (n, d)
        frequency = len(met) + how.unobserved_weight * len(turned)
        diagonal = gram + np.float32(how.l2 * frequency)
        if len(met) < len(diagonal) and diagonal[0] > 1e-5 * diagonal[-1]:
            scaled = features / diagonal
            left = features @ scaled.T
            left.flat[:: len(met) + 1] += 1
            solution = np.linalg.solve(left, np.ones(len(met), np.float32)) @ scaled
        else:
            left = features.T @ features
            left.flat[:: len(diagonal) + 1] += diagonal
            solution = np.linalg.solve(left, features.sum(axis=0))
        return axes @ solution

    def _fit(self, interactions: Interactions) -> None:
        raise TypeError("Factors are made from tables: expected IALS or another model to fit")

    def score(self, user_ids: ArrayLike, item_ids: ArrayLike) -> NDArray[np.float32]:
        """Score pairs, see :meth:`recsys_lib.models.Recommender.score`; TypeError without users."""
        self._users()
        return super().score(user_ids, item_ids)

    def score_all_items(self, user_ids: ArrayLike) -> NDArray[np.float32]:
        """Score all items, as :meth:`recsys_lib.models.Recommender.score_all_items`."""
        self._users()
        return super().score_all_items(user_ids)

    def _score_users(self, user_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        return self._users()[user_ids] @ self.item_vectors.T

    def _score_histories(self, matrix: scipy.sparse.csr_matrix) -> NDArray[np.float32]:
        histories = np.split(matrix.indices, matrix.indptr[1:-1])
        return self.fold_in(histories) @ self.item_vectors.T

    def _expected_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = super()._expected_shapes()
        return shapes if self.user_vectors is not None else {"item_vectors": shapes["item_vectors"]}

    def _state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        arrays = {"item_vectors": self.item_vectors}
        if self.user_vectors is not None:
            arrays["user_vectors"] = self.user_vectors
        how = self.how_to_fold_in
        return {"fold_in": None if how is None else asdict(how)}, arrays

    @classmethod
    def _from_state(cls, config: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        how = config["fold_in"]
        users = check_array(arrays, "user_vectors", ndim=2) if "user_vectors" in arrays else None
        items = check_array(arrays, "item_vectors", ndim=2)
        return cls(items, users, None if how is None else FoldIn(**how))


def as_factors(model: Any) -> Factors:
    """Give the tables of a model whose score is an inner product; the model stays as it is.

    Args:
        model: a fitted factor model (IALS, ALS), a Keras model of ``build_rating_model`` of kind
            dot_product, matrix_factorization or two_tower, or a fitted KerasRecommender around
            one. Biases become two more dimensions.

    Returns:
        A copy; it can fold in if the model is an IALS.

    Raises:
        TypeError: another kind of model, such as mlp_ranker, whose score is no inner product.
        RuntimeError: a model that is not fitted.

    Example:
        >>> model = IALS(embedding_dim=4).fit(Interactions([0, 0, 1, 2], [0, 1, 1, 2]))
        >>> as_factors(model)
        Factors(3 users, 3 items, d = 4)
    """
    if isinstance(model, FactorModel):
        model._counts()
        how = getattr(model, "how_to_fold_in", None)
        if isinstance(model, IALS):
            how = FoldIn(model.l2, model.unobserved_weight)
        users = None if model.user_vectors is None else model.user_vectors.copy()
        return Factors(model.item_vectors.copy(), users, how)
    vectors = inner_product_vectors(getattr(model, "keras_model", model))
    if vectors is None:
        raise TypeError(
            f"model is of type {type(model).__name__}: expected one whose score is an inner "
            "product (IALS, or a Keras model: dot_product, matrix_factorization, two_tower)"
        )
    return Factors(vectors[1], vectors[0])


def _masked(scores: NDArray[np.float32], places: NDArray[np.int64]) -> NDArray[np.float32]:
    if len(places):
        scores[places[places < len(scores)]] = -np.inf
    return scores
