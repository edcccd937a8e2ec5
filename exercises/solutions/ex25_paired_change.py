"""A solution of ex25_paired_change."""

import numpy as np


def paired_change(before, after):
    """Return what the exercise asks for."""
    differences, base = after - before, before.mean()
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    return float(differences.mean() / base), float(1.96 * error / base)
