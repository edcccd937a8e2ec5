"""A solution of ex05_fixed_cost."""

import numpy as np


def fixed_cost(sizes, times):
    """Return what the exercise asks for."""
    columns = np.stack([1 / times, sizes / times], axis=1)
    (a, b), *_ = np.linalg.lstsq(columns, np.ones(len(times)))
    return a, b
