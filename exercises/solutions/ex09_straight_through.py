"""A solution of ex09_straight_through."""

import numpy as np


def straight_through(weights, scale, low, high, gradient):
    """Return what the exercise asks for."""
    steps = weights / scale
    inside = (steps >= low) & (steps <= high)
    code = np.clip(np.rint(steps), low, high)
    by_scale = code - np.where(inside, steps, 0.0)
    return gradient * inside, float(gradient @ by_scale)
