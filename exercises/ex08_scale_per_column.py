"""A scale for each output of a kernel.

Chapter: 8
Level: ★★
Learn: a scale for each column stays outside of the sum
Source: Jacob et al. (2018); chapter 8
"""

import numpy as np


def scale_per_column(kernel, bits):
    """Return (codes, scales): symmetric quantization with one scale for each column.

    kernel: (inputs, outputs). With q = 2 ** (bits - 1) - 1, a column's scale is its largest
    magnitude / q, and 1 for a column of zeros; codes = round(kernel / scale), from -q to q.
    Returns whole numbers of the shape of kernel, and scales (outputs,).
    """
    raise NotImplementedError
