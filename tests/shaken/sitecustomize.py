"""Moves every float32 score by a unit in its last place, up, down or not, before it is ranked.

Another processor's sums differ by as much, and no result may depend on it. Python imports this file
at its start where the folder is on PYTHONPATH: so run_tests.py --shaken runs the chapters.
"""

import functools
import importlib.util
import sys

MODULE = "recsys_lib.evaluation.metrics"  # all scores that are ranked pass its as_scores


def shaken(as_scores):
    """Return a function like ``as_scores`` whose results are moved."""
    import numpy as np

    rng = np.random.default_rng(0)

    @functools.wraps(as_scores)
    def run(*args, **options):
        scores = np.asarray(as_scores(*args, **options))
        if scores.dtype != np.float32:
            return scores
        towards = rng.choice(np.array([-np.inf, 0, np.inf], np.float32), scores.shape)
        moved = np.nextafter(scores, np.where(towards == 0, scores, towards))
        return np.where(np.isfinite(scores), moved, scores)

    return run


class Finder:
    """Lets the others find that module, and changes its function as soon as it is there."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name != MODULE:
            return None
        sys.meta_path.remove(cls)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            module.as_scores = shaken(module.as_scores)

        spec.loader.exec_module = exec_module
        return spec


if __name__ == "sitecustomize":
    sys.meta_path.insert(0, Finder)
