"""NDCG with prices.

Chapter: 21
Level: ★★
Learn: a metric is a decision about what matters
Source: Järvelin & Kekäläinen (2002); chapter 21
"""

import numpy as np


def revenue_ndcg(scores, gains, k):
    """Return the NDCG@k with gains, a float.

    scores: (n,), all different. gains: (n,), what each item is worth, 0 for what was not bought.
    DCG is the sum of gain / log2(place + 1) over the k best by score, place 1 first. Divide by the
    DCG of the best order. It is 0 where all gains are 0.
    """
    raise NotImplementedError
