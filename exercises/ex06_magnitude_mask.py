"""Keep the largest weights.

Chapter: 6
Level: ★
Learn: a mask has a number of zeros and a rule for ties
Source: Han et al. (2015), section 3.1
"""

import numpy as np


def magnitude_mask(weights, num_kept):
    """Return the mask that keeps the num_kept weights of largest magnitude.

    weights: any shape. Of equal magnitudes the earlier one, in row-major order, is kept.
    Returns booleans of the shape of weights.
    """
    raise NotImplementedError
