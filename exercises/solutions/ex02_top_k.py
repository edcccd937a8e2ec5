"""A solution of ex02_top_k."""

import numpy as np


def top_k(user_vector, item_vectors, seen, k):
    """Return what the exercise asks for."""
    scores = (item_vectors @ user_vector).astype(float)
    scores[seen] = -np.inf
    return np.argsort(-scores, kind="stable")[:k]
