"""Models: closed-form and least-squares models, and a builder of Keras rating models.

Nothing here imports TensorFlow or Keras until ``build_rating_model`` is called.
"""

from recsys_lib.models.als import ALS, IALS
from recsys_lib.models.base import Recommender, load_model
from recsys_lib.models.closed_form import EASE, Popularity
from recsys_lib.models.factors import Factors, as_factors, inner_product_vectors
from recsys_lib.models.mf import MF
from recsys_lib.models.rating_model import RatingModelConfig, build_rating_model
from recsys_lib.models.topk import top_k

__all__ = [
    "ALS", "EASE", "IALS", "MF", "Factors", "Popularity", "RatingModelConfig", "Recommender",
    "as_factors", "build_rating_model", "inner_product_vectors", "load_model", "top_k",
]  # fmt: skip
