"""Matrix factorisation by stochastic gradient descent, one pair at a time, compiled."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, ClassVar

import numpy as np

from recsys_lib.checks import Floats, check_choice, check_number
from recsys_lib.data import Interactions
from recsys_lib.models.factors import Factors, epochs_with_progress

LOSSES = ("squared", "logistic")
_LANES = 16  # numbers in a vector register, at most


class MF(Factors):
    """Matrix factorisation: mean, biases and an inner product, fitted by gradient descent.

    With the ``score = mean + b_u + b_i + <a_u, h_i>`` of a pair and its target r, each step moves
    the user's and the item's numbers by ``learning_rate`` against the gradient of::

        squared:    (r - score)² / 2 + l2 (b_u² + b_i² + |a_u|² + |h_i|²) / 2,      r a rating
        logistic:   cross entropy of r and sigmoid(score) + the same penalty,       r = 1 or 0

    For "logistic", all pairs that met have r = 1, and with each of them come ``negatives`` items
    drawn uniformly, with r = 0, whose gradients are taken at the same numbers; the mean is 0. The
    pairs are shuffled once, and each epoch takes them in that order; a pair that is there twice
    counts twice. A user or item without interactions
    keeps its start vector for "logistic" and has zeros for "squared", where the score falls back to
    what is known of the other side.

    Args:
        embedding_dim: length of the vectors, d.
        epochs: passes over all pairs.
        learning_rate: above 0. Too large, and the vectors diverge: an error.
        l2: weight of the penalty, not below 0.
        loss: "squared" for ratings, "logistic" for ranking.
        negatives: how many items are drawn with each pair ("logistic"), at least 1.
        init_std: vectors start normal, with this standard deviation.
        seed: of start, order and negatives.
        num_threads: up to 255 threads that work at the same time, each on users and items of its
            own, which change in turns; for one number of threads each run gives the same result.
        progress: show a progress bar while fitting.

    Attributes:
        global_mean: mean rating, after fit; 0 for "logistic".
        user_biases, item_biases: (num_users,) and (num_items,) float32.
        user_vectors, item_vectors: (num_users, d) and (num_items, d) float32.

    Raises:
        TypeError: an argument is not a number.
        ValueError: an argument is out of range; from ``fit``: no ratings for "squared", or the
            vectors diverged.

    Source:
        Koren, Bell & Volinsky, *Matrix Factorization Techniques for Recommender Systems*, IEEE
        Computer 2009, equation 5; Rendle et al., *Neural Collaborative Filtering vs. Matrix
        Factorization Revisited*, RecSys 2020 (the logistic loss); Gemulla et
        al., *Large-Scale Matrix Factorization with Distributed Stochastic Gradient Descent*, KDD
        2011 (the turns).

    Example:
        >>> data = Interactions([0, 0, 0, 1, 1], [0, 1, 2, 0, 1], ratings=[5.0, 4, 1, 4, 3])
        >>> model = MF(2, epochs=500, learning_rate=0.05, l2=0.001).fit(data)
        >>> model.score([0, 0, 1], [0, 2, 1]).round(1).tolist()
        [5.0, 1.0, 3.0]
    """

    _settings: ClassVar[tuple[str, ...]] = (
        "embedding_dim", "epochs", "learning_rate", "l2", "loss", "negatives", "init_std", "seed",
        "num_threads",
    )  # fmt: skip

    def __init__(
        self,
        embedding_dim: int = 32,
        epochs: int = 20,
        learning_rate: float = 0.01,
        l2: float = 0.03,
        loss: str = "squared",
        negatives: int = 4,
        init_std: float = 0.01,
        seed: int = 0,
        *,
        num_threads: int = 1,
        progress: bool = False,
    ) -> None:
        self.embedding_dim = check_number("embedding_dim", embedding_dim, 1, integer=True)
        self.epochs = check_number("epochs", epochs, 1, integer=True)
        self.learning_rate = check_number("learning_rate", learning_rate, 0, include_low=False)
        self.l2 = check_number("l2", l2, 0)
        self.loss = check_choice("loss", loss, LOSSES)
        self.negatives = check_number("negatives", negatives, 1, integer=True)
        self.init_std = check_number("init_std", init_std, 0, include_low=False)
        self.seed = check_number("seed", seed, 0, integer=True)
        self.num_threads = check_number("num_threads", num_threads, 1, 255, integer=True)
        self.progress = bool(progress)

    def _fit(self, interactions: Interactions) -> None:
        squared = self.loss == "squared"
        if squared and interactions.ratings is None:
            raise ValueError('interactions has no ratings: expected some, or loss="logistic"')
        targets = np.ones(len(interactions), np.float32)
        if interactions.ratings is not None and squared:
            targets = interactions.ratings.astype(np.float32)
        mean = float(targets.mean(dtype=np.float64)) if squared else 0.0
        random = np.random.default_rng(self.seed)
        counts = (interactions.num_users, interactions.num_items)
        places = [random.permutation(n) for n in counts]  # rows of the tables, while fitting
        ids = interactions.user_ids, interactions.item_ids
        rows = [place.astype(np.int32)[met] for place, met in zip(places, ids, strict=True)]
        tables = [self._start(random, n) for n in counts]
        biases = [np.zeros(n, np.float32) for n in counts]
        if squared:
            for table, met in zip(tables, rows, strict=True):
                table[np.bincount(met, minlength=len(table)) == 0] = 0
        threads = self.num_threads
        parts = [
            (place * threads // n).astype(np.uint16)[met]
            for place, n, met in zip(places, counts, ids, strict=True)
        ]
        cell = parts[0] * np.uint16(threads) + parts[1]
        ends = np.cumsum(np.bincount(cell, minlength=threads**2))[:-1]
        # A random number below the cell's makes a shuffle of the sort, which 16 bits make quick.
        chances = (2**16 - 1) // threads**2
        key = random.integers(0, chances, len(cell), dtype=np.uint16)
        order = np.argsort(cell * np.uint16(chances) + key, kind="stable")
        data = [np.split(a[order], ends) for a in (*rows, targets - np.float32(mean))]
        cuts = -(-np.arange(threads + 1) * interactions.num_items // threads)
        step = np.float32(self.learning_rate), np.float32(self.learning_rate * self.l2)

        def work(user_part: int, item_part: int, seed: np.uint64) -> None:
            one = [column[user_part * threads + item_part] for column in data]
            if squared:
                _compiled(_descend)(*one, *tables, *biases, *step)
                return
            low, high = cuts[item_part : item_part + 2]
            drawn = self.negatives, low, high - low, seed
            _compiled(_descend_ranking)(*one[:2], *tables, *biases, *step, *drawn)

        everyone = np.arange(threads)
        with ThreadPoolExecutor(threads) as pool:
            for _ in epochs_with_progress(self.epochs, "MF", self.progress):
                for turn in range(threads):  # no two threads ever share a user or an item
                    seeds = random.integers(1, 2**63, threads, dtype=np.uint64)
                    list(pool.map(work, everyone, (everyone + turn) % threads, seeds))
                if not all(np.isfinite(table).all() for table in tables):
                    rate = self.learning_rate
                    raise ValueError(f"learning_rate is {rate}: the vectors diverged, try a lower")
        by_user, by_item = (
            table[place, : self.embedding_dim] for table, place in zip(tables, places, strict=True)
        )
        self.global_mean, self.user_vectors, self.item_vectors = mean, by_user, by_item
        self.user_biases, self.item_biases = (
            bias[place] for bias, place in zip(biases, places, strict=True)
        )

    def _start(self, random: np.random.Generator, rows: int) -> Floats:
        """Return vectors, with zeros up to a whole number of vector registers, (rows, width)."""
        table = np.zeros((rows, -(-self.embedding_dim // _LANES) * _LANES), np.float32)
        shape = rows, self.embedding_dim
        table[:, : self.embedding_dim] = random.normal(0.0, self.init_std, shape)
        return table


@cache
def _compiled(loop: Callable[..., None]) -> Callable[..., None]:
    """Compile a loop over pairs, which moves vectors and biases in place."""
    import numba

    options = {"nogil": True, "fastmath": {"reassoc", "contract", "nsz", "arcp"}}
    try:
        return numba.njit(**options, cache=True)(loop)
    except RuntimeError:  # no folder to keep the compiled code in
        return numba.njit(**options)(loop)


def _descend(
    user_ids: Any, item_ids: Any, targets: Any, users: Any, items: Any, user_biases: Any,
    item_biases: Any, rate: Any, decay: Any,
) -> None:  # fmt: skip
    for pair in range(len(user_ids)):
        u, i = user_ids[pair], item_ids[pair]
        user, item = users[u], items[i]
        score = user_biases[u] + item_biases[i]
        for j in range(len(user)):
            score += user[j] * item[j]
        push = rate * (targets[pair] - score)
        user_biases[u] += push - decay * user_biases[u]
        item_biases[i] += push - decay * item_biases[i]
        for j in range(len(user)):
            old = user[j]
            user[j] += push * item[j] - decay * old
            item[j] += push * old - decay * item[j]


def _descend_ranking(
    user_ids: Any, item_ids: Any, users: Any, items: Any, user_biases: Any, item_biases: Any,
    rate: Any, decay: Any, negatives: int, first: int, count: int, seed: Any,
) -> None:  # fmt: skip
    one, size, state = np.float32(1), users.shape[1], seed
    low, width, many = np.uint64(first), np.uint64(count), negatives + 1
    chosen, push = np.empty(many, np.uint64), np.empty(many, np.float32)
    moved, kept = np.empty(size, np.float32), one - decay * np.float32(many)
    for pair in range(len(user_ids)):
        u = user_ids[pair]
        user = users[u]
        for draw in range(many):
            chosen[draw] = item_ids[pair]
            if draw:  # xorshift64, of which the upper 32 bits choose the item
                state ^= state << np.uint64(13)
                state ^= state >> np.uint64(7)
                state ^= state << np.uint64(17)
                chosen[draw] = low + (((state >> np.uint64(32)) * width) >> np.uint64(32))
        for draw in range(many):  # all scores first: none has to wait for another
            item = items[chosen[draw]]
            score = user_biases[u] + item_biases[chosen[draw]]
            for j in range(size):
                score += user[j] * item[j]
            push[draw] = -rate / (one + np.exp(-score))
        push[0] += rate
        for j in range(size):
            moved[j] = kept * user[j]
        user_biases[u] = kept * user_biases[u] + push.sum()
        for draw in range(many):
            item, force = items[chosen[draw]], push[draw]
            item_biases[chosen[draw]] += force - decay * item_biases[chosen[draw]]
            for j in range(size):
                moved[j] += force * item[j]
                item[j] += force * user[j] - decay * item[j]
        for j in range(size):
            user[j] = moved[j]
