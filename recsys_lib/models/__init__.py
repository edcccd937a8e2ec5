"""Models: closed-form baselines in NumPy, and a builder of Keras rating models.

Nothing here imports TensorFlow or Keras until ``build_rating_model`` is called.
"""

from recsys_lib.models.als import ALS
from recsys_lib.models.base import Recommender
from recsys_lib.models.ease import EASE
from recsys_lib.models.factors import Factors, FoldIn, as_factors
from recsys_lib.models.ials import IALS
from recsys_lib.models.inner_product import inner_product_vectors
from recsys_lib.models.popularity import Popularity
from recsys_lib.models.rating_model import RatingModelConfig, build_rating_model
from recsys_lib.models.saving import load_model
from recsys_lib.models.topk import top_k

__all__ = [
    "ALS",
    "EASE",
    "IALS",
    "Factors",
    "FoldIn",
    "Popularity",
    "RatingModelConfig",
    "Recommender",
    "as_factors",
    "build_rating_model",
    "inner_product_vectors",
    "load_model",
    "top_k",
]
