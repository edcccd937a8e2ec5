"""ALS for ratings: biases and factors by least squares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_number
from recsys_lib.data import Interactions
from recsys_lib.models.checks import check_array
from recsys_lib.models.factors import Factors, epochs_with_progress
from recsys_lib.models.least_squares import one_blas_thread, solve_rows

if TYPE_CHECKING:
    import scipy.sparse


class ALS(Factors):
    """Predict ratings by alternating least squares: mean, biases and an inner product.

    With R the rated pairs, ``prediction = mean + b_u + c_i + <p_u, q_i>`` minimises::

        sum over (u, i) in R of (r_ui - prediction)² + l2 (b_u² + c_i² + |p_u|² + |q_i|²)

    by solving for all users' ``(b_u, p_u)`` with the items held fixed, then the other way round.
    The penalty is counted once per rating, so who rates more is not held back less. A user or item
    without ratings has a zero bias and vector: the score falls back to what is known of the other
    side, and to the mean of all ratings at last. Of a pair rated twice the last rating counts.

    Args:
        embedding_dim: length of the vectors, d.
        epochs: rounds of users then items.
        l2: weight of the penalty, not below 0.
        init_std: item vectors start normal, with standard deviation ``init_std / sqrt(d)``.
        seed: of the start.
        progress: show a progress bar while fitting.

    Attributes:
        global_mean: mean rating, after fit.
        user_biases: (num_users,) float32.
        item_biases: (num_items,) float32.
        user_vectors: (num_users, d) float32.
        item_vectors: (num_items, d) float32.

    Raises:
        TypeError: an argument is not a number.
        ValueError: an argument is out of range; from ``fit``: the interactions have no ratings.

    Source:
        Zhou et al., *Large-scale Parallel Collaborative Filtering for the Netflix Prize*, AAIM
        2008 (the weighted penalty); Koren, Bell & Volinsky, *Matrix Factorization Techniques for
        Recommender Systems*, IEEE Computer 2009, equation 5 (the biases).

    Example:
        >>> ratings = [5.0, 4.0, 1.0, 4.0, 3.0]
        >>> data = Interactions([0, 0, 0, 1, 1], [0, 1, 2, 0, 1], ratings=ratings)
        >>> model = ALS(embedding_dim=2, l2=0.01).fit(data)
        >>> model.score([0, 0, 1], [0, 2, 1]).round(1).tolist()
        [5.0, 1.0, 3.0]
    """

    def __init__(
        self,
        embedding_dim: int = 32,
        epochs: int = 15,
        l2: float = 0.12,
        init_std: float = 0.1,
        seed: int = 0,
        *,
        progress: bool = False,
    ) -> None:
        self.embedding_dim = check_number("embedding_dim", embedding_dim, 1, integer=True)
        self.epochs = check_number("epochs", epochs, 1, integer=True)
        self.l2 = check_number("l2", l2, 0)
        self.init_std = check_number("init_std", init_std, 0, include_low=False)
        self.seed = check_number("seed", seed, 0, integer=True)
        self.progress = bool(progress)

    def _fit(self, interactions: Interactions) -> None:
        if interactions.ratings is None:
            raise ValueError(
                "interactions has no ratings: expected some for ALS (IALS learns from plain events)"
            )
        by_user = interactions.to_csr("ratings")
        mean = float(by_user.data.mean(dtype=np.float64))
        by_user.data = by_user.data - np.float32(mean)
        by_item = by_user.T.tocsr()
        deviation = self.init_std / np.sqrt(self.embedding_dim)
        vectors = np.random.default_rng(self.seed).normal(
            0.0, deviation, (interactions.num_items, self.embedding_dim)
        )
        counts = np.bincount(by_user.indices, minlength=interactions.num_items)
        biases = np.asarray(by_item.sum(axis=1)).ravel() / np.maximum(counts, 1)
        items = np.column_stack([biases, vectors]).astype(np.float32)  # (num_items, 1 + d)
        with one_blas_thread():
            for _ in epochs_with_progress(self.epochs, "ALS", self.progress):
                users = self._solve(by_user, items)
                items = self._solve(by_item, users)
        self.global_mean = mean
        self.user_biases, self.user_vectors = users[:, 0].copy(), users[:, 1:].copy()
        self.item_biases, self.item_vectors = items[:, 0].copy(), items[:, 1:].copy()

    def _solve(
        self, matrix: scipy.sparse.csr_matrix, other: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Solve for one side's (bias, vector), (rows, 1 + d), from the other side's.

        The other side's bias moves to the targets, and a constant 1 takes its place as a feature.
        """
        targets = matrix.copy()
        targets.data = matrix.data - other[matrix.indices, 0]
        features = other.copy()
        features[:, 0] = 1.0
        ridge = (self.l2 * np.diff(matrix.indptr)).astype(np.float32)
        return solve_rows(targets, features, ridge)

    def _state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        names = ("embedding_dim", "epochs", "l2", "init_std", "seed", "global_mean")
        config = {name: getattr(self, name) for name in names}
        return config, {name: getattr(self, name) for name in self._expected_shapes()}

    @classmethod
    def _from_state(cls, config: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        global_mean = float(config.pop("global_mean"))
        model = cls(**config)
        model.global_mean = global_mean
        for name, ndim in (("user", 2), ("item", 2)):
            setattr(model, f"{name}_vectors", check_array(arrays, f"{name}_vectors", ndim=ndim))
            setattr(model, f"{name}_biases", check_array(arrays, f"{name}_biases", ndim=1))
        return model
