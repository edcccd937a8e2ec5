"""A dense layer in whole numbers.

Chapter: 8
Level: ★★★
Learn: products of 8 bits need sums of 32; the zero point is one correction
Source: Jacob et al. (2018), equation 7
"""

import numpy as np


def int8_product(codes_x, scale_x, zero_x, codes_w, scales_w):
    """Return x @ w, shape (n, outputs), from the codes of both.

    codes_x: int8 (n, inputs), x = scale_x * (codes_x - zero_x). codes_w: int8 (inputs, outputs),
    w = scales_w * codes_w, with a scale for each output. Multiply *whole numbers*, and scale the
    sums. Mind what NumPy does with a sum that does not fit into 8 bits.
    """
    raise NotImplementedError
