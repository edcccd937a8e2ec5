"""Drop items with a proof.

Chapter: 16
Level: ★★
Learn: a bound on the error of rounding makes a search exact
Source: chapter 16
"""

import numpy as np


def survivors(rounded, error_lengths, user_vector, k):
    """Return a mask of the items that may be among the k best, booleans (n,).

    rounded: (n, d), item vectors after rounding. error_lengths: (n,), the length of what rounding
    changed. An item's score lies within error * |user_vector| of its rounded score (Cauchy and
    Schwarz). Keep an item unless its upper end is *below* the k-th largest lower end.
    """
    raise NotImplementedError
