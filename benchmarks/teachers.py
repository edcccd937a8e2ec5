"""The teacher of files that are trained for their bytes, as in chapter 14."""

from __future__ import annotations

from recsys_lib.compression.distillation import Ensemble
from recsys_lib.data import Interactions
from recsys_lib.models import EASE, IALS


def model_and_ease(model: IALS, train: Interactions) -> Ensemble:
    """Give four parts of the model and one of EASE, on one scale on unseen items."""
    return Ensemble([model, EASE(l2=200.0).fit(train)], [0.8, 0.2], exclude=train)
