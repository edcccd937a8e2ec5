"""Evaluation: metrics on ranked lists and ratings, and the protocols that use them."""

from recsys_lib.evaluation.metrics import (
    RankingResult,
    RatingResult,
    hit_rate_at_k,
    mae,
    ndcg_at_k,
    recall_at_k,
    rmse,
)
from recsys_lib.evaluation.paired import Change, paired_change, segments, thirds
from recsys_lib.evaluation.protocols import (
    evaluate_cold_items,
    evaluate_full_ranking,
    evaluate_leave_one_out,
    evaluate_ratings,
)

__all__ = [
    "Change", "RankingResult", "RatingResult", "evaluate_cold_items", "evaluate_full_ranking",
    "evaluate_leave_one_out", "evaluate_ratings", "hit_rate_at_k", "mae", "ndcg_at_k",
    "paired_change", "recall_at_k", "rmse", "segments", "thirds",
]  # fmt: skip
