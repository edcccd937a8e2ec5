"""Soft labels with a temperature.

Chapter: 12
Level: ★★
Learn: why the loss is multiplied by the square of the temperature
Source: Hinton et al. (2015), section 2
"""

import numpy as np


def soft_labels(teacher, student, temperature):
    """Return T**2 * KL(p, q) of each row, shape (n,), and its gradient by student, (n, m).

    teacher, student: scores (n, m). p and q are their softmax at the temperature T. The gradient is
    T * (q - p). Scores of 1000 must not overflow.
    """
    raise NotImplementedError
