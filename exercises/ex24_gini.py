"""How unevenly places are dealt out.

Chapter: 24
Level: ★★
Learn: look at who is shown, and not only at the average
Source: Gini (1912); chapter 24
"""

import numpy as np


def gini(counts):
    """Return the Gini coefficient of counts, a float.

    counts: (n,), how often each artist is shown, not all 0. It is the mean of |counts[i] -
    counts[j]| over all n * n pairs, divided by twice the mean of counts. It must work for 20,000
    artists, so do not form all pairs. Hint: sort; the i-th smallest has i others below.
    """
    raise NotImplementedError
