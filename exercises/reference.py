"""What each exercise is checked against: NumPy, SciPy, or recsys_lib.

A check draws arguments (`draw`), has some special ones where mistakes hide (`special`), computes
what is right in another way than a student would (`right`), and says what of an answer is compared
(`view`; a table of codes may be right in several ways).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import scipy

from recsys_lib.compression.pruning import magnitude_mask
from recsys_lib.compression.quantization.fake_quant import symmetric_scales
from recsys_lib.data import Interactions
from recsys_lib.evaluation.metrics import ndcg_at_k
from recsys_lib.models.topk import top_k


def _as_it_is(answer: Any, *arguments: Any) -> Any:
    return answer


class Check(NamedTuple):
    """How one exercise is checked; see the text at the top."""

    draw: Callable[[np.random.Generator], tuple[Any, ...]]
    right: Callable[..., Any]
    special: Mapping[str, tuple[Any, ...]] = {}
    view: Callable[..., Any] = _as_it_is


def _last_rows(user_ids: Any, times: Any) -> Any:
    rows = np.arange(len(times))
    log = Interactions(user_ids, rows, timestamps=times, num_users=9, num_items=len(rows))
    return np.isin(rows, log.split_leave_one_out()[1].item_ids)


def _solve_row(items: Any, seen: Any, weight: float, l2: float) -> Any:
    n = len(seen) + weight * len(items)
    ridge = np.sqrt(l2 * n) * np.eye(items.shape[1])
    rows = np.vstack([items[seen], np.sqrt(weight) * items, ridge])
    return np.linalg.lstsq(rows, np.arange(len(rows)) < len(seen))[0]


def _ndcg(scores: Any, wanted: Any, k: int) -> Any:
    relevance = np.zeros(scores.shape)
    for row, (values, column) in enumerate(zip(scores, wanted, strict=True)):
        below = np.searchsorted(np.sort(values), values[column])
        relevance[row, len(values) - below - 1] = 1
    return ndcg_at_k(relevance, k, np.ones(len(scores)))


def _sampled_hit(rank: int, num_unseen: int, num_negatives: int, k: int) -> Any:
    """Draw one after the other, and keep the probability of each number of better ones."""
    chances, better = np.eye(num_negatives + 1)[0], np.arange(num_negatives + 1)
    for drawn in range(num_negatives):
        more = chances * np.maximum(rank - better, 0) / (num_unseen - drawn)
        chances = chances - more + np.append(0, more[:-1])
    return chances[:k].sum()


def _cut(users: Any, items: Any, k: int) -> Any:
    left, values, right = np.linalg.svd(users @ items.T, full_matrices=False)
    return (left[:, :k] * values[:k]) @ right[:k], (len(users), k), (len(items), k)


def _quantize_row(x: Any, bits: int) -> Any:
    """Look for the nearest mark."""
    codes, lowest = np.arange(2**bits), min(x.min(), 0.0)
    scale = (max(x.max(), 0.0) - lowest) / codes[-1] or 1.0
    zero = np.abs(codes * scale + lowest).argmin()
    return np.abs(x[:, None] - scale * (codes - zero)).argmin(axis=1), scale, zero


def _scale_per_column(kernel: Any, bits: int) -> Any:
    largest = np.maximum(kernel.max(axis=0), -kernel.min(axis=0))
    scales = symmetric_scales(np.float32(kernel), bits, "column")[0]
    codes = np.floor(kernel / np.where(largest, largest, 1) * (2 ** (bits - 1) - 1) + 0.5)
    return codes, np.where(largest > 0, scales, 1.0)


def _straight_through(w: Any, scale: float, low: int, high: int, gradient: Any) -> Any:
    """Differentiate numerically, with the error of rounding held fixed."""
    steps = np.clip(w / scale, low, high)
    error, tiny = np.rint(steps) - steps, 1e-6

    def served(w: Any, scale: float) -> Any:
        return scale * (np.clip(w / scale, low, high) + error)

    by_weight = (served(w + tiny, scale) - served(w - tiny, scale)) / (2 * tiny)
    by_scale = (served(w, scale + tiny) - served(w, scale - tiny)) / (2 * tiny)
    return gradient * by_weight, gradient @ by_scale


def _draw_parts(rng: np.random.Generator) -> Any:
    num_bytes = np.sort(rng.integers(1, 20, (4, 4)), axis=1)
    rises = np.sort(rng.uniform(0, 9, (4, 4)), axis=1)[:, ::-1]
    return num_bytes, rises, int(num_bytes[:, 0].sum() + rng.integers(0, 30))


def _cost(choices: Any, num_bytes: Any, rises: Any, budget: int) -> Any:
    parts = np.arange(len(rises))
    return rises[parts, choices].sum(), bool(num_bytes[parts, choices].sum() <= budget)


def _allocate(num_bytes: Any, rises: Any, budget: int) -> Any:
    tried = [_cost(list(c), num_bytes, rises, budget) for c in product(range(4), repeat=4)]
    return min(rise for rise, fits in tried if fits), True


def _soft_labels(teacher: Any, student: Any, t: float) -> Any:
    log_p, log_q = (scipy.special.log_softmax(scores / t, axis=1) for scores in (teacher, student))
    loss = scipy.special.rel_entr(np.exp(log_p), np.exp(log_q)).sum(axis=1)
    exact = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)  # where q is 0 in floats
    return t**2 * np.where(np.isfinite(loss), loss, exact), t * (np.exp(log_q) - np.exp(log_p))


def _average(weights: Any, decay: float) -> Any:
    shares = np.minimum(decay, 1 - 1 / np.arange(1, len(weights) + 1))
    later = np.append(np.cumprod(shares[:0:-1])[::-1], 1.0)  # how much of each update is left
    return (later * (1 - shares)) @ weights


def _front(num_bytes: Any, quality: Any) -> Any:
    at_most, at_least = num_bytes <= num_bytes[:, None], quality >= quality[:, None]
    better = (num_bytes < num_bytes[:, None]) | (quality > quality[:, None])
    return ~(at_most & at_least & better).any(axis=1)


def _adagrad(table: Any, sums: Any, ids: Any, gradients: Any, rate: float) -> Any:
    total = np.eye(len(table))[ids].T @ gradients
    return table - rate * total / np.sqrt(np.maximum(sums + total**2, 1e-300)), sums + total**2


def _survivors(rounded: Any, errors: Any, user: Any, k: int) -> Any:
    scores, slack = rounded @ user, errors * np.sqrt(user @ user)
    return scores + slack >= np.partition(scores - slack, -k)[-k]


def _merge(ids: Any, scores: Any, k: int) -> Any:
    ranked = sorted(
        zip(np.hstack(ids), np.hstack(scores), strict=True), key=lambda x: (-x[1], x[0])
    )
    return tuple(np.array(column) for column in zip(*ranked[:k], strict=True))


def _waiting(due: Any, service: Any) -> Any:
    total = np.cumsum(service)
    return np.maximum.accumulate(due - total + service) + total - due, service


def _revenue(scores: Any, gains: Any, k: int) -> Any:
    best = [np.sort(gains)[::-1][:k], gains[top_k(scores[None], min(k, len(gains)))[0]]]
    ideal, found = (sum(g / np.log2(j + 2) for j, g in enumerate(order)) for order in best)
    return found / ideal if ideal else 0.0


def _map_of_texts(features: Any, vectors: Any, seen: Any, l2: float) -> Any:
    ridge = np.sqrt(l2) * np.eye(features.shape[1])
    targets = np.vstack([vectors[seen], np.zeros((len(ridge), vectors.shape[1]))])
    return features @ np.linalg.lstsq(np.vstack([features[seen], ridge]), targets)[0]


def _list_softmax(facts: Any, weights: Any, chosen: Any) -> Any:
    """Differentiate numerically."""

    def loss(weights: Any) -> Any:
        shares = scipy.special.log_softmax(facts @ weights, axis=1)
        return -np.take_along_axis(shares, chosen[:, None], axis=1).mean()

    steps = 1e-6 * np.eye(len(weights))
    return loss(weights), [(loss(weights + s) - loss(weights - s)) / 2e-6 for s in steps]


def _whole(rng: np.random.Generator, *shape: int) -> Any:
    """Return small whole numbers: sums of products are exact, and ties are many."""
    return rng.integers(-3, 4, shape).astype(float)


CHECKS = {
    "ex01_last_rows": Check(
        lambda rng: (rng.integers(0, 9, 30), rng.integers(0, 5, 30)),
        _last_rows,
        {"users with one row": (np.array([0, 1, 1]), np.array([5, 2, 1]))},
    ),
    "ex02_top_k": Check(
        lambda rng: (_whole(rng, 3), _whole(rng, 20, 3), rng.choice(20, 4, replace=False), 6),
        lambda user, items, seen, k: top_k(
            np.where(np.isin(np.arange(len(items)), seen), -np.inf, items @ user)[None], k
        )[0],
    ),
    "ex02_solve_row": Check(
        lambda rng: (rng.normal(size=(15, 3)), rng.choice(15, 4, replace=False), 0.2, 0.05),
        _solve_row,
    ),
    "ex03_bpr": Check(
        lambda rng: tuple(rng.normal(0, 3, (2, 6))),
        lambda z, other: (-scipy.special.log_expit(z - other), -scipy.special.expit(other - z)),
        {"a margin of 1000": (np.array([500.0, -500.0]), np.array([-500.0, 500.0]))},
    ),
    "ex04_ndcg": Check(
        lambda rng: (_whole(rng, 5, 8), rng.integers(0, 8, 5), 4),
        _ndcg,
        {"a model that says the same of everything": (np.zeros((2, 5)), np.array([0, 3]), 3)},
    ),
    "ex04_sampled_hit": Check(
        lambda rng: (int(rng.integers(0, 300)), 1000, 99, 10),
        _sampled_hit,
        {"hardly any item that is worse": (98, 100, 20, 19)},
    ),
    "ex05_fixed_cost": Check(
        lambda rng: (np.array([1.0, 10, 100, 900]), 40 + rng.uniform(0.5, 3, 4).cumsum() ** 4),
        lambda sizes, times: np.polyfit(sizes, times, 1, w=1 / times)[::-1],
        view=lambda answer, *_: np.array(answer),
    ),
    "ex06_magnitude_mask": Check(
        lambda rng: (_whole(rng, 4, 5), 10),
        lambda weights, kept: magnitude_mask(weights, 1 - kept / weights.size),
        {"one dimension": (np.array([1.0, -1, 2, 1, -3, 0, 1, 1, 0, 1]), 4)},
    ),
    "ex06_n_of_m_mask": Check(
        lambda rng: (_whole(rng, 8, 3), 2, 4),
        lambda kernel, n, m: magnitude_mask(kernel, 1 - n / m, "n_of_m", group_size=m),
    ),
    "ex07_cut_dimensions": Check(
        lambda rng: (rng.normal(size=(9, 5)), rng.normal(size=(7, 5)), 2),
        _cut,
        view=lambda answer, *_: (answer[0] @ answer[1].T, answer[0].shape, answer[1].shape),
    ),
    "ex08_quantize_row": Check(
        lambda rng: (rng.normal(size=6), int(rng.integers(2, 9))),
        _quantize_row,
        {
            "a row of zeros": (np.zeros(3), 4),
            "a row above 0": (np.array([2, 3.5, 6]), 2),
            "a row below 0": (np.array([-2, -3.5, -6]), 2),
        },
    ),
    "ex08_scale_per_column": Check(
        lambda rng: (rng.normal(size=(5, 3)), int(rng.integers(2, 9))),
        _scale_per_column,
        {"a column of zeros": (np.array([[0.0, 3], [0, -2]]), 4)},
    ),
    "ex08_int8_product": Check(
        lambda rng: (
            *(rng.integers(-128, 128, (3, 40)).astype(np.int8), 0.02, int(rng.integers(-9, 9))),
            *(rng.integers(-127, 128, (40, 2)).astype(np.int8), rng.uniform(0.01, 0.1, 2)),
        ),
        lambda x, scale, zero, w, scales: (scale * (x - float(zero))) @ (scales * w),
    ),
    "ex09_straight_through": Check(
        lambda rng: (rng.normal(0, 2, 8), 0.7, -2, 1, rng.normal(size=8)), _straight_through
    ),
    "ex10_allocate": Check(
        _draw_parts,
        _allocate,
        {
            "a greedy choice is wrong": (
                np.array([[0, 6, 99, 99], [0, 10, 99, 99]] + 2 * [[0] * 4]),
                np.array([[9.0, 0, 0, 0], [12, 0, 0, 0]] + 2 * [[0] * 4]),
                10,
            )
        },
        view=_cost,
    ),
    "ex11_encode": Check(
        lambda rng: (rng.normal(size=(6, 8)), rng.normal(size=(4, 5, 2))),
        lambda rows, books: np.stack(
            [
                scipy.cluster.vq.vq(rows[:, 2 * p : 2 * p + 2], book)[0]
                for p, book in enumerate(books)
            ],
            1,
        ),
    ),
    "ex12_soft_labels": Check(
        lambda rng: (*rng.normal(0, 2, (2, 3, 5)), float(rng.uniform(0.5, 4))),
        _soft_labels,
        {"scores of 1000": (np.array([[1000.0, 0]]), np.array([[0, 1000.0]]), 1.0)},
    ),
    "ex13_running_average": Check(
        lambda rng: (rng.normal(size=(12, 3)), 0.8),
        _average,
        {"fewer updates than it looks back over": (np.array([[1.0], [2], [6]]), 0.99)},
    ),
    "ex14_front": Check(
        lambda rng: (rng.integers(1, 9, 12), rng.integers(1, 9, 12)),
        _front,
        {"equal points": (np.array([3, 3, 5]), np.array([7, 7, 7]))},
    ),
    "ex15_adagrad": Check(
        lambda rng: (
            *(rng.normal(size=(5, 2)), rng.uniform(0, 2, (5, 2)), rng.integers(0, 3, 6)),
            *(rng.normal(size=(6, 2)), 0.1),
        ),
        _adagrad,
    ),
    "ex16_survivors": Check(
        lambda rng: (rng.normal(size=(12, 3)), rng.uniform(0, 0.5, 12), rng.normal(size=3), 3),
        _survivors,
        {
            "an end that equals the threshold": (
                np.array([[3.0], [2], [1]]),
                np.array([1.0, 0, 1]),
                np.array([1.0]),
                1,
            )
        },
    ),
    "ex17_map_of_texts": Check(
        lambda rng: (*rng.normal(size=(2, 12, 3)), rng.permutation(12) < 8, 0.5),
        _map_of_texts,
        {"fewer items than features": (np.eye(3), np.ones((3, 2)), np.arange(3) == 1, 1.0)},
    ),
    "ex18_batch_gradient": Check(
        lambda rng: (rng.normal(size=(3, 2)), rng.integers(1, 6, 3)),
        lambda means, counts: np.average(means[counts > 0], axis=0, weights=counts[counts > 0]),
        {"a worker without rows": (np.array([[2.0], [np.nan]]), np.array([3, 0]))},
    ),
    "ex19_merge": Check(
        lambda rng: (
            np.split(rng.permutation(12), [3, 8]),
            np.split(rng.integers(0, 4, 12).astype(float), [3, 8]),
            5,
        ),
        _merge,
    ),
    "ex20_waiting": Check(
        lambda rng: (rng.uniform(0, 2, 8).cumsum(), rng.uniform(0.1, 3, 8)),
        _waiting,
        {"a pause in the middle": (np.arange(1.0, 6), np.array([0.1, 0.1, 3, 0.1, 0.1]))},
    ),
    "ex21_revenue_ndcg": Check(
        lambda rng: (rng.permutation(8) / 8, rng.integers(0, 3, 8) * rng.uniform(1, 9, 8), 4),
        _revenue,
        {
            "nothing was bought": (np.array([0.2, 0.1]), np.zeros(2), 1),
            "fewer items than places": (np.array([0.2, 0.1]), np.array([1.0, 5]), 10),
        },
    ),
    "ex22_popular_lately": Check(
        lambda rng: (rng.integers(0, 5, 20), rng.uniform(0, 40, 20), 7.0, 8),
        lambda ids, ages, half, n: np.eye(n)[ids].T @ np.exp(-np.log(2) * ages / half),
    ),
    "ex23_list_softmax": Check(
        lambda rng: (rng.normal(size=(5, 4, 3)), rng.normal(size=3), rng.integers(0, 4, 5)),
        _list_softmax,
        {"scores of 1000": (np.array([[[1000.0], [0]]]), np.ones(1), np.array([1]))},
        view=lambda answer, *_: (answer[0], np.array(answer[1])),
    ),
    "ex24_gini": Check(
        lambda rng: (rng.integers(0, 9, 12),),
        lambda counts: np.abs(counts[:, None] - counts).mean() / (2 * counts.mean()),
        {"all places for one": (np.array([0, 0, 0, 8]),)},
    ),
    "ex25_paired_change": Check(
        lambda rng: tuple(rng.uniform(0, 1, (2, 15)).round(1)),
        lambda before, after: (
            after.mean() / before.mean() - 1,
            1.96 * scipy.stats.sem(after - before) / before.mean(),
        ),
        {"a loss that all share": (np.array([1.0, 0.5]), np.array([0.9, 0.4]))},
    ),
}
