"""Nothing depends on the last bit of a score, which is not the same on every processor."""

import numpy as np
import pytest

from recsys_lib.data import Split, make_synthetic, sample_negatives
from recsys_lib.data.synthetic import SyntheticConfig
from recsys_lib.evaluation import evaluate_full_ranking, evaluate_leave_one_out, metrics
from recsys_lib.models import EASE, IALS, Popularity
from recsys_lib.models.factors import Factors


@pytest.fixture(scope="module")
def split():
    data = make_synthetic(SyntheticConfig("video", 120, 160, 40), seed=1)
    train, test = data.split_leave_one_out()
    return Split(train, test, sample_negatives(train, test, 40))


def results(model, split):
    given = evaluate_leave_one_out(model, split, k=10)
    full = evaluate_full_ranking(model, split.train, split.test, k=10)
    return [r for result in (given, full) for r in (result.hit_rate_per_user, result.ndcg_per_user)]


@pytest.fixture
def same_when_shaken(request):
    """Check that a function returns the same arrays when the scores are moved."""

    def check(function, *args, **options):
        calm = function(*args, **options)
        request.getfixturevalue("shaken_scores")
        for first, second in zip(calm, function(*args, **options), strict=True):
            np.testing.assert_array_equal(second, first)

    return check


def test_ranks_of_tied_items(same_when_shaken, split):
    rng = np.random.default_rng(0)
    items = rng.normal(size=(split.num_items // 2, 24)).astype(np.float32)
    users = rng.normal(size=(split.num_users, 24)).astype(np.float32)
    same_when_shaken(results, Factors(np.repeat(items, 2, axis=0), users), split)


MODELS = {
    "popularity": Popularity(),
    "ease": EASE(l2=50.0),
    "ials": IALS(embedding_dim=8, epochs=3),
}


@pytest.mark.parametrize("name", MODELS)
def test_quality_of_real_models(same_when_shaken, name, split):
    same_when_shaken(results, MODELS[name].fit(split.train), split)


def test_recommendations_with_equal_vectors(same_when_shaken, split):
    model = IALS(embedding_dim=8, epochs=3).fit(split.train)
    model.item_vectors[1::2] = model.item_vectors[::2]
    same_when_shaken(model.recommend, np.arange(20), k=10)


@pytest.mark.slow
def test_four_digits_of_ease(real_data, shaken_scores):
    split = real_data("ncf-ml-1m")
    result = evaluate_leave_one_out(EASE(l2=1320).fit(split.train), split, k=10)
    assert (round(result.hit_rate, 4), round(result.ndcg, 4)) == (0.7192, 0.4494)


def test_the_shaking_shakes(shaken_scores):
    scores = np.append(np.full(50, 0.3, np.float32), np.float32(-np.inf))[None]
    moved = metrics.as_scores("scores", scores)
    assert len(np.unique(moved)) == 4  # below, there, above, and never
    np.testing.assert_allclose(moved, scores, rtol=1e-6)
