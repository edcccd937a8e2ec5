"""A solution of ex18_batch_gradient."""


def batch_gradient(means, counts):
    """Return what the exercise asks for."""
    busy = counts > 0
    return counts[busy] @ means[busy] / counts.sum()
