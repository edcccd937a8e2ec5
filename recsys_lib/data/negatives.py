"""Items to rank a test item against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys_lib.data.interactions import Interactions


def sample_negatives(
    train: Interactions, test: Interactions, num_negatives: int = 99, seed: int = 0
) -> NDArray[np.int64]:
    """Draw, for each test row, different items that its user has in neither part.

    Args:
        train: interactions that are no negatives.
        test: the rows to draw for; no negatives either.
        num_negatives: how many per row, 1 or more.
        seed: of the uniform draw.

    Returns:
        (len(test), num_negatives) item ids, for :class:`recsys_lib.data.Split`.

    Raises:
        ValueError: a user has fewer unseen items than that.

    Example:
        >>> train, test = Interactions([0, 0, 1], [0, 1, 3]).split_leave_one_out()
        >>> sorted(sample_negatives(train, test, num_negatives=2)[0].tolist())
        [2, 3]
    """
    if num_negatives < 1:
        raise ValueError(f"num_negatives is {num_negatives}: expected 1 or more")
    known = (train.to_csr() + test.to_csr()).tocsr()
    rng = np.random.default_rng(seed)
    negatives = np.empty((len(test), num_negatives), np.int64)
    for row, user in enumerate(test.user_ids):
        unseen = np.ones(train.num_items, bool)
        unseen[known.indices[known.indptr[user] : known.indptr[user + 1]]] = False
        choice = np.flatnonzero(unseen)
        if len(choice) < num_negatives:
            raise ValueError(
                f"num_negatives is {num_negatives}: user {user} has only {len(choice)} unseen items"
            )
        negatives[row] = rng.choice(choice, num_negatives, replace=False)
    return negatives
