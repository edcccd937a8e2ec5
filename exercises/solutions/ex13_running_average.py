"""A solution of ex13_running_average."""

import numpy as np


def running_average(weights, decay):
    """Return what the exercise asks for."""
    average = np.zeros(weights.shape[1])
    for n, row in enumerate(weights, 1):
        share = min(decay, 1 - 1 / n)
        average = share * average + (1 - share) * row
    return average
