"""Alternating least squares: IALS for plain events, ALS for ratings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from recsys_lib.checks import Floats, check_choice, check_number
from recsys_lib.data import Interactions
from recsys_lib.models.factors import Factors, FoldIn, epochs_with_progress
from recsys_lib.models.least_squares import improve_rows, solve_rows
from recsys_lib.models.sanity import FEWEST_USERS, warn_if_below_popularity

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

SOLVERS = ("conjugate_gradient", "cholesky")
_TIMES_DENSITY, _OF_NOISE, _FEW, _SPARSE = 12.0, 0.4, 16.0, 0.0025
_SETTINGS = ("embedding_dim", "epochs", "l2", "init_std", "seed", "solver")


class _AlternatingLeastSquares(Factors):
    """Factors that are fitted by solving for one side at a time."""

    _settings: ClassVar[tuple[str, ...]] = _SETTINGS

    def __init__(
        self,
        embedding_dim: int = 32,
        epochs: int = 15,
        l2: float | Literal["auto"] = "auto",
        init_std: float = 0.1,
        seed: int = 0,
        *,
        solver: str = "conjugate_gradient",
        progress: bool = False,
    ) -> None:
        self.embedding_dim = check_number("embedding_dim", embedding_dim, 1, integer=True)
        self.epochs = check_number("epochs", epochs, 1, integer=True)
        self.l2 = l2 if l2 == "auto" else check_number("l2", l2, 0)
        self.init_std = check_number("init_std", init_std, 0, include_low=False)
        self.seed = check_number("seed", seed, 0, integer=True)
        self.solver = check_choice("solver", solver, SOLVERS)
        self.progress = bool(progress)

    def _solve_side(
        self, matrix: csr_matrix, features: Floats, start: Floats, penalty: Any, common: Any
    ) -> Floats:
        ridge = np.asarray(penalty, np.float32)
        if self.solver == "cholesky":
            return solve_rows(matrix, features, ridge, common)
        return improve_rows(matrix, features, ridge, common, start)

    def _draw(self, rows: int) -> Floats:
        random = np.random.default_rng(self.seed)
        deviation = self.init_std / np.sqrt(self.embedding_dim)
        return random.normal(0.0, deviation, (rows, self.embedding_dim)).astype(np.float32)


class IALS(_AlternatingLeastSquares):
    """Implicit alternating least squares: scores of 1 for pairs that met, 0 for all others.

    With S the pairs that met, vectors ``a_u`` and ``h_i`` minimise::

        sum over (u, i) in S of (<a_u, h_i> - 1)²
        + unobserved_weight * sum over all (u, i) of <a_u, h_i>²
        + l2 * sum over u of (|S_u| + unobserved_weight * num_items) |a_u|²
        + l2 * sum over i of (|S_i| + unobserved_weight * num_users) |h_i|²

    by solving for all users with the items held fixed, then the other way round.

    What "auto" means, with n the pairs that met, a mean user's ``n_u`` of them and a mean item's
    ``n_i`` (users and items that have some)::

        density = n / (users * items)
        unobserved_weight = min(1, 12 density)
        l2 = 0.4 (√n_u + √n_i) √(max(1, 16 / n_u) min(1, 400 density))
             / √((n_u + unobserved_weight * num_items) (n_i + unobserved_weight * num_users))

    Reason of the first: all pairs that did not meet together weigh 12 times what those that met
    do. Published weights fall with density likewise: .3, .1 and .02 at 4.4, .36 and .14 %. Of the
    second: the two penalties shrink each singular value of the scores by the root of their product
    (Srebro et al. 2004), and √n_u + √n_i is where the singular values of a random matrix as sparse
    as this one end, so that noise is shrunk away and the rest is kept. Its last factor: that
    estimate is too low where users have few items, and too high in a large, sparse catalogue, whose
    tastes are local. For MovieLens 1M with weight .3 it gives .007, the published value; for the
    Million Song Dataset with weight .02 .003, published .002.

    Where it errs: the numbers were chosen on held-out training data of seven data sets (films, a
    shop, news, music, papers; density .09 to 6 %, 8 to 160 items a user), all of them in view, and
    400 on one of these (papers) and a published value; 12 and .4 are within a tenth of the best
    that was tried on each. On MovieLens 1M cut down to 8 films a user it is at .75 of the best, a
    seventh above popularity: more l2 is better there. :func:`recsys_lib.training.tune` finds what
    the rule misses.

    Args:
        embedding_dim: length of the vectors, d.
        epochs: rounds of users then items.
        l2: weight of the penalty, scaled by frequency as above; not below 0, or "auto".
        unobserved_weight: weight of the pairs that did not meet; not below 0, or "auto".
        init_std: item vectors start normal, with standard deviation ``init_std / sqrt(d)``.
        seed: of the start.
        solver: "conjugate_gradient", a few steps from where the last round ended, or "cholesky",
            exact and some ten times slower.
        progress: show a progress bar while fitting.
        check: compare with popularity after fit, on one item each of at most 2,000 users that is
            left out of their history, and of the item's vector; warn where the model ranks lower.
            Takes a fraction of a second, and nothing is kept from the fit. Not done for fewer than
            200 users.

    Attributes:
        user_vectors: (num_users, d) float32, after fit; zeros for a user without interactions.
        item_vectors: (num_items, d) float32, after fit; zeros for an item without interactions.
        how_to_fold_in: l2 and unobserved_weight as numbers, after fit.

    Raises:
        TypeError: an argument is not a number.
        ValueError: an argument is out of range.

    Source:
        Hu, Koren & Volinsky, *Collaborative Filtering for Implicit Feedback Datasets*, ICDM 2008;
        weights and penalty as in Rendle et al., *Revisiting the Performance of iALS on Item
        Recommendation Benchmarks*, 2021, equations 1 to 4 with exponent nu = 1 (for MovieLens 1M:
        embedding_dim = 192, l2 = 0.007, unobserved_weight = 0.3). Srebro, Rennie & Jaakkola,
        *Maximum-Margin Matrix Factorization*, NIPS 2004 (penalties on factors as a trace norm).

    Example:
        >>> data = Interactions([0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 2, 3])
        >>> model = IALS(embedding_dim=4).fit(data)
        >>> model.recommend([0], k=2).tolist()
        [[0, 1]]
        >>> model.recommend(histories=[[3]], k=1).tolist()
        [[2]]
    """

    _settings = (*_SETTINGS, "unobserved_weight", "check")

    def __init__(
        self,
        embedding_dim: int = 128,
        epochs: int = 12,
        l2: float | Literal["auto"] = "auto",
        unobserved_weight: float | Literal["auto"] = "auto",
        init_std: float = 0.1,
        seed: int = 0,
        *,
        solver: str = "conjugate_gradient",
        progress: bool = False,
        check: bool = True,
    ) -> None:
        super().__init__(
            embedding_dim, epochs, l2, init_std, seed, solver=solver, progress=progress
        )
        self.unobserved_weight: float | str = unobserved_weight
        self.check = bool(check)
        if unobserved_weight != "auto":
            self.unobserved_weight = check_number("unobserved_weight", unobserved_weight, 0)
            if l2 != "auto":
                self.how_to_fold_in = FoldIn(float(l2), float(unobserved_weight))

    def _fit(self, interactions: Interactions) -> None:
        by_user = interactions.to_csr("binary")
        by_item = by_user.T.tocsr()
        self.how_to_fold_in = self._weights(by_user, by_item)
        # Users are drawn first, as in the published code.
        start = self._draw(interactions.num_users + interactions.num_items)
        users, items = start[: interactions.num_users], start[interactions.num_users :]
        for _ in epochs_with_progress(self.epochs, "IALS", self.progress):
            users = self._solve(by_user, items, users)
            items = self._solve(by_item, users, items)
        self.user_vectors, self.item_vectors = users, items
        if self.check and interactions.num_users >= FEWEST_USERS:
            warn_if_below_popularity(by_user, by_item, users, items, self._solve, self.seed)

    def _weights(self, by_user: csr_matrix, by_item: csr_matrix) -> FoldIn:
        """Return l2 and unobserved_weight as numbers; see the class."""
        met, (num_users, num_items) = by_user.nnz, by_user.shape
        active = [max(1, int((np.diff(x.indptr) > 0).sum())) for x in (by_user, by_item)]
        weight, density = self.unobserved_weight, met / (active[0] * active[1])
        if weight == "auto":
            weight = min(1.0, _TIMES_DENSITY * density)
        l2, (of_user, of_item) = self.l2, (met / active[0], met / active[1])
        if l2 == "auto":
            sizes = (of_user + weight * num_items) * (of_item + weight * num_users)
            more = max(1.0, _FEW / max(of_user, 1.0)) * min(1.0, density / _SPARSE)
            noise = _OF_NOISE * (of_user**0.5 + of_item**0.5)
            l2 = noise * (more / max(sizes, 1.0)) ** 0.5
        return FoldIn(float(l2), float(weight))

    def _solve(self, matrix: csr_matrix, other: Floats, start: Floats) -> Floats:
        """Solve for one side, (rows, d), from the vectors of the other, (columns, d)."""
        assert self.how_to_fold_in is not None
        l2, weight = self.how_to_fold_in.l2, self.how_to_fold_in.unobserved_weight
        gramian = np.float32(weight) * (other.T @ other)
        frequency = np.diff(matrix.indptr) + weight * matrix.shape[1]
        return self._solve_side(matrix, other, start, l2 * frequency, gramian)


class ALS(_AlternatingLeastSquares):
    """Predict ratings by alternating least squares: mean, biases and an inner product.

    With S the rated pairs, ``prediction = mean + b_u + b_i + <a_u, h_i>`` minimises::

        sum over (u, i) in S of (r_ui - prediction)²
        + l2 * sum over u of g_u^(1 - nu) n_u^nu (b_u² + |a_u|²) + the same over items

    by solving for all users' ``(b_u, a_u)`` with the items held fixed, then the other way round.
    Here user u has n_u ratings, and g_u is the geometric mean of these numbers over users. With
    ``nu = 1`` the penalty is counted once per rating, so who rates more is not held back less; with
    0 it is the same for everybody. "auto" is::

        l2 = standard deviation of the ratings * (1 / √m_u + 1 / √m_i)

    where m_u is the mean number of ratings of the user of a rating, and m_i of its item. Reason: a
    matrix of noise with so many ratings a row and column has singular values up to about
    ``deviation * (√m_u + √m_i)``, and two penalties shrink each one by the root of their product,
    here ``l2 √(m_u m_i)``. On three data sets (MovieLens 100K, 1M and latest-small, a random tenth
    for testing, all in view) it is within 12 % of the best l2 that was tried, and nu = .75 gives
    RMSEs of .892, .846 and .846, where 1 has .895, .850 and .848.

    A user or item without ratings has a zero bias and vector: the score falls back to what is known
    of the other side, and to the mean of all ratings at last. Of a pair rated twice the last rating
    counts.

    Args:
        embedding_dim: length of the vectors, d.
        epochs: rounds of users then items.
        l2: weight of the penalty, not below 0, or "auto".
        init_std: item vectors start normal, with standard deviation ``init_std / sqrt(d)``.
        seed: of the start.
        solver: "conjugate_gradient", a few steps from where the last round ended, or "cholesky",
            exact and some ten times slower.
        nu: how much more those are held back who have more ratings, from 0 to 1.
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

    _settings = (*_SETTINGS, "nu")

    def __init__(
        self,
        embedding_dim: int = 32,
        epochs: int = 10,
        l2: float | Literal["auto"] = "auto",
        init_std: float = 0.1,
        seed: int = 0,
        *,
        solver: str = "conjugate_gradient",
        nu: float = 0.75,
        progress: bool = False,
    ) -> None:
        super().__init__(
            embedding_dim, epochs, l2, init_std, seed, solver=solver, progress=progress
        )
        self.nu = check_number("nu", nu, 0, 1)

    def _fit(self, interactions: Interactions) -> None:
        if interactions.ratings is None:
            raise ValueError("interactions has no ratings: expected some (IALS needs none)")
        by_user = interactions.to_csr("ratings")
        mean = float(by_user.data.mean(dtype=np.float64))
        by_user.data = by_user.data - np.float32(mean)
        by_item = by_user.T.tocsr()
        l2 = self.l2
        if l2 == "auto":
            counts = [np.diff(matrix.indptr).astype(float) for matrix in (by_user, by_item)]
            l2 = by_user.data.std(dtype=float) * sum((n.sum() / (n @ n)) ** 0.5 for n in counts)
        biases = np.asarray(by_item.sum(axis=1)).ravel() / np.maximum(np.diff(by_item.indptr), 1)
        items = np.column_stack([biases, self._draw(len(biases))]).astype(np.float32)  # (n, 1 + d)
        users = np.zeros((interactions.num_users, items.shape[1]), np.float32)
        for _ in epochs_with_progress(self.epochs, "ALS", self.progress):
            users = self._solve(by_user, items, users, float(l2))
            items = self._solve(by_item, users, items, float(l2))
        self.global_mean = mean
        self.user_biases, self.user_vectors = users[:, 0].copy(), users[:, 1:].copy()
        self.item_biases, self.item_vectors = items[:, 0].copy(), items[:, 1:].copy()

    def _solve(self, matrix: csr_matrix, other: Floats, start: Floats, l2: float) -> Floats:
        """Solve for one side's (bias, vector), (rows, 1 + d), from the other side's.

        The other side's bias moves to the targets, and a constant 1 takes its place as a feature.
        """
        targets, features = matrix.copy(), other.copy()
        targets.data -= other[matrix.indices, 0]
        features[:, 0] = 1.0
        counts = np.diff(matrix.indptr)
        typical = np.exp(np.log(counts[counts > 0]).mean())
        penalty = l2 * counts**self.nu * typical ** (1 - self.nu)
        return self._solve_side(targets, features, start, penalty, None)
