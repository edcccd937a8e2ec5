"""EASE: a linear model of items on items, in closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_number
from recsys_lib.data import Interactions
from recsys_lib.models.base import Recommender
from recsys_lib.models.checks import check_array

if TYPE_CHECKING:
    import scipy.sparse


class EASE(Recommender):
    """Predict each item of a user from the user's other items, by ridge regression.

    With X the (num_users, num_items) matrix of 0 and 1, find the weights B that minimise
    ``|X - X B|² + l2 |B|²`` with a zero diagonal (an item must not predict itself)::

        P = (X' X + l2 I)^-1        B[i, j] = -P[i, j] / P[j, j]  for i != j,  0  for i = j

    and score by ``X B``. One matrix inverse: time grows with num_items³ and memory with
    num_items² (4,000 items: seconds and 130 MB; 20,000 items: minutes and 3 GB).

    Args:
        l2: weight of the penalty, above 0; larger for denser data.

    Attributes:
        item_weights: (num_items, num_items) float32, B, after fit.

    Raises:
        TypeError: l2 is not a number.
        ValueError: l2 is not above 0.

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

    item_weights: NDArray[np.float32]
    _matrix: scipy.sparse.csr_matrix

    def __init__(self, l2: float = 500.0) -> None:
        self.l2 = check_number("l2", l2, 0.0, include_low=False)

    def _fit(self, interactions: Interactions) -> None:
        from scipy.linalg import lapack

        matrix = interactions.to_csr("binary")
        gramian = (matrix.T @ matrix).toarray().astype(np.float64)  # (num_items, num_items)
        gramian[np.diag_indices_from(gramian)] += self.l2
        # Symmetric and positive definite: Cholesky takes half the time of a general inverse.
        factor, failed = lapack.dpotrf(gramian.T, lower=False, overwrite_a=True)
        inverse, failed_inverse = lapack.dpotri(factor, lower=False, overwrite_c=True)
        if failed or failed_inverse:
            raise ValueError(f"l2 is {self.l2}: expected a larger one, X'X + l2 I is singular")
        inverse = np.triu(inverse) + np.triu(inverse, 1).T
        weights = inverse / -np.diag(inverse)
        np.fill_diagonal(weights, 0.0)
        self.item_weights = np.ascontiguousarray(weights, np.float32)
        self._matrix = matrix

    def _expected_shapes(self) -> dict[str, tuple[int, ...]]:
        num_users, num_items = self._counts()
        return {"item_weights": (num_items, num_items), "_matrix": (num_users, num_items)}

    def _score_users(self, user_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        return self._score_histories(self._matrix[user_ids])

    def _score_histories(self, matrix: scipy.sparse.csr_matrix) -> NDArray[np.float32]:
        return matrix @ self.item_weights

    def _state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        arrays = {"item_weights": self.item_weights}
        arrays |= {"starts": self._matrix.indptr, "item_ids": self._matrix.indices}
        return {"l2": self.l2}, arrays

    @classmethod
    def _from_state(cls, config: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        import scipy.sparse

        model = cls(**config)
        model.item_weights = check_array(arrays, "item_weights", ndim=2)
        starts = check_array(arrays, "starts", ndim=1, kind="i")
        item_ids = check_array(arrays, "item_ids", ndim=1, kind="i")
        ones = np.ones(len(item_ids), np.float32)
        shape = (len(starts) - 1, len(model.item_weights))
        model._matrix = scipy.sparse.csr_matrix((ones, item_ids, starts), shape)
        model._matrix.check_format(full_check=True)
        return model
