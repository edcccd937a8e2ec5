"""A row in few bits, with a zero point.

Chapter: 8
Level: ★
Learn: real = scale * (code - zero point), and 0 comes back as 0
Source: Jacob et al. (2018), section 3.1
"""

import numpy as np


def quantize_row(x, bits):
    """Return (codes, scale, zero_point) of a row.

    x: (d,). Codes are whole numbers from 0 to 2 ** bits - 1. The range goes from min(x, 0) to
    max(x, 0); scale = range / (2 ** bits - 1), and 1 where the range is empty.
    zero_point = round(-lowest / scale); codes = clip(round(x / scale) + zero_point).
    """
    raise NotImplementedError
