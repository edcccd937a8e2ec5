"""What models with one vector per user and one per item share."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from recsys_lib.models.base import Recommender


class FactorModel(Recommender):
    """A model whose score is the inner product of a user's and an item's vector.

    Attributes:
        user_vectors: (num_users, d) float32, after fit.
        item_vectors: (num_items, d) float32, after fit.

    Example:
        >>> from recsys_lib.models import IALS
        >>> issubclass(IALS, FactorModel)
        True
    """

    user_vectors: NDArray[np.float32]
    item_vectors: NDArray[np.float32]
    embedding_dim: int

    def _expected_shapes(self) -> dict[str, tuple[int, ...]]:
        num_users, num_items = self._counts()
        return {
            "user_vectors": (num_users, self.embedding_dim),
            "item_vectors": (num_items, self.embedding_dim),
        }

    def _score_users(self, user_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.user_vectors[user_ids] @ self.item_vectors.T

    def _score_pairs(
        self, user_ids: NDArray[np.int64], item_ids: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        return paired_products(self.user_vectors, self.item_vectors, user_ids, item_ids)


def paired_products(
    user_vectors: NDArray[np.float32],
    item_vectors: NDArray[np.float32],
    user_ids: NDArray[np.int64],
    item_ids: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Give ``<user_vectors[user_ids[n]], item_vectors[item_ids[n]]>`` for each n, (n,).

    In pieces of 65,536 pairs, so that the gathered vectors stay small.

    Example:
        >>> vectors = np.float32([[1, 2], [3, 4]])
        >>> paired_products(vectors, vectors, np.array([0, 1]), np.array([1, 1])).tolist()
        [11.0, 25.0]
    """
    scores = np.empty(len(user_ids), np.float32)
    for start in range(0, len(user_ids), 65_536):
        part = slice(start, start + 65_536)
        scores[part] = np.einsum(
            "nd,nd->n", user_vectors[user_ids[part]], item_vectors[item_ids[part]]
        )
    return scores


def epochs_with_progress(epochs: int, label: str, progress: bool) -> Iterable[int]:
    """Count epochs, with a progress bar on stderr or in the notebook if asked for.

    Example:
        >>> list(epochs_with_progress(2, "IALS", progress=False))
        [0, 1]
    """
    if not progress:
        return range(epochs)
    from tqdm.auto import tqdm

    return tqdm(range(epochs), desc=label, unit="epoch")
