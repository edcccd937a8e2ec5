"""A map from texts to tastes.

Chapter: 17
Level: ★★
Learn: an item that nobody has met yet gets its vector from what it says about itself
Source: Gantner et al. (2010); chapter 17
"""

import numpy as np


def map_of_texts(features, vectors, seen, l2):
    """Return a vector for each item from its features alone, (n, d).

    features: (n, f), numbers made from an item's text. vectors: (n, d), the model's vectors; those
    of items that nobody has met are not to be used. seen: (n,), True where somebody has. Fit the
    (f, d) matrix W that minimises the sum over the seen items of |features[i] @ W - vectors[i]|^2,
    plus l2 times the sum of the squares of W, and apply it to all items.
    """
    raise NotImplementedError
