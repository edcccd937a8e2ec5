"""A sampled hit rate, without sampling.

Chapter: 4
Level: ★★★
Learn: sampled metrics follow from the full ranks
Source: Krichene & Rendle (2020); chapter 4
"""

import math


def sampled_hit(rank, num_unseen, num_negatives, k):
    """Return the probability of a hit among k against drawn negatives, a float.

    rank: how many of the user's num_unseen items score higher than the wanted one. num_negatives
    of them are drawn without repeats. It is a hit when fewer than k of the drawn score higher:
    sum over j < k of C(rank, j) C(num_unseen - rank, num_negatives - j) / C(num_unseen,
    num_negatives). `math.comb` gives C, and 0 where there is none.
    """
    raise NotImplementedError
