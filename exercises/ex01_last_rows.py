"""Hold out the last row of each user.

Chapter: 1
Level: ★★
Learn: a split is a mask; ties in time need a rule
Source: He et al. (2017), section 4.1
"""

import numpy as np


def last_rows(user_ids, times):
    """Return a mask of the rows to hold out: the latest row of each user with two rows or more.

    user_ids, times: (n,) whole numbers. Of rows with the same time the one further down is later.
    A user with a single row keeps it. Returns booleans (n,).
    """
    raise NotImplementedError
