"""A solution of ex04_ndcg."""

import numpy as np


def ndcg(scores, wanted, k):
    """Return what the exercise asks for."""
    target = scores[np.arange(len(scores)), wanted]
    rank = (scores >= target[:, None]).sum(axis=1) - 1
    return np.where(rank < k, 1 / np.log2(rank + 2), 0.0)
