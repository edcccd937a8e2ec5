"""Transform coding keeps its promise about scores; rate-distortion optimised tables rank better."""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest

from recsys_lib.compression import with_weights
from recsys_lib.compression.quantization import (
    RateDistortion,
    TransformCoding,
    UniformQuantization,
    quantize,
)
from recsys_lib.compression.tensors import read_tensor
from recsys_lib.data import Interactions
from recsys_lib.models import ALS, EASE, IALS, Popularity

RANDOM = np.random.default_rng(0)
TASTE = RANDOM.normal(size=(600, 4)) @ RANDOM.normal(size=(4, 300)) + RANDOM.normal(size=(600, 300))
USERS, ITEMS = np.nonzero(TASTE > 2.5)
SHAPE = {"num_users": 600, "num_items": 300}
TRAIN = Interactions(USERS, ITEMS, **SHAPE)
RATED = Interactions(USERS, ITEMS, ratings=TASTE[USERS, ITEMS], **SHAPE)
FEW = Interactions(USERS[:2000], ITEMS[:2000], num_users=610, num_items=310)
SEEN = TRAIN.to_csr().toarray() > 0
EVERYBODY = np.arange(600)


@pytest.fixture(scope="module")
def model():
    return IALS(embedding_dim=24, epochs=4).fit(TRAIN)


def rate_distortion(model, *options, train=TRAIN, teacher=None, epochs=2, **more):
    return quantize(model, RateDistortion(*options, epochs=epochs, **more), train=train,
                    teacher=teacher)  # fmt: skip


def score_error(model, other, users=EVERYBODY):
    exact = model.score_all_items(users)
    off = other.score_all_items(users) - exact
    return float(np.sqrt((off**2).mean() / (exact**2).mean()))


def agreement(model, other):
    """Mean share of the unseen top 20 that two models have in common."""
    scores = [np.where(SEEN, -np.inf, m.score_all_items(EVERYBODY)) for m in (model, other)]
    tops = zip(*(np.argsort(-s, axis=1)[:, :20] for s in scores), strict=True)
    return float(np.mean([len(np.intersect1d(*pair)) / 20 for pair in tops]))


@pytest.mark.parametrize("scale_users", [True, False])
def test_scores_are_as_near_as_asked_for_and_more_error_is_fewer_bytes(model, scale_users):
    sizes = []
    for asked in (0.05, 0.1, 0.3):
        coded = quantize(model, TransformCoding(asked, scale_users))
        # The bound takes no account of the wider zero.
        assert 0.3 * asked < score_error(model, coded) < 1.1 * asked
        sizes.append(coded.nbytes)
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < 0.6 * sizes[0]


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_less_error_than_row_wise_rounding_in_fewer_bytes(model, bits):
    plain = quantize(model, UniformQuantization(bits, granularity="row"))
    limit = score_error(model, plain)
    coded = quantize(model, TransformCoding(limit, scale_users=False))
    assert score_error(model, coded) < 1.1 * limit
    assert coded.nbytes < 0.85 * plain.nbytes


def test_row_scales_serve_users_with_small_scores(model):
    small = model.user_vectors * np.where(EVERYBODY < 300, 0.1, 1.0).astype("f4")[:, None]
    uneven = with_weights(model, {"user_vectors": small})
    with_scales, without = (
        score_error(uneven, quantize(uneven, TransformCoding(0.2, scales)), np.arange(300))
        for scales in (True, False)
    )
    assert with_scales**2 < 0.6 * without**2
    flat, none = (
        quantize(model, TransformCoding(0.1, **options)).model.user_vectors
        for options in ({"user_exponent": 0.0}, {"scale_users": False})
    )
    np.testing.assert_allclose(flat, none, rtol=1e-5)


def test_rounding_up_later_makes_zeros_and_fewer_bytes(model):
    early, late = (quantize(model, TransformCoding(0.1, round_up_from=u)) for u in (0.5, 0.7))
    assert late.nbytes < early.nbytes
    assert late.report.sparsity > early.report.sparsity


def test_sizes_as_contexts_give_equal_vectors_in_fewer_bytes(model):
    by_column, by_size = (
        quantize(model, TransformCoding(0.2, contexts=one)) for one in ("column", "size")
    )
    for name, tensor in by_size.tensors.items():
        before, after = (getattr(one.model, name) for one in (by_column, by_size))
        np.testing.assert_allclose(after, before, rtol=1e-6, atol=0)
        again = read_tensor(tensor.kind, tensor.header(), tensor.arrays())
        np.testing.assert_array_equal(again.decode(), after)
    assert by_size.nbytes < by_column.nbytes


def test_users_and_items_without_data_stay_zero_and_users_may_have_met_everything():
    model = IALS(embedding_dim=8, epochs=2).fit(FEW)
    coded = quantize(model, TransformCoding(0.1)).model
    assert (coded.item_vectors[300:] == 0).all()
    assert np.isfinite(coded.user_vectors).all()
    assert np.abs(coded.user_vectors[600:]).max() < 1e-3
    everything = Interactions([0] * 4 + [1, 2], [0, 1, 2, 3, 0, 1])
    small = IALS(embedding_dim=2, epochs=2).fit(everything)
    for one, train in ((model, FEW), (small, everything)):
        stored = rate_distortion(one, train=train)
        assert np.isfinite(stored.score_all_items(np.arange(train.num_users))).all()


