"""The front of what can be had.

Chapter: 14
Level: ★★
Learn: a point counts unless another is as good in both and better in one
Source: chapter 14
"""

import numpy as np


def front(num_bytes, quality):
    """Return a mask of the points on the front.

    num_bytes (smaller is better), quality (larger is better): (n,). A point is off the front if
    another one is at least as good in both and better in one. Equal points stay together.
    Returns booleans (n,).
    """
    raise NotImplementedError
