"""Adagrad on an embedding table.

Chapter: 15
Level: ★★
Learn: an id that occurs twice in a batch must be added up first
Source: Duchi et al. (2011)
"""

import numpy as np


def adagrad(table, sums, ids, gradients, rate):
    """Return the new table and the new sums; change neither of the old ones.

    table, sums: (rows, d), sums of squared gradients so far. ids: (b,), may repeat. gradients:
    (b, d). First add up the gradients of each row, to g. In touched rows sums grow by g ** 2 and
    the table moves by -rate * g / sqrt(new sums). Other rows stay.
    """
    raise NotImplementedError
