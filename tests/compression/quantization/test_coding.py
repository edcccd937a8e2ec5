"""Entropy coding loses nothing; coded tables of factor models keep what they promise."""

from __future__ import annotations

import copy
import json
import lzma
import zlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_lib.compression import with_weights
from recsys_lib.compression.pruning.tables import rotate_to_user_axes
from recsys_lib.compression.quantization import (
    CodebookQuantization,
    EntropyCoding,
    ProductQuantization,
    RateDistortion,
    TransformCoding,
    UniformQuantization,
    entropy_bits,
    quantize,
)
from recsys_lib.compression.quantization.transform import SteppedTensor
from recsys_lib.compression.tensors import DenseTensor, read_tensor
from recsys_lib.data import Interactions
from recsys_lib.models import ALS, EASE, IALS, Popularity

RANDOM = np.random.default_rng(0)


def table(rows=400, columns=12):
    return (RANDOM.normal(size=(rows, columns)) * np.geomspace(1, 0.1, columns)).astype(np.float32)


def through_bytes(tensor):
    header = json.loads(json.dumps(tensor.header()))
    again = read_tensor(tensor.kind, header, {n: a.copy() for n, a in tensor.arrays().items()})
    assert again.nbytes == tensor.nbytes
    return again


def geometric(rows, columns):
    """Draw two-sided geometric numbers of given mean size; and their entropy in bits."""
    mean = rows[:, None] * columns
    t = (np.sqrt(1 + mean**2) - 1) / mean
    numbers = RANDOM.geometric(1 - t) - RANDOM.geometric(1 - t)
    zero = (1 - t) / (1 + t)
    return numbers, float(-(np.log2(zero) + mean * np.log2(t)).sum())


def stepped(numbers):
    return SteppedTensor(numbers, np.ones(numbers.shape[1]))


@pytest.mark.parametrize("contexts", ["tensor", "column", "smallest"])
@pytest.mark.parametrize(
    "config", [UniformQuantization(4), CodebookQuantization(3, 1), ProductQuantization(4, 5)]
)
def test_a_coded_tensor_decodes_as_before_from_its_parts(config, contexts):
    inner = quantize(table(), config)
    coded = EntropyCoding(contexts).encode(inner)
    for one in (coded, through_bytes(coded)):
        np.testing.assert_array_equal(one.decode(), inner.decode())
        np.testing.assert_array_equal(one.decode_codes(), inner.codes)
    assert "codes" not in coded.arrays()


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 2000), st.integers(0, 2**32 - 1))
def test_signed_numbers_come_back_bit_by_bit(rows, columns, top, seed):
    rng = np.random.default_rng(seed)
    whole = rng.integers(-top, top + 1, (rows, columns)) * (rng.random((rows, columns)) < 0.3)
    inner = SteppedTensor(whole, rng.uniform(0.1, 1, columns))
    np.testing.assert_array_equal(inner.whole, whole)
    for contexts in ("tensor", "column", "size"):
        again = through_bytes(EntropyCoding(contexts).encode(inner))
        np.testing.assert_array_equal(again.decode(), inner.decode())


def test_the_entropy_is_shannons():
    assert entropy_bits([0, 1] * 8) == 16
    assert entropy_bits(np.zeros(9, int)) == 0
    codes = np.array([[0, 5], [0, 5], [0, 6]])
    assert entropy_bits(codes, "column") == pytest.approx(3 * np.log2(3) - 2)


def test_columns_as_contexts_pay_where_columns_differ():
    inner = quantize(table(3000), UniformQuantization(4, granularity="tensor"))
    tensor, column, smallest = (
        EntropyCoding(name).encode(inner).nbytes for name in ("tensor", "column", "smallest")
    )
    assert column == smallest < 0.93 * tensor
    same = quantize(table(40, 16), CodebookQuantization(4, 1))
    assert EntropyCoding().encode(same).contexts == "tensor"


def test_stored_bytes_with_tables_are_near_the_entropy_and_below_general_coders():
    inner = quantize(table(20_000, 8), CodebookQuantization(3))
    coded, bits = EntropyCoding("column").encode(inner), entropy_bits(inner.codes, "column")
    assert 8 * coded.arrays()["coded"].nbytes <= 1.002 * bits + 64
    assert 8 * coded.nbytes <= 1.02 * bits
    for data in (inner.arrays()["codes"].tobytes(), inner.codes.tobytes()):
        general = min(len(zlib.compress(data, 9)), len(lzma.compress(data)))
        assert coded.nbytes < 0.95 * general


