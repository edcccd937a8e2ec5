"""Rate-distortion optimised tables rank better than rounded ones of equal bytes."""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest

from recsys_lib.compression.quantization import RateDistortion, TransformCoding, quantize
from recsys_lib.compression.tensors import read_tensor
from recsys_lib.data import Interactions
from recsys_lib.models import ALS, EASE, IALS, Popularity

RANDOM = np.random.default_rng(0)
TASTE = RANDOM.normal(size=(600, 4)) @ RANDOM.normal(size=(4, 300)) + RANDOM.normal(size=(600, 300))
TRAIN = Interactions(*np.nonzero(TASTE > 2.5), num_users=600, num_items=300)
SEEN = TRAIN.to_csr().toarray() > 0


@pytest.fixture(scope="module")
def model() -> IALS:
    return IALS(embedding_dim=24, epochs=4).fit(TRAIN)


def unseen_top(model: object, k: int = 20) -> list[set[int]]:
    scores = model.score_all_items(np.arange(600))  # type: ignore[attr-defined]
    ranked = np.argsort(-np.where(SEEN, -np.inf, scores), axis=1)[:, :k]
    return [set(row) for row in ranked.tolist()]


def agreement(model: object, other: object) -> float:
    """Mean share of the unseen top 20 that two models have in common."""
    both = zip(unseen_top(model), unseen_top(other), strict=True)
    return float(np.mean([len(a & b) / 20 for a, b in both]))


def test_ranks_better_than_transform_coding_in_fewer_bytes(model: IALS) -> None:
    coded = quantize(model, TransformCoding(0.3))
    ours = quantize(model, RateDistortion(7e-4, epochs=60), train=TRAIN)
    assert ours.nbytes < coded.nbytes
    assert agreement(model, ours) > agreement(model, coded) + 0.02


def test_a_higher_price_buys_fewer_bytes_and_less_agreement(model: IALS) -> None:
    results = [
        quantize(model, RateDistortion(price, epochs=20), train=TRAIN)
        for price in (2e-4, 1e-3, 5e-3)
    ]
    for dear, cheap in pairwise(results):
        assert cheap.nbytes < 0.85 * dear.nbytes
        assert agreement(model, cheap) < agreement(model, dear)


def test_optimising_is_what_helps_and_not_the_start(model: IALS) -> None:
    short, long = (
        quantize(model, RateDistortion(2e-3, epochs=epochs), train=TRAIN) for epochs in (1, 60)
    )
    assert long.nbytes < short.nbytes
    assert agreement(model, long) > agreement(model, short)


def test_what_is_stored_is_what_scores_and_parts_make_it_again(model: IALS) -> None:
    before = model.user_vectors.copy(), model.item_vectors.copy()
    stored = quantize(model, RateDistortion(epochs=2), train=TRAIN)
    for name, tensor in stored.tensors.items():
        again = read_tensor(tensor.kind, tensor.header(), tensor.arrays())
        np.testing.assert_array_equal(again.decode(), tensor.decode())
        np.testing.assert_array_equal(getattr(stored.model, name), tensor.decode())
    assert stored.nbytes == stored.report.bytes_after
    assert stored.model.recommend([0], k=3).shape == (1, 3)
    np.testing.assert_array_equal(before[0], model.user_vectors)
    np.testing.assert_array_equal(before[1], model.item_vectors)


def test_a_teacher_is_what_is_imitated(model: IALS) -> None:
    teacher = EASE(l2=20.0).fit(TRAIN)
    config = RateDistortion(4e-4, epochs=40)
    alone = quantize(model, config, train=TRAIN)
    taught = quantize(model, config, train=TRAIN, teacher=teacher)
    assert agreement(teacher, taught) > agreement(teacher, alone) + 0.02
    assert agreement(model, taught) < agreement(model, alone)
    itself = quantize(model, RateDistortion(epochs=2), train=TRAIN, teacher=model)
    same = quantize(model, RateDistortion(epochs=2), train=TRAIN)
    np.testing.assert_allclose(
        itself.model.item_vectors, same.model.item_vectors, rtol=1e-4, atol=1e-4
    )


def test_a_bad_teacher_is_named(model: IALS) -> None:
    config = RateDistortion(epochs=1)
    with pytest.raises(TypeError, match=r"teacher is of type str: expected a model with score_all"):
        quantize(model, config, train=TRAIN, teacher="EASE")
    other = EASE(l2=1.0).fit(Interactions([0, 1], [0, 1]))
    with pytest.raises(ValueError, match=r"teacher counts 2 users and 2 items"):
        quantize(model, config, train=TRAIN, teacher=other)
    broken = copy.copy(model)
    broken.item_vectors = np.full_like(model.item_vectors, np.nan)
    with pytest.raises(ValueError, match="teacher gives scores that are NaN"):
        quantize(model, config, train=TRAIN, teacher=broken)


def test_same_seed_same_tables(model: IALS) -> None:
    config = RateDistortion(epochs=2, seed=3)
    one, two = (quantize(model, config, train=TRAIN) for _ in range(2))
    np.testing.assert_array_equal(one.model.item_vectors, two.model.item_vectors)


def test_other_factor_models_and_users_and_items_without_data() -> None:
    pairs = TRAIN.take(np.arange(2000))
    data = Interactions(pairs.user_ids, pairs.item_ids, num_users=610, num_items=310)
    ratings = Interactions(
        pairs.user_ids,
        pairs.item_ids,
        ratings=TASTE[pairs.user_ids, pairs.item_ids],
        num_users=610,
        num_items=310,
    )
    models = (
        IALS(embedding_dim=8, epochs=2).fit(data),
        ALS(embedding_dim=4, epochs=2).fit(ratings),
    )
    for model in models:
        stored = quantize(model, RateDistortion(epochs=2), train=data)
        assert np.isfinite(stored.model.user_vectors).all()
        assert np.isfinite(stored.score_all_items([609])).all()


def test_a_user_who_has_met_everything() -> None:
    everything = Interactions([0] * 4 + [1, 2], [0, 1, 2, 3, 0, 1])
    model = IALS(embedding_dim=2, epochs=2).fit(everything)
    stored = quantize(model, RateDistortion(epochs=2), train=everything)
    assert np.isfinite(stored.score_all_items([0, 1, 2])).all()


def test_item_biases_are_part_of_what_is_imitated() -> None:
    rated = Interactions(
        TRAIN.user_ids,
        TRAIN.item_ids,
        ratings=TASTE[TRAIN.user_ids, TRAIN.item_ids],
        num_users=600,
        num_items=300,
    )
    model = ALS(embedding_dim=4, epochs=3).fit(rated)
    model.item_biases = (model.item_biases * 20).astype(np.float32)
    stored = quantize(model, RateDistortion(1e-5, epochs=30), train=TRAIN)
    assert agreement(model, stored) > 0.8
    model.item_biases = model.item_biases[::-1].copy()
    assert agreement(model, stored) < 0.5


def test_bad_input_is_named(model: IALS) -> None:
    with pytest.raises(ValueError, match="rate_weight is 0"):
        RateDistortion(0)
    with pytest.raises(TypeError, match=r"embedding_dim is 1\.5"):
        RateDistortion(embedding_dim=1.5)  # type: ignore[arg-type]
    config = RateDistortion(epochs=1)
    with pytest.raises(TypeError, match="Popularity"):
        quantize(Popularity().fit(TRAIN), config, train=TRAIN)
    with pytest.raises(TypeError, match="expected Interactions"):
        quantize(model, config)
    with pytest.raises(ValueError, match="train counts 2 users"):
        quantize(model, config, train=Interactions([0, 1], [0, 1]))
