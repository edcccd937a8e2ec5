"""A solution of ex19_merge."""

import numpy as np


def merge(ids, scores, k):
    """Return what the exercise asks for."""
    all_ids, all_scores = np.concatenate(ids), np.concatenate(scores)
    order = np.lexsort((all_ids, -all_scores))[:k]
    return all_ids[order], all_scores[order]
