"""The generator: seeded, like the real thing, and with something to learn in it."""

import numpy as np
import pytest
from scipy.sparse.linalg import svds

from recsys_lib.data import load_dataset, make_synthetic
from recsys_lib.data.synthetic import PRESETS, SyntheticConfig
from recsys_lib.evaluation import evaluate_full_ranking
from recsys_lib.models import Popularity
from recsys_lib.models.factors import Factors


@pytest.fixture(scope="module", params=sorted(PRESETS))
def preset(request):
    return request.param


@pytest.fixture(scope="module")
def data(preset):
    return make_synthetic(preset)


def test_size_and_seed(preset, data):
    assert data.is_synthetic
    assert 1_000 <= data.num_users <= 2_000 and 400 <= data.num_items <= 1_500
    assert 35_000 <= len(data) <= 100_000
    assert (data.ratings is None) == (preset == "news")
    assert len(set(data.item_names)) == data.num_items
    assert all(map(str.startswith, data.item_texts, data.item_names))
    assert np.bincount(data.user_ids, minlength=data.num_users).min() >= 4
    again = load_dataset("synthetic", preset=preset, seed=0)
    for column in ("user_ids", "item_ids", "ratings", "timestamps", "item_texts"):
        assert np.array_equal(getattr(data, column), getattr(again, column))
    assert not np.array_equal(data.item_ids[:99], make_synthetic(preset, seed=1).item_ids[:99])


def test_shape(preset, data):
    counts = np.sort(np.bincount(data.item_ids, minlength=data.num_items))[::-1]
    assert counts[: data.num_items // 10].sum() > 0.3 * len(data)
    head = slice(1, data.num_items // 2)
    slope = np.polyfit(np.log(np.arange(data.num_items)[head]), np.log(counts[head]), 1)[0]
    assert -1.6 < slope < -0.4  # popularity is a power law
    assert (np.diff(data.timestamps) >= 0).all()
    span_days = (data.timestamps[-1] - data.timestamps[0]) / 86_400
    assert span_days == pytest.approx(PRESETS[preset].span_days, rel=0.7)
    share = 1 - data.to_csr("count").nnz / len(data)
    assert share == pytest.approx(PRESETS[preset].repeat_fraction, abs=0.02)
    if preset == "video":
        assert set(np.unique(data.ratings)) == {1, 2, 3, 4, 5}
        assert 3 < data.ratings.mean() < 4.2
    elif preset != "news":
        assert data.ratings.min() >= 1 and (data.ratings == np.round(data.ratings)).all()
        assert data.ratings.mean() > np.median(data.ratings)


def test_factors_beat_popularity(data):
    """A truncated SVD against counts, leave-one-out, ranked against the whole catalogue."""
    train, test = data.split_leave_one_out()
    vectors = svds(train.to_csr().astype(float), 8, rng=0)[2].T
    factors = Factors(vectors, train.to_csr() @ vectors)
    hits, popular = (
        evaluate_full_ranking(model, train, test, k=10).hit_rate
        for model in (factors, Popularity().fit(train))
    )
    assert hits > 1.3 * popular


def test_texts_of_a_user_are_alike(data):
    """Items that share a user share words more often than items at random."""
    rng, words = np.random.default_rng(0), [set(text.split()) for text in data.item_texts]
    order = np.lexsort((rng.random(len(data)), data.user_ids))
    same = np.flatnonzero(np.diff(data.user_ids[order]) == 0)[:5_000]
    first, second = data.item_ids[order][same], data.item_ids[order][same + 1]

    def overlap(a, b):
        return np.mean([len(words[i] & words[j]) for i, j in zip(a, b, strict=True) if i != j])

    assert overlap(first, second) > 1.15 * overlap(first, rng.permutation(second))


def test_star_ratings_can_be_learned():
    train, test = make_synthetic("video").split_random(seed=0)
    predicted, rest = train.ratings.mean(), train.ratings - train.ratings.mean()
    for side in ("user_ids", "item_ids"):  # means of users, then of items, drawn towards zero
        ids = getattr(train, side)
        bias = np.bincount(ids, rest) / (5 + np.bincount(ids))
        rest, predicted = rest - bias[ids], predicted + bias[getattr(test, side)]
    assert np.sqrt(np.mean((predicted - test.ratings) ** 2)) < 0.9 * test.ratings.std()


def test_refuses():
    for argument, value in {"domain": "films", "num_users": 1, "repeat_fraction": 1.0}.items():
        with pytest.raises(ValueError, match=f"{argument} is"):
            SyntheticConfig(**{"domain": "video"} | {argument: value})
