"""Nothing depends on the last bit of a score, which is not the same on every processor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys_lib.data import Split, make_synthetic, sample_negatives
from recsys_lib.data.synthetic import SyntheticConfig
from recsys_lib.evaluation import evaluate_full_ranking, evaluate_leave_one_out, metrics
from recsys_lib.models import EASE, IALS, Popularity


@pytest.fixture(scope="module")
def split() -> Split:
    data = make_synthetic(SyntheticConfig("video", 120, 160, 40), seed=1)
    train, test = data.split_leave_one_out()
    return Split(train, test, sample_negatives(train, test, 40))


def results(model: Any, split: Split) -> list[NDArray[np.float64]]:
    given = evaluate_leave_one_out(model, split, k=10)
    full = evaluate_full_ranking(model, split.train, split.test, k=10)
    return [r for result in (given, full) for r in (result.hit_rate_per_user, result.ndcg_per_user)]


@pytest.mark.parametrize(
    "model",
    [Popularity(), EASE(l2=50.0), IALS(embedding_dim=8, epochs=3)],
    ids=lambda model: type(model).__name__,
)
def test_quality_of_real_models(request: pytest.FixtureRequest, model: Any, split: Split) -> None:
    model.fit(split.train)
    if isinstance(model, IALS):
        model.item_vectors[1::2] = model.item_vectors[::2]
    calm, lists = results(model, split), model.recommend(np.arange(20), k=10)
    request.getfixturevalue("shaken_scores")
    np.testing.assert_array_equal(model.recommend(np.arange(20), k=10), lists)
    for first, second in zip(calm, results(model, split), strict=True):
        np.testing.assert_array_equal(second, first)


@pytest.mark.slow
def test_four_digits_of_ease(real_data: Callable[[str], Any], shaken_scores: None) -> None:
    split = real_data("ncf-ml-1m")
    result = evaluate_leave_one_out(EASE(l2=1320).fit(split.train), split, k=10)
    assert (round(result.hit_rate, 4), round(result.ndcg, 4)) == (0.7192, 0.4494)


def test_the_shaking_shakes(shaken_scores: None) -> None:
    scores = np.append(np.full(50, 0.3, np.float32), np.float32(-np.inf))[None]
    moved = metrics.as_scores("scores", scores)
    assert len(np.unique(moved)) == 4  # below, there, above, and never
    np.testing.assert_allclose(moved, scores, rtol=1e-6)
