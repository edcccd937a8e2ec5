"""A solution of ex08_scale_per_column."""

import numpy as np


def scale_per_column(kernel, bits):
    """Return what the exercise asks for."""
    most = 2 ** (bits - 1) - 1
    scales = np.abs(kernel).max(axis=0) / most
    scales = np.where(scales > 0, scales, 1.0)
    return np.rint(kernel / scales).astype(int), scales
