"""Several scorers as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_number
from recsys_lib.data import Interactions
from recsys_lib.models.checks import check_interactions


class Ensemble:
    """The weighted mean of several models' scores, each brought to one scale.

    Scores of different models have different units. Each model's scores of a user are therefore
    standardised over the catalogue (mean 0, standard deviation 1) before they are averaged; a user
    to whom a model gives the same score for every item gets zeros from it. Items that the user has
    met score far above all others in most models, each in its own way, and are not recommended:
    with ``exclude`` mean and deviation are those of the other items.

    Args:
        members: fitted models with ``score_all_items(user_ids)``, of the same users and items.
        weights: one number per member, not below 0, not all 0; None for equal ones.
        exclude: what users have met, left out of mean and deviation (not of the scores); None for
            the whole catalogue.

    Attributes:
        num_users: of the first member.
        num_items: of the first member.

    Raises:
        TypeError: a member without ``score_all_items``.
        ValueError: no members, other users or items (of ``exclude``, too), or weights that do not
            fit.

    Example:
        >>> from recsys_lib.data import Interactions
        >>> from recsys_lib.models import EASE, Popularity
        >>> data = Interactions([0, 0, 1, 1], [0, 1, 1, 2])
        >>> both = Ensemble([Popularity().fit(data), EASE(l2=1.0).fit(data)])
        >>> both.score_all_items([0]).argmax().item()
        1
    """

    def __init__(
        self,
        members: Sequence[Any],
        weights: Sequence[float] | None = None,
        exclude: Interactions | None = None,
    ) -> None:
        if len(members) == 0:
            raise ValueError("members is empty: expected at least one model")
        for number, member in enumerate(members):
            if not hasattr(member, "score_all_items"):
                raise TypeError(
                    f"members[{number}] is of type {type(member).__name__}: expected a model with "
                    "score_all_items()"
                )
        shapes = [(member.num_users, member.num_items) for member in members]
        if len(set(shapes)) > 1:
            raise ValueError(f"members count (users, items) {shapes}: expected the same of all")
        weights = [1.0] * len(members) if weights is None else list(weights)
        checked = [check_number(f"weights[{n}]", w, 0) for n, w in enumerate(weights)]
        if len(checked) != len(members) or sum(checked) == 0:
            raise ValueError(
                f"weights is {checked}: expected {len(members)} numbers that are not all 0"
            )
        self.members = tuple(members)
        self.weights = tuple(weight / sum(checked) for weight in checked)
        self.num_users, self.num_items = shapes[0]
        self._seen = None
        if exclude is not None:
            check_interactions(exclude)
            if (exclude.num_users, exclude.num_items) != shapes[0]:
                raise ValueError(
                    f"exclude counts {exclude.num_users} users and {exclude.num_items} items: "
                    f"expected those of the members, {shapes[0][0]} and {shapes[0][1]}"
                )
            self._seen = exclude.to_csr("binary")

    def score_all_items(self, user_ids: ArrayLike) -> NDArray[np.float32]:
        """Score every item for each user: (b,) ids to (b, num_items) float32."""
        total: Any = 0.0
        counted = None if self._seen is None else self._seen[np.asarray(user_ids)].toarray() == 0
        for weight, member in zip(self.weights, self.members, strict=True):
            total = total + weight * standardized(member.score_all_items(user_ids), counted)
        return np.asarray(total, np.float32)

    def score(self, user_ids: ArrayLike, item_ids: ArrayLike) -> NDArray[np.float32]:
        """Score pairs: two (n,) arrays of ids to (n,) float32."""
        users, row = np.unique(np.asarray(user_ids), return_inverse=True)
        items = np.asarray(item_ids)
        scores = np.empty(len(items), np.float32)
        size = max(1, (1 << 22) // self.num_items)
        order = np.argsort(row, kind="stable")
        for start in range(0, len(users), size):
            first, last = np.searchsorted(row[order], [start, start + size])
            pairs = order[first:last]
            rows = self.score_all_items(users[start : start + size])
            scores[pairs] = rows[row[pairs] - start, items[pairs]]
        return scores


def standardized(
    scores: NDArray[Any], counted: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Bring each row to mean 0 and standard deviation 1; a constant row becomes zeros.

    Args:
        scores: (b, n).
        counted: (b, n), which of them make up mean and deviation; None for all.

    Example:
        >>> standardized(np.array([[1.0, 3.0], [2.0, 2.0]])).tolist()
        [[-1.0, 1.0], [0.0, 0.0]]
        >>> standardized(np.array([[1.0, 3.0, 6.0]]), np.array([[True, True, False]])).tolist()
        [[-1.0, 1.0, 4.0]]
    """
    counted = np.ones(scores.shape, bool) if counted is None else counted
    counted = counted | ~counted.any(axis=1, keepdims=True)  # who has met everything: of all
    centred = scores - scores.mean(axis=1, keepdims=True, where=counted)
    spread = centred.std(axis=1, keepdims=True, where=counted)
    return np.asarray(np.divide(centred, spread, where=spread > 0, out=np.zeros_like(centred)))
