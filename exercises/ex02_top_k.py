"""The ten best, without what was seen.

Chapter: 2
Level: ★
Learn: scores are one product; seen items and ties have to be handled
Source: chapter 2
"""

import numpy as np


def top_k(user_vector, item_vectors, seen, k):
    """Return the ids of the k items with the largest inner product, best first.

    user_vector: (d,). item_vectors: (num_items, d). seen: ids that must not be returned.
    Of equal scores the lower id comes first. Returns whole numbers (k,).
    """
    raise NotImplementedError