def test_sizes_as_contexts_come_within_a_few_percent_of_the_law():
    numbers, bits = geometric(2.0 ** RANDOM.uniform(-3, 3, 4000), 2.0 ** RANDOM.uniform(-3, 1, 64))
    by_size, by_column = (
        EntropyCoding(name).encode(stepped(numbers)).nbytes for name in ("size", "column")
    )
    assert bits / 8 < by_size < 1.08 * bits / 8  # row levels included
    assert by_size < 0.9 * by_column


def test_row_levels_are_left_out_where_they_do_not_pay():
    for octaves, columns in ((0, 4), (4, 32)):
        rows = 2.0 ** RANDOM.uniform(-octaves, octaves, 3000)
        numbers, _ = geometric(rows, np.full(columns, 0.5))
        coded = EntropyCoding("size").encode(stepped(numbers))
        assert ("coded_rows" in coded.arrays()) == (octaves > 0)


@pytest.mark.parametrize("contexts", ["column", "size"])
def test_damage_is_an_error_or_another_table_and_never_a_hang(contexts):
    numbers, _ = geometric(np.ones(500), np.full(8, 3.0))
    tensor = EntropyCoding(contexts).encode(stepped(numbers))
    refused = 0
    for name, array in tensor.arrays().items():
        for damaged in (array[:-1], np.r_[array, array[:2]], array[::-1].copy()):
            try:
                read_tensor("entropy", tensor.header(), tensor.arrays() | {name: damaged}).decode()
            except (ValueError, IndexError):
                refused += 1
    assert refused > 2 * len(tensor.arrays())


TASTE = RANDOM.normal(size=(600, 4)) @ RANDOM.normal(size=(4, 300)) + RANDOM.normal(size=(600, 300))
USERS, ITEMS = np.nonzero(TASTE > 2.5)
SHAPE = {"num_users": 600, "num_items": 300}
TRAIN = Interactions(USERS, ITEMS, **SHAPE)
RATED = Interactions(USERS, ITEMS, ratings=TASTE[USERS, ITEMS], **SHAPE)
FEW = Interactions(USERS[:2000], ITEMS[:2000], num_users=610, num_items=310)
SEEN = TRAIN.to_csr().toarray() > 0
EVERYBODY = np.arange(600)
OTHER = Interactions([0, 1], [0, 1])


@pytest.fixture(scope="module")
def model():
    return IALS(24, epochs=4, l2=0.007, unobserved_weight=0.3).fit(TRAIN)


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
    early, late = (quantize(model, TransformCoding(0.1, round_up_from=u)) for u in (0.5, 0.7))
    assert late.nbytes < early.nbytes and late.report.sparsity > early.report.sparsity


def test_a_rotation_codes_about_as_well_and_keeps_what_histories_fold_in_to(model):
    principal, rotated = (
        quantize(model, TransformCoding(0.02, axes=axes)) for axes in ("principal", "rotation")
    )
    assert score_error(model, rotated) < 1.1 * 0.02
    assert rotated.nbytes < 1.1 * principal.nbytes
    before, *after = (
        one.with_folded_users(TRAIN).score_all_items(EVERYBODY)
        for one in (model, rotated.model, principal.model)
    )
    kept, stretched = (np.square(scores - before).mean() for scores in after)
    assert kept < 0.5 * stretched


def test_a_scale_an_item_gives_back_what_rounding_took_from_its_length(model):
    plain, scaled = (
        quantize(model, TransformCoding(0.4, axes="rotation", scale_items=scale))
        for scale in (False, True)
    )
    true = rotate_to_user_axes(model.user_vectors, model.item_vectors)[1]
    there = np.abs(plain.model.item_vectors).max(axis=1) > 0
    share = [
        (true * one.model.item_vectors).sum(axis=1)[there] / (true**2).sum(axis=1)[there]
        for one in (plain, scaled)
    ]
    assert np.median(share[0]) < 0.97
    assert np.quantile(np.abs(share[1] - 1), 0.9) < 0.02 and share[1].max() < 1.02
    assert 0 < scaled.nbytes - plain.nbytes < len(true) + 100


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


