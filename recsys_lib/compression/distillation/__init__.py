"""Distillation: a small student learns from what a large teacher says, or from its weights.

One verb, :func:`distill`, takes any of the methods; :func:`start_from_teacher` copies what fits of
the teacher's weights; :func:`train_with_average` keeps a running average of the student's own.
"""

from recsys_lib.compression.distillation.averages import (
    AveragedModel,
    Consistency,
    MeanTeacher,
    WeightAverage,
    WeightAveraging,
    train_with_average,
)
from recsys_lib.compression.distillation.distill import DistillationResult, distill
from recsys_lib.compression.distillation.initialise import start_from_teacher
from recsys_lib.compression.distillation.losses import relaxed_ranking_loss, softmax_kl_divergence
from recsys_lib.compression.distillation.methods import DistillationExperts, SoftLabels
from recsys_lib.compression.distillation.ranked import (
    CollaborativeDistillation,
    RankingDistillation,
    RelaxedRankingDistillation,
)
from recsys_lib.compression.distillation.teacher import (
    Agreement,
    Ensemble,
    TeacherScores,
    agreement,
)

__all__ = [
    "Agreement", "AveragedModel", "CollaborativeDistillation", "Consistency",
    "DistillationExperts", "DistillationResult", "Ensemble", "MeanTeacher",
    "RankingDistillation", "RelaxedRankingDistillation", "SoftLabels", "TeacherScores",
    "WeightAverage", "WeightAveraging", "agreement", "distill", "relaxed_ranking_loss",
    "softmax_kl_divergence", "start_from_teacher", "train_with_average",
]  # fmt: skip
