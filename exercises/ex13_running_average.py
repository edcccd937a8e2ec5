"""A running average of weights.

Chapter: 13
Level: ★
Learn: an average must not hang on to the start
Source: Tarvainen & Valpola (2017), section 3
"""

import numpy as np


def running_average(weights, decay):
    """Return the average after the last update, shape (d,).

    weights: (steps, d), after each update. At the n-th update (n = 1, 2, ...) the average becomes
    c * average + (1 - c) * weights with c = min(decay, 1 - 1 / n): at first it is the plain mean.
    """
    raise NotImplementedError
