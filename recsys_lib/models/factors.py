"""Models with a vector for each user and one for each item, whose score is the inner product."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg.lapack import sposv
from scipy.sparse import csr_matrix

from recsys_lib.checks import Floats, Ids, check_number, check_shape, check_weights, store_numbers
from recsys_lib.data import Interactions
from recsys_lib.files import known_settings
from recsys_lib.models.base import Recommender, item_lists
from recsys_lib.models.least_squares import one_blas_thread

_MANY_ROWS = 32


@dataclass(frozen=True)
class FoldIn:
    """How to solve for a user known only by items; see :class:`recsys_lib.models.IALS`.

    Args:
        l2: weight of the penalty, scaled by frequency, not below 0.
        unobserved_weight: weight of the items that the user has not met, not below 0.

    Raises:
        TypeError, ValueError: a negative number or none.
    """

    l2: float
    unobserved_weight: float

    def __post_init__(self) -> None:
        store_numbers(self, 0, "l2", "unobserved_weight")


class Factors(Recommender):
    """Item vectors, and user vectors or a way to find them.

    The score of user u and item i is ``<a_u, h_i>``, and ``global_mean + b_u + b_i`` more for a
    model with biases. :class:`IALS` and :class:`ALS` are Factors that learn; what a compressed file
    opens as is one too.

    Args:
        item_vectors: (num_items, d) finite numbers, kept as float32.
        user_vectors: (num_users, d), or None where users come with their history.
        fold_in: how a history becomes a vector, or None where it cannot.
        global_mean: added to every score.
        user_biases: (num_users,) or None for zeros.
        item_biases: (num_items,) or None for zeros.

    Attributes:
        user_vectors, item_vectors, global_mean, user_biases, item_biases: as given.
        how_to_fold_in: ``fold_in``.

    Raises:
        TypeError: not floating-point numbers.
        ValueError: shapes that do not fit, NaN or infinity, or neither users nor fold-in.

    Example:
        >>> model = Factors(np.float32([[1, 0], [0, 1], [1, 1]]), np.float32([[2, 1]]))
        >>> model.recommend([0], k=2).tolist(), model.score([0], [2]).tolist()
        ([[2, 0]], [3.0])
        >>> items_only = Factors(np.float32([[1, 0], [0, 1]]), fold_in=FoldIn(0.1, 0.1))
        >>> items_only.recommend(histories=[[1]], k=1).tolist()
        [[0]]
    """

    item_vectors: Floats
    user_vectors: Floats | None = None
    global_mean: float = 0.0
    user_biases: Floats | None = None
    item_biases: Floats | None = None
    how_to_fold_in: FoldIn | None = None
    embedding_dim: int
    _settings: ClassVar[tuple[str, ...]] = ()  # of a subclass that learns
    _turned: tuple[Any, Any] | None = None  # item vectors, and what was computed from them

    def __init__(
        self,
        item_vectors: ArrayLike,
        user_vectors: ArrayLike | None = None,
        fold_in: FoldIn | None = None,
        *,
        global_mean: float = 0.0,
        user_biases: ArrayLike | None = None,
        item_biases: ArrayLike | None = None,
    ) -> None:
        items = check_weights("item_vectors", item_vectors, ndim=2)
        self.item_vectors, self.how_to_fold_in = items, fold_in
        self.num_items, self.embedding_dim = items.shape
        self.num_users = 0 if user_vectors is None else len(np.asarray(user_vectors))
        self.global_mean = check_number("global_mean", global_mean, -np.inf)
        if user_vectors is None and fold_in is None:
            raise ValueError("user_vectors and fold_in are None: expected one of them")
        if fold_in is not None and not (user_biases is None and item_biases is None):
            raise ValueError("fold_in and biases are given: expected one of them")
        given = {"user_vectors": user_vectors, "user_biases": user_biases}
        for name, values in (given | {"item_biases": item_biases}).items():
            setattr(self, name, None if values is None else check_weights(name, values))
        for name, shape in self._expected_shapes().items():
            check_shape(name, getattr(self, name), shape)

    def __repr__(self) -> str:
        if self.num_items is None:
            return super().__repr__()
        users = f"{self.num_users:,} users" if self.num_users else "items only"
        return f"{type(self).__name__}({users}, {self.num_items:,} items, d = {self.embedding_dim})"

    def _fit(self, interactions: Interactions) -> None:
        raise TypeError("Factors are made from tables: expected IALS or another model to fit")

    def fold_in(self, histories: Sequence[ArrayLike]) -> Floats:
        """Return the vectors of users known only by their items, the items held fixed.

        For a user of the training data it differs a little from ``user_vectors``: those were solved
        before the last step for the items.

        Args:
            histories: b lists of item ids; repeats count once.

        Returns:
            (b, d) float32.

        Raises:
            RuntimeError: the model is not fitted.
            TypeError: the model cannot fold in, or ids are not integers.
            ValueError: an unknown item id, or an empty history.

        Example:
            >>> from recsys_lib.models import IALS
            >>> IALS(embedding_dim=4).fit(Interactions([0, 1], [0, 1])).fold_in([[0], [1]]).shape
            (2, 4)
        """
        return self._solve_lists(item_lists("histories", histories, self._counts()[1], False))

    def with_folded_users(self, interactions: Interactions) -> Factors:
        """Return a model whose user vectors are folded in from interactions; zeros without any.

        Example:
            >>> model = Factors(np.float32([[1, 0], [0, 1]]), fold_in=FoldIn(0.1, 0.1))
            >>> model.with_folded_users(Interactions([0, 1], [0, 1])).user_vectors.shape
            (2, 2)
        """
        users = self._solve_rows(interactions.to_csr("binary"))
        how, mean = self.how_to_fold_in, self.global_mean
        return Factors(self.item_vectors, users, how, global_mean=mean)

    def _score_users(self, user_ids: Ids) -> Floats:
        scores = self._users()[user_ids] @ self.item_vectors.T
        return self._add_biases(scores, user_ids[:, None], np.arange(len(self.item_vectors)))

    def _score_pairs(self, user_ids: Ids, item_ids: Ids) -> Floats:
        scores = paired_products(self._users(), self.item_vectors, user_ids, item_ids)
        return self._add_biases(scores, user_ids, item_ids)

    def _add_biases(self, scores: Floats, users: Ids, items: Ids) -> Floats:
        scores += np.float32(self.global_mean)
        if self.user_biases is not None:
            scores += self.user_biases[users]
        if self.item_biases is not None:
            scores += self.item_biases[items]
        return scores

    def _score_histories(self, matrix: csr_matrix) -> Floats:
        return self._solve_rows(matrix) @ self.item_vectors.T + np.float32(self.global_mean)

    def _users(self) -> Floats:
        if self.user_vectors is None:
            raise TypeError("the model holds items only: expected the user's history, not an id")
        return self.user_vectors

    def _axes(self) -> tuple[Floats, Floats, Floats]:
        """Item vectors in axes in which their weighted Gram matrix is diagonal; it; the axes."""
        assert self.how_to_fold_in is not None
        if self._turned is None or self._turned[0] is not self.item_vectors:
            items = self.item_vectors.astype(np.float64)
            values, axes = np.linalg.eigh(self.how_to_fold_in.unobserved_weight * items.T @ items)
            turned = np.ascontiguousarray(items @ axes, np.float32)
            gram = np.maximum(values, 0).astype(np.float32)
            self._turned = self.item_vectors, (turned, gram, axes.astype(np.float32))
        return self._turned[1]

    def _solve_rows(self, matrix: csr_matrix) -> Floats:
        """Fold in each row of a sparse 0/1 matrix, (rows, d); zeros for a row without entries."""
        return self._solve_lists([matrix.indices[a:b] for a, b in pairwise(matrix.indptr)])

    def _solve_lists(self, lists: Sequence[NDArray[np.integer]]) -> Floats:
        if self.how_to_fold_in is None:
            raise TypeError("histories: the model cannot fold in: expected the ids of users")
        users = np.zeros((len(lists), self.embedding_dim), np.float32)
        # Finding the BLAS libraries of a process takes longer than a request of one user.
        with one_blas_thread() if len(lists) > _MANY_ROWS else nullcontext():
            for row, met in enumerate(lists):
                if len(met):
                    users[row] = self._solve_one(met)
        return users

    def _solve_one(self, met: NDArray[np.integer]) -> Floats:
        """Solve ``(G + ridge I + F'F) x = F'1`` for one user, the smaller way round.

        G is the weighted Gram matrix of all items, F the vectors of those met. In axes in which G
        is diagonal, D = G + ridge I is inverted at once; fewer items than dimensions leave a
        system of their number, ``x = D^-1 F' (I + F D^-1 F')^-1 1`` (Woodbury).
        """
        how = self.how_to_fold_in
        assert how is not None
        turned, gram, axes = self._axes()
        features = turned.take(met, axis=0)  # (n, d)
        frequency = len(met) + how.unobserved_weight * len(turned)
        diagonal = gram + np.float32(how.l2 * frequency)
        few = len(met) < len(diagonal) and diagonal[0] > 1e-5 * diagonal[-1]
        scaled = features / diagonal if few else features.T
        left = features @ scaled.T if few else scaled @ features
        left.flat[:: len(left) + 1] += 1 if few else diagonal
        right = np.ones(len(met), np.float32) if few else features.sum(axis=0)
        _, solution, failed = sposv(left.T, right, lower=True)  # by Cholesky, in half the time
        solution = np.linalg.solve(left, right) if failed else solution  # failed: not definite
        return axes @ (solution @ scaled if few else solution)

    def _expected_shapes(self) -> dict[str, tuple[int, ...]]:
        (users, items), dim = self._counts(), self.embedding_dim
        shapes: dict[str, tuple[int, ...]] = {"item_vectors": (items, dim)}
        shapes |= {"user_vectors": (users, dim), "user_biases": (users,), "item_biases": (items,)}
        return {name: shape for name, shape in shapes.items() if getattr(self, name) is not None}

    def _state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        config = {name: getattr(self, name) for name in (*self._settings, "global_mean")}
        config["fold_in"] = self.how_to_fold_in and asdict(self.how_to_fold_in)
        return config, {name: getattr(self, name) for name in self._expected_shapes()}

    @classmethod
    def _from_state(cls, config: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        known = (*cls._settings, "global_mean", "fold_in")
        config = known_settings(config, known, cls.__name__)
        tables: dict[str, Any] = arrays | {"global_mean": config.pop("global_mean")}
        if (how := config.pop("fold_in")) is not None:
            how = FoldIn(**known_settings(how, ["l2", "unobserved_weight"], "fold_in"))
        model = cls(**config) if cls._settings else cls.__new__(cls)
        Factors.__init__(model, **tables, fold_in=how)
        return model


def as_factors(model: Any) -> Factors:
    """Return the tables of a model whose score is an inner product; the model stays as it is.

    Args:
        model: a fitted factor model (IALS, ALS), a Keras model of ``build_rating_model`` of kind
            dot_product, matrix_factorization or two_tower, or a fitted KerasRecommender around
            one, whose biases become two more dimensions.

    Returns:
        A copy that scores as the model does; it can fold in if the model is an IALS.

    Raises:
        TypeError: another kind of model, such as mlp_ranker, whose score is no inner product.
        RuntimeError: a model that is not fitted.

    Example:
        >>> from recsys_lib.models import IALS
        >>> model = IALS(embedding_dim=4).fit(Interactions([0, 0, 1, 2], [0, 1, 1, 2]))
        >>> as_factors(model)
        Factors(3 users, 3 items, d = 4)
    """
    if isinstance(model, Factors):
        model._counts()
        tables: dict[str, Any] = {n: getattr(model, n).copy() for n in model._expected_shapes()}
        return Factors(fold_in=model.how_to_fold_in, global_mean=model.global_mean, **tables)
    vectors = inner_product_vectors(getattr(model, "keras_model", model))
    if vectors is None:
        expected = "expected one whose score is an inner product, such as IALS or a two_tower"
        raise TypeError(f"model is of type {type(model).__name__}: {expected}")
    return Factors(vectors[1], vectors[0])


def inner_product_vectors(model: Any) -> tuple[Floats, Floats] | None:
    """Return the vectors whose inner product is the model's output, if there are such.

    Serving needs no model then: one matrix product scores every item. Biases become two more
    dimensions, ``[a_u, global_bias + b_u, 1]`` and ``[h_i, 1, b_i]``; towers are run
    once for all users and items.

    Args:
        model: from :func:`recsys_lib.models.build_rating_model`, of Keras 3 or of the twin; or
            :class:`recsys_lib.models.Factors` with user vectors, such as IALS or ALS.

    Returns:
        ``(user_vectors, item_vectors)``, (num_users, d) and (num_items, d) float32, with
        ``<user_vectors[u], item_vectors[i]>`` the logit of (u, i) up to rounding; None for a
        model that cannot be taken apart so (mlp_ranker, neumf, or not from this builder).

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("matrix_factorization", 2, 3, 4))
        >>> [vectors.shape for vectors in inner_product_vectors(model)]
        [(2, 6), (3, 6)]
    """
    if isinstance(model, Factors):
        return _with_biases(model)
    layers = {layer.name: layer for layer in getattr(model, "layers", [])}
    if not {"user_embedding", "item_embedding", "dot", "logits"} <= layers.keys():
        return None
    users, items = (_tower(layers, side) for side in ("user", "item"))
    if "user_bias" in layers:
        user_bias = layers["user_bias"].get_weights()[0] + layers["global_bias"].offset
        item_bias = layers["item_bias"].get_weights()[0]
        users = np.hstack([users, user_bias, np.ones_like(user_bias)])
        items = np.hstack([items, np.ones_like(item_bias), item_bias])
    return np.asarray(users, np.float32), np.asarray(items, np.float32)


def _tower(layers: dict[str, Any], side: str) -> Floats:
    vectors = layers[f"{side}_embedding"].get_weights()[0]
    for name in [name for name in layers if name.startswith(f"{side}_dense_")]:
        vectors = np.asarray(layers[name](vectors))
    return vectors


def _with_biases(model: Factors) -> tuple[Floats, Floats]:
    users, items = model._users(), model.item_vectors
    biases = model.user_biases, model.item_biases
    if all(bias is None for bias in biases) and not model.global_mean:
        return users, items
    ones = [np.ones(len(table), np.float32) for table in (users, items)]
    first, second = (0 * n if bias is None else bias for n, bias in zip(ones, biases, strict=True))
    users = np.column_stack([users, first + np.float32(model.global_mean), ones[0]])
    return users, np.column_stack([items, ones[1], second])


def paired_products(users: Floats, items: Floats, user_ids: Ids, item_ids: Ids) -> Floats:
    """Return ``<users[user_ids[n]], items[item_ids[n]]>`` for each n, (n,).

    In pieces of 4,096 pairs, so that the gathered vectors stay in the cache: five times faster.

    Example:
        >>> vectors = np.float32([[1, 2], [3, 4]])
        >>> paired_products(vectors, vectors, np.array([0, 1]), np.array([1, 1])).tolist()
        [11.0, 25.0]
    """
    scores = np.empty(len(user_ids), np.float32)
    for start in range(0, len(user_ids), 4096):
        part = slice(start, start + 4096)
        scores[part] = np.einsum("nd,nd->n", users[user_ids[part]], items[item_ids[part]])
    return scores


def epochs_with_progress(epochs: int, label: str, progress: bool) -> Iterable[int]:
    """Count epochs, with a progress bar on stderr or in the notebook if asked for."""
    from tqdm.auto import tqdm

    return tqdm(range(epochs), desc=label, unit="epoch", disable=not progress)