def test_sizes_as_contexts_give_equal_vectors_in_fewer_bytes(model):
    by_column, by_size = (
        quantize(model, TransformCoding(0.2, contexts=one)) for one in ("column", "size")
    )
    for name, tensor in by_size.tensors.items():
        np.testing.assert_allclose(tensor.decode(), by_column.tensors[name].decode(), rtol=1e-6)
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


def test_ranks_better_than_transform_coding_because_it_optimises(model):
    coded = quantize(model, TransformCoding(0.3))
    ours = rate_distortion(model, 7e-4, epochs=60)
    assert ours.nbytes < coded.nbytes
    assert agreement(model, ours) > agreement(model, coded) + 0.02
    short, long = (rate_distortion(model, 2e-3, epochs=epochs) for epochs in (1, 60))
    assert long.nbytes < short.nbytes
    assert agreement(model, long) > agreement(model, short)


def same_tables(one, other):
    return all((tensor.decode() == other.tensors[n].decode()).all()
               for n, tensor in one.tensors.items())  # fmt: skip


def test_steps_items_and_seconds_are_bounded(model):
    whole = rate_distortion(model, 1e-3, epochs=40)
    assert same_tables(
        rate_distortion(model, epochs=1), rate_distortion(model, max_steps=2, epochs=60)
    )
    assert same_tables(whole, rate_distortion(model, 1e-3, epochs=40, max_seconds=1e6))
    at_once = rate_distortion(model, 1e-3, epochs=10**6, max_steps=10**9, max_seconds=1e-9)
    assert not same_tables(at_once, whole) and at_once.nbytes > whole.nbytes
    some = rate_distortion(model, 1e-3, epochs=40, items_per_step=100)
    assert not same_tables(some, whole) and some.nbytes == pytest.approx(whole.nbytes, rel=0.1)
    assert agreement(model, some) > agreement(model, whole) - 0.05
    assert agreement(model, some) > agreement(model, at_once)


def test_a_teacher_too_large_to_keep_is_asked_again_and_teaches_the_same(model, monkeypatch):
    teacher = EASE(l2=20.0).fit(TRAIN)
    kept = rate_distortion(model, teacher=teacher)
    monkeypatch.setattr("recsys_lib.compression.quantization.rate_distortion._SCORES_KEPT", 0)
    asked = rate_distortion(model, teacher=teacher)
    np.testing.assert_allclose(asked.model.item_vectors, kept.model.item_vectors, atol=1e-4)


def test_a_higher_price_buys_fewer_bytes_and_less_agreement(model):
    before = model.item_vectors.copy()
    results = [rate_distortion(model, price, epochs=20) for price in (2e-4, 1e-3, 5e-3)]
    for dear, cheap in pairwise(results):
        assert cheap.nbytes < 0.85 * dear.nbytes
        assert agreement(model, cheap) < agreement(model, dear)
    np.testing.assert_array_equal(model.item_vectors, before)


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


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: EntropyCoding().encode(DenseTensor(np.ones(3))), TypeError, "'dense'"),
        (lambda m: EntropyCoding("size").encode(quantize(table(), CodebookQuantization())),
         TypeError, "expected signed numbers"),
        (lambda m: stepped(np.full((2, 2), -2001)), ValueError, "whole reaches 2001"),
        (lambda m: TransformCoding(round_up_from=0.4), ValueError, "round_up_from is"),
        (lambda m: quantize(Popularity().fit(TRAIN), TransformCoding()), TypeError, "Popularity"),
        (lambda m: quantize(m, TransformCoding(1e-5)), ValueError, "allow a larger error"),
        (lambda m: quantize(changed(m, user_vectors=0), TransformCoding()), ValueError,
         "scores 0 everywhere"),
        (lambda m: rate_distortion(Popularity().fit(TRAIN)), TypeError, "Popularity"),
        (lambda m: rate_distortion(m, train=None), TypeError, "expected Interactions"),
        (lambda m: rate_distortion(m, train=OTHER), ValueError, "train counts 2 users"),
        (lambda m: rate_distortion(m, teacher="EASE"), TypeError, "teacher is of type str"),
        (lambda m: rate_distortion(m, teacher=EASE(l2=1.0).fit(OTHER)), ValueError,
         "teacher counts 2 users and 2 items"),
        (lambda m: rate_distortion(m, teacher=changed(m, item_vectors=np.nan)), ValueError,
         "scores of teacher holds"),
    ],
)  # fmt: skip
def test_refuses(model, call, error, message):
    with pytest.raises(error, match=message):
        call(model)
