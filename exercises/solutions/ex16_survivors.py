"""A solution of ex16_survivors."""

import numpy as np


def survivors(rounded, error_lengths, user_vector, k):
    """Return what the exercise asks for."""
    scores = rounded @ user_vector
    slack = error_lengths * np.linalg.norm(user_vector)
    threshold = np.sort(scores - slack)[-k]
    return scores + slack >= threshold
