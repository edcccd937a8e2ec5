"""A loss over a list.

Chapter: 23
Level: ★★
Learn: a second stage learns which of the candidates was chosen, not how good each of them is
Source: Cao et al. (2007); chapter 23
"""

import numpy as np


def list_softmax(facts, weights, chosen):
    """Return the mean loss over the lists, a float, and its gradient by the weights, (f,).

    facts: (n, c, f), of c candidates in each of n lists. weights: (f,); a candidate's score is the
    inner product of its facts and the weights. chosen: (n,), the candidate that was taken. The loss
    of a list is -log of the share that the chosen one has of exp(score), summed over the list. It
    must not overflow for scores of 1,000.
    """
    raise NotImplementedError
