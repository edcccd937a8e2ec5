"""Distillation: a small student learns from what a large teacher says, or from its weights."""

from recsys_lib.compression.distillation.agreement import Agreement, agreement
from recsys_lib.compression.distillation.distill import DistillationResult, distill
from recsys_lib.compression.distillation.ema import (
    AveragedModel,
    WeightAveraging,
    train_with_average,
)
from recsys_lib.compression.distillation.ensemble import Ensemble
from recsys_lib.compression.distillation.initialise import (
    start_from_teacher,
)
from recsys_lib.compression.distillation.mean_teacher import (
    MeanTeacher,
    train_mean_teacher,
)
from recsys_lib.compression.distillation.methods import (
    CollaborativeDistillation,
    DistillationExperts,
    RankingDistillation,
    RelaxedRankingDistillation,
    SoftLabels,
)
from recsys_lib.compression.distillation.soft_labels import (
    mix,
    score_regression,
    soft_sigmoid_cross_entropy,
    soft_softmax_cross_entropy,
    softmax_kl_divergence,
)
from recsys_lib.compression.distillation.teacher import TeacherScores

__all__ = [
    "Agreement",
    "AveragedModel",
    "CollaborativeDistillation",
    "DistillationExperts",
    "DistillationResult",
    "Ensemble",
    "MeanTeacher",
    "RankingDistillation",
    "RelaxedRankingDistillation",
    "SoftLabels",
    "TeacherScores",
    "WeightAveraging",
    "agreement",
    "distill",
    "mix",
    "score_regression",
    "soft_sigmoid_cross_entropy",
    "soft_softmax_cross_entropy",
    "softmax_kl_divergence",
    "start_from_teacher",
    "train_mean_teacher",
    "train_with_average",
]
