"""Is the change certain?

Chapter: 25
Level: ★
Learn: two models that are asked by the same users differ by less than their own intervals say
Source: chapters 4 and 25
"""

import numpy as np


def paired_change(before, after):
    """Return the change and half the width of its 95 % interval, two floats.

    before, after: (n,), the NDCG of the same users under two models, n at least 2. The change is
    that of the mean, divided by the mean before. The interval is 1.96 standard errors of the mean
    of the users' differences, on the same scale; the variance is divided by n - 1.
    """
    raise NotImplementedError
