"""Distillation: a small student learns from what a large teacher says, or from its weights."""

from recsys_lib.compression.distillation.soft_labels import (
    mix,
    score_regression,
    soft_sigmoid_cross_entropy,
    soft_softmax_cross_entropy,
    softmax_kl_divergence,
)

__all__: list[str] = [
    "mix",
    "score_regression",
    "soft_sigmoid_cross_entropy",
    "soft_softmax_cross_entropy",
    "softmax_kl_divergence",
]