def test_ranks_better_than_transform_coding_in_fewer_bytes(model):
    coded = quantize(model, TransformCoding(0.3))
    ours = rate_distortion(model, 7e-4, epochs=60)
    assert ours.nbytes < coded.nbytes
    assert agreement(model, ours) > agreement(model, coded) + 0.02


def test_a_higher_price_buys_fewer_bytes_and_less_agreement(model):
    results = [rate_distortion(model, price, epochs=20) for price in (2e-4, 1e-3, 5e-3)]
    for dear, cheap in pairwise(results):
        assert cheap.nbytes < 0.85 * dear.nbytes
        assert agreement(model, cheap) < agreement(model, dear)


def test_optimising_is_what_helps_and_not_the_start(model):
    short, long = (rate_distortion(model, 2e-3, epochs=epochs) for epochs in (1, 60))
    assert long.nbytes < short.nbytes
    assert agreement(model, long) > agreement(model, short)


def test_what_is_stored_is_what_scores_and_parts_make_it_again(model):
    before = model.user_vectors.copy(), model.item_vectors.copy()
    stored = rate_distortion(model)
    for name, tensor in stored.tensors.items():
        again = read_tensor(tensor.kind, tensor.header(), tensor.arrays())
        np.testing.assert_array_equal(again.decode(), tensor.decode())
        np.testing.assert_array_equal(getattr(stored.model, name), tensor.decode())
    assert stored.nbytes == stored.report.bytes_after
    assert stored.model.recommend([0], k=3).shape == (1, 3)
    np.testing.assert_array_equal(before[0], model.user_vectors)
    np.testing.assert_array_equal(before[1], model.item_vectors)


def test_a_teacher_is_what_is_imitated(model):
    teacher = EASE(l2=20.0).fit(TRAIN)
    alone = rate_distortion(model, 4e-4, epochs=40)
    taught = rate_distortion(model, 4e-4, epochs=40, teacher=teacher)
    assert agreement(teacher, taught) > agreement(teacher, alone) + 0.02
    assert agreement(model, taught) < agreement(model, alone)
    itself, same = (rate_distortion(model, teacher=one).model for one in (model, None))
    np.testing.assert_allclose(itself.item_vectors, same.item_vectors, rtol=1e-4, atol=1e-4)


def test_item_biases_are_part_of_what_is_imitated():
    model = ALS(embedding_dim=4, epochs=3).fit(RATED)
    model.item_biases = (model.item_biases * 20).astype(np.float32)
    stored = rate_distortion(model, 1e-5, epochs=30)
    assert agreement(model, stored) > 0.8
    model.item_biases = model.item_biases[::-1].copy()
    assert agreement(model, stored) < 0.5


def changed(model, **weights):
    other = copy.copy(model)
    for name, value in weights.items():
        setattr(other, name, np.full_like(getattr(model, name), value))
    return other


OTHER = Interactions([0, 1], [0, 1])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: TransformCoding(-1), ValueError, "relative_error is"),
        (lambda m: TransformCoding(user_exponent=1.5), ValueError, "user_exponent is"),
        (lambda m: TransformCoding(round_up_from=0.4), ValueError, "round_up_from is"),
        (lambda m: TransformCoding(contexts="row"), ValueError, "contexts is"),
        (lambda m: quantize(Popularity().fit(TRAIN), TransformCoding()), TypeError, "Popularity"),
        (lambda m: quantize(m, TransformCoding(1e-5)), ValueError, "allow a larger error"),
        (lambda m: quantize(changed(m, user_vectors=0), TransformCoding()), ValueError,
         "scores 0 everywhere"),
        (lambda m: RateDistortion(0), ValueError, "rate_weight is 0"),
        (lambda m: RateDistortion(embedding_dim=1.5), TypeError, r"embedding_dim is 1\.5"),
        (lambda m: rate_distortion(Popularity().fit(TRAIN)), TypeError, "Popularity"),
        (lambda m: rate_distortion(m, train=None), TypeError, "expected Interactions"),
        (lambda m: rate_distortion(m, train=OTHER), ValueError, "train counts 2 users"),
        (lambda m: rate_distortion(m, teacher="EASE"), TypeError, "teacher is of type str"),
        (lambda m: rate_distortion(m, teacher=EASE(l2=1.0).fit(OTHER)), ValueError,
         "teacher counts 2 users and 2 items"),
        (lambda m: rate_distortion(m, teacher=changed(m, item_vectors=np.nan)), ValueError,
         "teacher gives scores that are NaN"),
    ],
)  # fmt: skip
def test_refuses(model, call, error, message):
    with pytest.raises(error, match=message):
        call(model)
