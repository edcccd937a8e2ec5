"""A fixed cost and a cost for each candidate.

Chapter: 5
Level: ★★
Learn: t = a + b B says which of the two is worth attacking
Source: chapter 5
"""

import numpy as np


def fixed_cost(sizes, times):
    """Return (a, b) of the line times = a + b * sizes, by least squares of *relative* errors.

    sizes, times: (n,), all above 0. Minimise the sum of ((a + b * size - time) / time) ** 2, so
    that small times count as much as large ones.
    """
    raise NotImplementedError
