"""The gradient of a batch from its shares.

Chapter: 18
Level: ★
Learn: a mean of means is not the mean
Source: Goyal et al. (2017), section 2.3
"""

import numpy as np


def batch_gradient(means, counts):
    """Return the mean gradient of the whole batch, shape (d,).

    means: (workers, d), the mean over a worker's own rows. counts: (workers,), how many rows these
    were. A worker without a row has a mean of NaN, and must not count.
    """
    raise NotImplementedError
