"""The generator: seeded, like the real thing, and with something to learn in it."""

from __future__ import annotations

import numpy as np
import pytest

from recsys_lib.data import load_dataset, make_synthetic
from recsys_lib.data.synthetic import PRESETS, SyntheticConfig


@pytest.fixture(scope="module", params=sorted(PRESETS))
def preset(request):
    return request.param


@pytest.fixture(scope="module")
def data(preset):
    return make_synthetic(preset)


def test_size_and_columns(preset, data):
    assert data.is_synthetic
    assert 1_000 <= data.num_users <= 2_000
    assert 400 <= data.num_items <= 1_500
    assert 35_000 <= len(data) <= 100_000
    assert (data.ratings is None) == (preset == "news")
    assert len(set(data.item_names)) == data.num_items
    assert all(
        text.startswith(name) for name, text in zip(data.item_names, data.item_texts, strict=True)
    )
    assert np.bincount(data.user_ids, minlength=data.num_users).min() >= 4


def test_same_seed_same_rows(preset, data):
    again = load_dataset("synthetic", preset=preset, seed=0)
    other = make_synthetic(preset, seed=1)
    for column in ("user_ids", "item_ids", "ratings", "timestamps"):
        assert np.array_equal(getattr(data, column), getattr(again, column))
    assert data.item_texts == again.item_texts
    assert data.item_ids[:100].tolist() != other.item_ids[:100].tolist()


def test_popularity_is_a_power_law(data):
    counts = np.sort(np.bincount(data.item_ids, minlength=data.num_items))[::-1]
    assert counts[: data.num_items // 10].sum() > 0.3 * len(data)
    head = slice(1, data.num_items // 2)
    slope = np.polyfit(np.log(np.arange(data.num_items)[head]), np.log(counts[head]), 1)[0]
    assert -1.6 < slope < -0.4


def test_rows_are_in_order_of_time(preset, data):
    assert (np.diff(data.timestamps) >= 0).all()
    span_days = (data.timestamps[-1] - data.timestamps[0]) / 86_400
    assert span_days == pytest.approx(PRESETS[preset].span_days, rel=0.7)


def test_ratings_fit_the_domain(preset, data):
    if preset == "video":
        assert set(np.unique(data.ratings)) == {1, 2, 3, 4, 5}
        assert 3 < data.ratings.mean() < 4.2
    elif preset != "news":
        assert data.ratings.min() >= 1
        assert (data.ratings == np.round(data.ratings)).all()
        assert data.ratings.mean() > np.median(data.ratings)


def test_repeats_only_in_shops(preset, data):
    pairs = data.to_csr("count")
    share = 1 - pairs.nnz / len(data)
    assert share == pytest.approx(PRESETS[preset].repeat_fraction, abs=0.02)


def test_factors_clearly_beat_popularity(data):
    """A truncated SVD against counts, leave-one-out, ranked against the whole catalogue."""
    train, test = data.split_leave_one_out()
    seen = train.to_csr().toarray()
    basis = np.random.default_rng(0).normal(size=(train.num_items, 8))
    for _ in range(20):  # subspace iteration: the 8 leading right singular vectors
        basis = np.linalg.qr(seen.T @ (seen @ basis))[0]

    def hit_rate_at_10(scores):
        scores = np.where(seen > 0, -np.inf, scores)
        positive = scores[test.user_ids, test.item_ids]
        return ((scores[test.user_ids] > positive[:, None]).sum(axis=1) < 10).mean()

    popularity = hit_rate_at_10(np.broadcast_to(seen.sum(axis=0), seen.shape))
    factors = hit_rate_at_10((seen @ basis) @ basis.T)
    assert factors > 1.3 * popularity


def test_texts_tell_tastes(data):
    """Items that share a user share words more often than items at random."""
    words = [set(text.split()) for text in data.item_texts]
    rng = np.random.default_rng(0)
    order = np.lexsort((rng.random(len(data)), data.user_ids))
    first, second = order[:-1], order[1:]
    same = data.user_ids[first] == data.user_ids[second]
    first, second = data.item_ids[first[same]][:5_000], data.item_ids[second[same]][:5_000]
    shuffled = rng.permutation(second)

    def overlap(a, b):
        return np.mean([len(words[i] & words[j]) for i, j in zip(a, b, strict=True) if i != j])

    assert overlap(first, second) > 1.15 * overlap(first, shuffled)


def test_star_ratings_can_be_learned():
    train, test = make_synthetic("video").split_random(seed=0)
    mean = train.ratings.mean()
    by_user = np.bincount(train.user_ids, train.ratings - mean, train.num_users)
    user_bias = by_user / (5 + np.bincount(train.user_ids, minlength=train.num_users))
    rest = train.ratings - mean - user_bias[train.user_ids]
    by_item = np.bincount(train.item_ids, rest, train.num_items)
    item_bias = by_item / (5 + np.bincount(train.item_ids, minlength=train.num_items))
    predicted = mean + user_bias[test.user_ids] + item_bias[test.item_ids]
    rmse = np.sqrt(np.mean((predicted - test.ratings) ** 2))
    assert rmse < 0.9 * test.ratings.std()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"domain": "films"}, "domain is"),
        ({"num_users": 1}, "num_users is"),
        ({"mean_items_per_user": 900.0}, "mean_items_per_user is"),
        ({"repeat_fraction": 1.0}, "repeat_fraction is"),
    ],
)
def test_bad_configurations(change, message):
    with pytest.raises(ValueError, match=message):
        SyntheticConfig(**{"domain": "video"} | change)
