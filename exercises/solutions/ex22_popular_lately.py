"""A solution of ex22_popular_lately."""

import numpy as np


def popular_lately(item_ids, ages, half_life, num_items):
    """Return what the exercise asks for."""
    return np.bincount(item_ids, weights=0.5 ** (ages / half_life), minlength=num_items)
