"""Merge the best k of several shards.

Chapter: 19
Level: ★★
Learn: a merge is exact, with one rule for ties
Source: chapter 19
"""

import numpy as np


def merge(ids, scores, k):
    """Return the ids and scores of the k best of all shards, best first.

    ids, scores: a list of arrays each, one for each shard, of different lengths. Of equal scores
    the lower id comes first, whichever shard it is from. Returns two arrays (k,).
    """
    raise NotImplementedError
