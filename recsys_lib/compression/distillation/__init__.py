"""Distillation: a small student learns from what a large teacher says, or from its weights."""

from recsys_lib.compression.distillation.agreement import Agreement, agreement
from recsys_lib.compression.distillation.distill import DistillationResult, distill
from recsys_lib.compression.distillation.ensemble import Ensemble
from recsys_lib.compression.distillation.methods import (
    CollaborativeDistillation,
    DistillationExperts,
    RankingDistillation,
    RelaxedRankingDistillation,
    SoftLabels,
)
from recsys_lib.compression.distillation.teacher import TeacherScores

__all__ = [
    "Agreement",
    "CollaborativeDistillation",
    "DistillationExperts",
    "DistillationResult",
    "Ensemble",
    "RankingDistillation",
    "RelaxedRankingDistillation",
    "SoftLabels",
    "TeacherScores",
    "agreement",
    "distill",
]
