"""Nothing depends on the last bit of a score, which is not the same on every processor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys_lib.data import Split, make_synthetic, sample_negatives
from recsys_lib.data.synthetic import SyntheticConfig
from recsys_lib.evaluation import evaluate_full_ranking, evaluate_leave_one_out, metrics
from recsys_lib.models import EASE, IALS, Popularity


@dataclass
class _Twice:
    """A model whose items come in pairs with the same vector, and so the same score."""

    user_vectors: NDArray[np.float32]
    item_vectors: NDArray[np.float32]

    def score(self, user_ids: Any, item_ids: Any) -> NDArray[np.float32]:
        return np.einsum("nd,nd->n", self.user_vectors[user_ids], self.item_vectors[item_ids])

    def score_all(self, user_ids: Any) -> NDArray[np.float32]:
        return self.user_vectors[user_ids] @ self.item_vectors.T


@pytest.fixture(scope="module")
def split() -> Split:
    data = make_synthetic(SyntheticConfig("video", 120, 160, 40), seed=1)
    train, test = data.split_leave_one_out()
    return Split(train, test, sample_negatives(train, test, 40))


@pytest.fixture(scope="module")
def twice(split: Split) -> _Twice:
    rng = np.random.default_rng(0)
    items = rng.normal(size=(split.num_items // 2, 24)).astype(np.float32)
    users = rng.normal(size=(split.num_users, 24)).astype(np.float32)
    return _Twice(users, np.repeat(items, 2, axis=0))


def results(model: Any, split: Split) -> list[NDArray[np.float64]]:
    given = evaluate_leave_one_out(model, split, k=10)
    full = evaluate_full_ranking(model, split.train, split.test, k=10)
    return [r for result in (given, full) for r in (result.hit_rate_per_user, result.ndcg_per_user)]


@pytest.fixture(scope="module")
def before(twice: _Twice, split: Split) -> list[NDArray[np.float64]]:
    return results(twice, split)


def test_ranks_of_tied_items(
    before: list[NDArray[np.float64]], shaken_scores: None, twice: _Twice, split: Split
) -> None:
    for calm, shaken in zip(before, results(twice, split), strict=True):
        np.testing.assert_array_equal(shaken, calm)


@pytest.mark.parametrize(
    "model",
    [Popularity(), EASE(l2=50.0), IALS(embedding_dim=8, epochs=3)],
    ids=lambda model: type(model).__name__,
)
def test_quality_of_real_models(request: pytest.FixtureRequest, model: Any, split: Split) -> None:
    model.fit(split.train)
    calm = results(model, split)
    request.getfixturevalue("shaken_scores")
    for first, second in zip(calm, results(model, split), strict=True):
        np.testing.assert_array_equal(second, first)


def test_recommendations_with_equal_vectors(request: pytest.FixtureRequest, split: Split) -> None:
    model = IALS(embedding_dim=8, epochs=3).fit(split.train)
    model.item_vectors[1::2] = model.item_vectors[::2]
    calm = model.recommend(np.arange(20), k=10)
    request.getfixturevalue("shaken_scores")
    np.testing.assert_array_equal(model.recommend(np.arange(20), k=10), calm)


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
