"""The baseline that knows no user: what most people met."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from recsys_lib.data import Interactions
from recsys_lib.models.base import Recommender
from recsys_lib.models.checks import check_array

if TYPE_CHECKING:
    import scipy.sparse


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
    item_counts: NDArray[np.float32]

    def _fit(self, interactions: Interactions) -> None:
        matrix = interactions.to_csr("binary")
        self.item_counts = np.bincount(matrix.indices, minlength=matrix.shape[1]).astype(np.float32)

    def _expected_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"item_counts": (self._counts()[1],)}

    def _score_users(self, user_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.tile(self.item_counts, (len(user_ids), 1))

    def _score_pairs(
        self, user_ids: NDArray[np.int64], item_ids: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        return self.item_counts[item_ids]

    def _score_histories(self, matrix: scipy.sparse.csr_matrix) -> NDArray[np.float32]:
        return np.tile(self.item_counts, (matrix.shape[0], 1))

    def _state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        return {}, {"item_counts": self.item_counts}

    @classmethod
    def _from_state(cls, config: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        model = cls(**config)
        model.item_counts = check_array(arrays, "item_counts", ndim=1)
        return model
