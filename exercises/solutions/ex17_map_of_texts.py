"""A solution of ex17_map_of_texts."""

import numpy as np


def map_of_texts(features, vectors, seen, l2):
    """Return what the exercise asks for."""
    known = features[seen]
    left = known.T @ known + l2 * np.eye(features.shape[1])
    return features @ np.linalg.solve(left, known.T @ vectors[seen])
