"""A solution of ex24_gini."""

import numpy as np


def gini(counts):
    """Return what the exercise asks for."""
    ordered, n = np.sort(counts), len(counts)
    weights = 2 * np.arange(1, n + 1) - n - 1
    return float(weights @ ordered / (n * ordered.sum()))
