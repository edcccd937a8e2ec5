"""Training: a compiled epoch loop for Keras rating models, checkpoints, and a recommender."""

from recsys_lib.training.fit import fit
from recsys_lib.training.forward import KerasScorer
from recsys_lib.training.history import History
from recsys_lib.training.recommender import KerasRecommender
from recsys_lib.training.tune import Tuning, tune

__all__ = ["History", "KerasRecommender", "KerasScorer", "Tuning", "fit", "tune"]
