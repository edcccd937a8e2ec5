"""A solution of ex01_last_rows."""

import numpy as np


def last_rows(user_ids, times):
    """Return what the exercise asks for."""
    place = np.arange(len(times))
    order = np.lexsort((place, times, user_ids))
    ordered = user_ids[order]
    is_last = np.append(ordered[1:] != ordered[:-1], True)
    is_first = np.append(True, ordered[1:] != ordered[:-1])
    mask = np.zeros(len(times), bool)
    mask[order[is_last & ~is_first]] = True
    return mask
