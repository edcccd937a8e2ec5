"""A solution of ex14_front."""

import numpy as np


def front(num_bytes, quality):
    """Return what the exercise asks for."""
    order = np.lexsort((-quality, num_bytes))
    mask, best = np.zeros(len(quality), bool), (-np.inf, np.inf)
    for i in order:
        point = quality[i], num_bytes[i]
        if point[0] > best[0] or point == best:
            mask[i], best = True, point
    return mask
