"""Evaluation: metrics on ranked lists and ratings, and the protocols that use them."""

from recsys_lib.evaluation.metrics import hit_rate_at_k, mae, ndcg_at_k, recall_at_k, rmse
from recsys_lib.evaluation.protocols import (
    evaluate_full_ranking,
    evaluate_leave_one_out,
    evaluate_ratings,
)
from recsys_lib.evaluation.results import RankingResult, RatingResult

__all__ = [
    "RankingResult",
    "RatingResult",
    "evaluate_full_ranking",
    "evaluate_leave_one_out",
    "evaluate_ratings",
    "hit_rate_at_k",
    "mae",
    "ndcg_at_k",
    "recall_at_k",
    "rmse",
]
