"""One row of implicit ALS.

Chapter: 2
Level: ★★
Learn: a user's vector is a small ridge regression; fold-in is the same
Source: Hu et al. (2008), equation 4
"""

import numpy as np


def solve_row(item_vectors, seen, unobserved_weight, l2):
    """Return the user's vector a, shape (d,), with all item vectors h held fixed.

    item_vectors: (num_items, d), H. seen: ids of the items that the user met, each once.
    With n = len(seen) + unobserved_weight * num_items,
    a = (sum over seen of h h' + unobserved_weight * H'H + l2 n I)^-1 (sum over seen of h).
    """
    raise NotImplementedError
