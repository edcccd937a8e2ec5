"""A solution of ex04_sampled_hit."""

import math


def sampled_hit(rank, num_unseen, num_negatives, k):
    """Return what the exercise asks for."""
    ways = math.comb(num_unseen, num_negatives)
    hits = sum(
        math.comb(rank, j) * math.comb(num_unseen - rank, num_negatives - j)
        for j in range(min(k, num_negatives + 1))
    )
    return hits / ways
