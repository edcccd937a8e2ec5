"""Bits under a budget of bytes.

Chapter: 10
Level: ★★★
Learn: a knapsack with one choice from each class is solved exactly
Source: Shoham & Gersho (1988); chapter 10
"""

import numpy as np


def allocate(num_bytes, rises, budget):
    """Return the best choice for each part, a list of p column numbers.

    num_bytes, rises: (parts, widths), what part i costs in bytes and in loss at width j. The sum of
    the bytes must not exceed budget, and the sum of the rises must be the smallest possible. The
    cheapest widths always fit. Hint: keep, for each number of bytes used, the best so far.
    """
    raise NotImplementedError
