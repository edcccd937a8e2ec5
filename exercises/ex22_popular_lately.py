"""Popular lately.

Chapter: 22
Level: ★
Learn: a counter with a half-life is a baseline that needs no training
Source: chapter 22
"""

import numpy as np


def popular_lately(item_ids, ages, half_life, num_items):
    """Return the weight of each item, shape (num_items,).

    item_ids, ages: (n,), one entry for each click. A click counts 1 at the age of 0, half after one
    half_life, a quarter after two. Items may repeat, and may not occur at all.
    """
    raise NotImplementedError
