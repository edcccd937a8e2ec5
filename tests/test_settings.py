"""Every setting of every config is checked when it is made, and kept as Python's own number."""

from dataclasses import fields, replace

import numpy as np
import pytest

from recsys_lib.compression import distillation as d
from recsys_lib.compression import embedding_tables as e
from recsys_lib.compression import pruning as p
from recsys_lib.compression import quantization as q
from recsys_lib.compression.tfmot import TwinTraining
from recsys_lib.data.synthetic import SyntheticConfig
from recsys_lib.models import RatingModelConfig
from recsys_lib.models.factors import FoldIn
from recsys_lib.recipe import Distill, ReduceDimensions
from recsys_lib.serving.service import ServiceConfig
from recsys_lib.text import TextEncoderConfig
from recsys_lib.text.students import HashedText
from recsys_lib.text.training import TextTraining

CONFIGS = [
    *(q.UniformQuantization(), q.CodebookQuantization(4, 2), q.ProductQuantization(4)),
    *(q.ResidualQuantization(2), q.SignQuantization(), q.TransformCoding(), q.EntropyCoding()),
    *(q.RateDistortion(max_seconds=1.0), q.IntegerQuantization(), q.WeightGroups(0, [0])),
    *(p.WeightPruning(), p.NeuronPruning(0.5), p.LayerRemoval(0), p.DimensionReduction(4)),
    *(p.RowRemoval(2), p.PolynomialSchedule(9), e.Hashing(4), e.QuotientRemainder(4)),
    *(e.LowRank(2), e.RowwiseBits(), e.MixedDimension(), d.SoftLabels(items_per_update=2)),
    *(d.DistillationExperts(), d.RankingDistillation(), d.CollaborativeDistillation()),
    *(d.RelaxedRankingDistillation(), d.MeanTeacher(), d.WeightAveraging(), FoldIn(1.0, 1.0)),
    *(RatingModelConfig("neumf", 2, 3), TextEncoderConfig(), HashedText(embedding_dim=2)),
    *(TextTraining(), Distill(4), ReduceDimensions(4), TwinTraining(), SyntheticConfig("news")),
    ServiceConfig(),
]
ANY_SIZE = {"global_bias"}
NOT_CHECKED = {"activation", "optimizer"}  # names that Keras knows
SETTINGS = [
    pytest.param(config, field.name, id=f"{type(config).__name__}-{field.name}")
    for config in CONFIGS
    for field in fields(config)
    if isinstance(getattr(config, field.name), bool | int | float | str)
    and field.name not in NOT_CHECKED
]


@pytest.mark.parametrize(("config", "name"), SETTINGS)
def test_settings(config, name):
    value = getattr(config, name)
    wrong = [object()] if isinstance(value, bool) or name in ANY_SIZE else [object(), "x", -7]
    for bad in [*wrong, np.nan][: 4 if isinstance(value, int | float) else 2]:
        with pytest.raises((TypeError, ValueError), match=name):
            replace(config, **{name: bad})
    again = replace(config, **{name: np.array(value)[()]})
    assert again == config or type(config).__name__ == "WeightGroups"
    if not isinstance(value, str):
        assert type(getattr(again, name)) is type(value)
