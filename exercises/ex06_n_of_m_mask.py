"""The pattern n of m.

Chapter: 6
Level: ★★
Learn: what hardware asks of zeros, and what freedom costs
Source: Mishra et al. (2021), section 2
"""

import numpy as np


def n_of_m_mask(kernel, n, m):
    """Return the mask that keeps, in each column, n of each m consecutive rows.

    kernel: (inputs, outputs), inputs a multiple of m. Kept are the n largest magnitudes of a
    group; of equal ones the earlier row. Returns booleans of the shape of kernel.
    """
    raise NotImplementedError
