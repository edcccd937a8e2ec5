"""NDCG with ties against the model.

Chapter: 4
Level: ★★
Learn: one rank decides all metrics; ties need a rule
Source: Järvelin & Kekäläinen (2002)
"""

import numpy as np


def ndcg(scores, wanted, k):
    """Return the NDCG@k of each row, shape (n,).

    scores: (n, m), row i the scores of user i's m candidates. wanted: (n,), the column of the
    one item that user i took. Its rank r is the number of *other* columns with a score that is as
    high or higher. The value is 1 / log2(r + 2) where r < k, and 0 elsewhere.
    """
    raise NotImplementedError
