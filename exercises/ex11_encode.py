"""Product quantization: find the codes.

Chapter: 11
Level: ★★
Learn: one code for a piece of a row; distances without a loop over rows
Source: Jégou et al. (2011), section II
"""

import numpy as np


def encode(vectors, codebooks):
    """Return the number of the nearest centroid for each piece of each vector.

    vectors: (n, pieces * width). codebooks: (pieces, centroids, width). Piece p of a vector is its
    p-th run of width numbers. Returns whole numbers (n, pieces).
    """
    raise NotImplementedError
