"""A solution of ex23_list_softmax."""

import numpy as np


def list_softmax(facts, weights, chosen):
    """Return what the exercise asks for."""
    scores, lists = facts @ weights, np.arange(len(facts))
    scores = scores - scores.max(axis=1, keepdims=True)
    log_total = np.log(np.exp(scores).sum(axis=1))
    shares = np.exp(scores - log_total[:, None])
    expected = np.einsum("nc,ncf->nf", shares, facts)
    loss = (log_total - scores[lists, chosen]).mean()
    return float(loss), (expected - facts[lists, chosen]).mean(axis=0)
