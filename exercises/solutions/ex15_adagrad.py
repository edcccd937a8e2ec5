"""A solution of ex15_adagrad."""

import numpy as np


def adagrad(table, sums, ids, gradients, rate):
    """Return what the exercise asks for."""
    total = np.zeros_like(table)
    np.add.at(total, ids, gradients)
    touched = np.unique(ids)
    table, sums = table.copy(), sums + total**2
    table[touched] -= rate * total[touched] / np.sqrt(sums[touched])
    return table, sums
