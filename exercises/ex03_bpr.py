"""The BPR loss and its gradient.

Chapter: 3
Level: ★★
Learn: a loss must survive large margins; the gradient is a probability
Source: Rendle et al. (2009), section 4
"""

import numpy as np


def bpr(positive, negative):
    """Return the loss -ln sigmoid(positive - negative) and its gradient by positive.

    positive, negative: logits (n,). Returns two arrays (n,). No margin may overflow: with a
    margin of -1000 the loss is 1000 and the gradient -1.
    """
    raise NotImplementedError
