"""A solution of ex08_quantize_row."""

import numpy as np


def quantize_row(x, bits):
    """Return what the exercise asks for."""
    lowest, highest = min(x.min(), 0.0), max(x.max(), 0.0)
    most = 2**bits - 1
    scale = (highest - lowest) / most or 1.0
    zero_point = np.rint(-lowest / scale)
    return np.clip(np.rint(x / scale) + zero_point, 0, most).astype(int), scale, int(zero_point)
