"""A solution of ex21_revenue_ndcg."""

import numpy as np


def revenue_ndcg(scores, gains, k):
    """Return what the exercise asks for."""
    discount = 1 / np.log2(np.arange(2, k + 2))
    best = np.sort(gains)[::-1][:k]
    ideal = best @ discount[: len(best)]
    shown = gains[np.argsort(-scores)[:k]]
    return float(shown @ discount[: len(shown)] / ideal) if ideal > 0 else 0.0
