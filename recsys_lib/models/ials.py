"""Implicit ALS: factorise who met what, all unseen pairs included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_number
from recsys_lib.data import Interactions
from recsys_lib.models.checks import check_array
from recsys_lib.models.factors import Factors, FoldIn, epochs_with_progress
from recsys_lib.models.least_squares import one_blas_thread, solve_rows

if TYPE_CHECKING:
    import scipy.sparse


class IALS(Factors):
    """Implicit alternating least squares: scores of 1 for pairs that met, 0 for all others.

    With S the pairs that met, vectors ``w_u`` and ``h_i`` minimise::

        sum over (u, i) in S of (<w_u, h_i> - 1)²
        + unobserved_weight * sum over all (u, i) of <w_u, h_i>²
        + l2 * sum over u of (|S_u| + unobserved_weight * num_items) |w_u|²
        + l2 * sum over i of (|S_i| + unobserved_weight * num_users) |h_i|²

    by solving for all users with the items held fixed, then the other way round. The defaults are
    the settings published for MovieLens 1M, but for the smaller ``embedding_dim`` (192 there).

    Args:
        embedding_dim: length of the vectors, d.
        epochs: rounds of users then items.
        l2: weight of the penalty, scaled by frequency as above; not below 0.
        unobserved_weight: weight of the pairs that did not meet; not below 0.
        init_std: item vectors start normal, with standard deviation ``init_std / sqrt(d)``.
        seed: of the start.
        progress: show a progress bar while fitting.

    Attributes:
        user_vectors: (num_users, d) float32, after fit; zeros for a user without interactions.
        item_vectors: (num_items, d) float32, after fit; zeros for an item without interactions.

    Raises:
        TypeError: an argument is not a number.
        ValueError: an argument is out of range.

    Source:
        Hu, Koren & Volinsky, *Collaborative Filtering for Implicit Feedback Datasets*, ICDM 2008;
        weights and penalty as in Rendle et al., *Revisiting the Performance of iALS on Item
        Recommendation Benchmarks*, 2021, equations 1 to 4 with exponent nu = 1.

    Example:
        >>> data = Interactions([0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 2, 3])
        >>> model = IALS(embedding_dim=4).fit(data)
        >>> model.recommend([0], k=2).tolist()
        [[0, 1]]
        >>> model.recommend(histories=[[3]], k=1).tolist()
        [[2]]
    """

    def __init__(
        self,
        embedding_dim: int = 64,
        epochs: int = 12,
        l2: float = 0.007,
        unobserved_weight: float = 0.3,
        init_std: float = 0.1,
        seed: int = 0,
        *,
        progress: bool = False,
    ) -> None:
        self.embedding_dim = check_number("embedding_dim", embedding_dim, 1, integer=True)
        self.epochs = check_number("epochs", epochs, 1, integer=True)
        self.l2 = check_number("l2", l2, 0)
        self.unobserved_weight = check_number("unobserved_weight", unobserved_weight, 0)
        self.init_std = check_number("init_std", init_std, 0, include_low=False)
        self.seed = check_number("seed", seed, 0, integer=True)
        self.progress = bool(progress)
        self.how_to_fold_in = FoldIn(self.l2, self.unobserved_weight)

    def _fit(self, interactions: Interactions) -> None:
        by_user = interactions.to_csr("binary")
        by_item = by_user.T.tocsr()
        # Users are drawn first, as in the published code, though the first step overwrites them.
        start = np.random.default_rng(self.seed).normal(
            0.0,
            self.init_std / np.sqrt(self.embedding_dim),
            (interactions.num_users + interactions.num_items, self.embedding_dim),
        )
        item_vectors = start[interactions.num_users :].astype(np.float32)
        with one_blas_thread():
            for _ in epochs_with_progress(self.epochs, "IALS", self.progress):
                user_vectors = self._solve(by_user, item_vectors)
                item_vectors = self._solve(by_item, user_vectors)
        self.user_vectors, self.item_vectors = user_vectors, item_vectors

    def _solve(
        self, matrix: scipy.sparse.csr_matrix, vectors: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Solve for one side, (rows, d), from the vectors of the other, (columns, d)."""
        frequency = np.diff(matrix.indptr) + self.unobserved_weight * matrix.shape[1]
        gramian = np.float32(self.unobserved_weight) * (vectors.T @ vectors)
        ridge = (self.l2 * frequency).astype(np.float32)
        return solve_rows(matrix, vectors, ridge, common=gramian)

    def _state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        names = ("embedding_dim", "epochs", "l2", "unobserved_weight", "init_std", "seed")
        config = {name: getattr(self, name) for name in names}
        return config, {"user_vectors": self.user_vectors, "item_vectors": self.item_vectors}

    @classmethod
    def _from_state(cls, config: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        model = cls(**config)
        model.user_vectors = check_array(arrays, "user_vectors", ndim=2)
        model.item_vectors = check_array(arrays, "item_vectors", ndim=2)
        return model
