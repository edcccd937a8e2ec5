"""Models that are computed and not trained: popularity, and EASE."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys_lib.checks import Floats, Ids, check_memory, check_number, check_weights
from recsys_lib.data import Interactions
from recsys_lib.files import known_settings
from recsys_lib.models.base import Recommender

_MOST_FOR_FLOAT32 = 2e4  # condition up to which scores in float32 keep about three digits
_INSTEAD = "IALS, whose memory grows with num_items, or fewer items"


class Popularity(Recommender):
    """Score an item by the number of different users who met it, the same for every user.

    Formula:
        ``score[u, i] = |{v : v met i}|``

    Source:
        "TopPopular" in Ferrari Dacrema et al., *A Troubling Analysis of Reproducibility and
        Progress in Recommender Systems Research*, TOIS 2021.

    Attributes:
        item_counts: (num_items,) float32, after fit.

    Example:
        >>> model = Popularity().fit(Interactions([0, 1, 1, 2], [2, 2, 0, 2]))
        >>> model.score_all_items([0]).tolist()
        [[1.0, 0.0, 3.0]]
        >>> model.recommend(histories=[[2], []], k=2).tolist()
        [[0, 1], [2, 0]]
    """

    _allows_empty_history: ClassVar[bool] = True
    item_counts: Floats

    def _fit(self, interactions: Interactions) -> None:
        matrix = interactions.to_csr("binary")
        self.item_counts = np.bincount(matrix.indices, minlength=matrix.shape[1]).astype(np.float32)

    def _expected_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"item_counts": (self._counts()[1],)}

    def _score_users(self, user_ids: Ids) -> Floats:
        return np.tile(self.item_counts, (len(user_ids), 1))

    def _score_pairs(self, user_ids: Ids, item_ids: Ids) -> Floats:
        return self.item_counts[item_ids]

    def _score_histories(self, matrix: csr_matrix) -> Floats:
        return np.tile(self.item_counts, (matrix.shape[0], 1))

    def _state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        return {}, {"item_counts": self.item_counts}

    @classmethod
    def _from_state(cls, config: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        model = cls(**known_settings(config, [], "Popularity"))
        model.item_counts = check_weights("item_counts", arrays["item_counts"])
        return model


class EASE(Recommender):
    """Predict each item of a user from the user's other items, by ridge regression.

    With X the (num_users, num_items) matrix of 0 and 1, find the weights B that minimise
    ``|X - X B|² + l2 |B|²`` with a zero diagonal (an item must not predict itself)::

        P = (X' X + l2 I)^-1        B[i, j] = -P[i, j] / P[j, j]  for i != j,  0  for i = j

    and score by ``X B``. One matrix inverse, in place: time grows with num_items³, and memory with
    num_items²: 4 bytes a pair of items at the peak of ``fit`` and in the model (4,000 items:
    seconds, .06 GB; 20,000 items: minutes, 1.6 GB). Where l2 is so small beside the data that the
    inverse in float32 would lose digits, it is made in float64, and the peak is 12 bytes a pair.

    Args:
        l2: weight of the penalty, above 0. One number serves widely: on held-out training data of
            five data sets with .002 to .06 of all pairs the default was within 4 % of the best of 3
            to 10,000, farthest with 744 items (4 there). Published: 200 to 1,320.

    Attributes:
        item_weights: (num_items, num_items) float32, B, after fit.

    Raises:
        TypeError: l2 is not a number.
        ValueError: l2 is not above 0.
        MemoryError: from ``fit``, before it starts: the matrix does not fit in memory.

    Source:
        Steck, *Embarrassingly Shallow Autoencoders for Sparse Data*, WWW 2019, equation 8.

    Example:
        >>> data = Interactions([0, 0, 1, 1, 2], [0, 1, 0, 1, 2])
        >>> model = EASE(l2=1.0).fit(data)
        >>> print(np.abs(model.item_weights).round(2))  # item 2 has no tie to the others
        [[0.   0.67 0.  ]
         [0.67 0.   0.  ]
         [0.   0.   0.  ]]
        >>> model.recommend(histories=[[0]], k=1).tolist()
        [[1]]
    """

    item_weights: Floats
    _matrix: csr_matrix

    def __init__(self, l2: float = 300.0) -> None:
        self.l2 = check_number("l2", l2, 0.0, include_low=False)

    def _fit(self, interactions: Interactions) -> None:
        from scipy.linalg import lapack

        matrix = interactions.to_csr("binary")
        by_item, size = matrix.T.tocsr(), matrix.shape[1]
        # The condition of X'X + l2 I is at most this: the largest row sum bounds the eigenvalues.
        condition = 1 + float((by_item @ matrix.sum(axis=1)).max()) / self.l2
        kind = np.float32 if condition < _MOST_FOR_FLOAT32 else np.float64
        each = 4 if kind is np.float32 else 12
        check_memory(f"EASE of {size:,} items", each * size**2 + 1024 * size, _INSTEAD)
        gramian = np.zeros((size, size), kind)
        for start in range(0, size, 256):  # in parts, so that none is held twice
            gramian[start : start + 256] = (by_item[start : start + 256] @ matrix).toarray()
        gramian.flat[:: size + 1] += self.l2
        # Symmetric and positive definite: Cholesky takes half the time of a general inverse.
        potrf, potri = lapack.get_lapack_funcs(("potrf", "potri"), (gramian,))
        factor, failed = potrf(gramian.T, lower=False, overwrite_a=True)
        inverse, failed_inverse = potri(factor, lower=False, overwrite_c=True)
        if failed or failed_inverse:
            raise ValueError(f"l2 is {self.l2}: expected a larger one, X'X + l2 I is singular")
        weights = inverse.T  # in the order of rows; its lower half is computed
        for item in range(1, size):
            weights[:item, item] = weights[item, :item]
        weights /= -np.diag(weights).copy()
        np.fill_diagonal(weights, 0.0)
        self.item_weights, self._matrix = weights.astype(np.float32, order="C", copy=False), matrix

    def _expected_shapes(self) -> dict[str, tuple[int, ...]]:
        num_users, num_items = self._counts()
        return {"item_weights": (num_items, num_items), "_matrix": (num_users, num_items)}

    def _score_users(self, user_ids: Ids) -> Floats:
        return self._score_histories(self._matrix[user_ids])

    def _score_histories(self, matrix: csr_matrix) -> Floats:
        return matrix @ self.item_weights

    def _state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        arrays = {"item_weights": self.item_weights}
        arrays |= {"starts": self._matrix.indptr, "item_ids": self._matrix.indices}
        return {"l2": self.l2}, arrays

    @classmethod
    def _from_state(cls, config: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        model = cls(**known_settings(config, ["l2"], "EASE"))
        model.item_weights = check_weights("item_weights", arrays["item_weights"])
        item_ids, starts = arrays["item_ids"], arrays["starts"]
        ones, shape = np.ones(len(item_ids), np.float32), (len(starts) - 1, len(model.item_weights))
        model._matrix = csr_matrix((ones, item_ids, starts), shape)
        model._matrix.check_format(full_check=True)
        return model
