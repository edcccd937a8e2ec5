"""How far two models say the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from recsys_lib.checks import check_ids
from recsys_lib.data import Interactions
from recsys_lib.models.topk import top_k


@dataclass(frozen=True)
class Agreement:
    """How far a student ranks as its teacher does, as means over users.

    Args:
        overlap: share of the teacher's k best items that are among the student's k best, in
            [0, 1].
        rank_correlation: Spearman's, over the whole catalogue, in [-1, 1].
        k: length of the lists.
    """

    overlap: float
    rank_correlation: float
    k: int


def agreement(
    teacher: Any,
    student: Any,
    user_ids: ArrayLike,
    k: int = 10,
    exclude: Interactions | None = None,
) -> Agreement:
    """Compare two models' rankings of the catalogue.

    Args:
        teacher: a model with ``score_all_items(user_ids)``.
        student: another.
        user_ids: (n,) users to compare for.
        k: length of the lists that are compared.
        exclude: interactions whose items are left out of the lists (not of the correlation).

    Returns:
        Overlap and correlation.

    Raises:
        ValueError: unknown ids, no users, or k out of range.

    Source:
        Spearman, *The Proof and Measurement of Association between Two Things*, 1904.

    Example:
        >>> from recsys_lib.models import Popularity
        >>> model = Popularity().fit(Interactions([0, 0, 1], [0, 1, 1]))
        >>> agreement(model, model, [0, 1], k=1)
        Agreement(overlap=1.0, rank_correlation=1.0, k=1)
    """
    from scipy.stats import rankdata

    users = check_ids("user_ids", user_ids, teacher.num_users)
    if len(users) == 0:
        raise ValueError("user_ids is empty: expected at least one user")
    overlaps, correlations = [], []
    for start in range(0, len(users), 256):
        some = users[start : start + 256]
        scores = [np.array(model.score_all_items(some)) for model in (teacher, student)]
        ranks = [rankdata(values, axis=1) for values in scores]
        ranks = [values - values.mean(axis=1, keepdims=True) for values in ranks]
        norms = np.prod([np.linalg.norm(values, axis=1) for values in ranks], axis=0)
        products = np.sum(ranks[0] * ranks[1], axis=1)
        correlations.append(np.divide(products, norms, where=norms > 0, out=np.zeros(len(some))))
        if exclude is not None:
            met = exclude.to_csr("binary")[some]
            rows = np.repeat(np.arange(len(some)), np.diff(met.indptr))
            for values in scores:
                values[rows, met.indices] = -np.inf
        lists = [top_k(values, k) for values in scores]
        shared = (lists[0][:, :, None] == lists[1][:, None, :]) & (lists[0][:, :, None] >= 0)
        overlaps.append(shared.sum(axis=(1, 2)) / np.maximum((lists[0] >= 0).sum(axis=1), 1))
    return Agreement(
        float(np.mean(np.concatenate(overlaps))),
        round(float(np.mean(np.concatenate(correlations))), 12),
        k,
    )
