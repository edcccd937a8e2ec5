"""Entropy coding loses nothing; coded tables of factor models keep what they promise."""

import copy
import lzma
import zlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_lib.compression import named_weights, with_weights
from recsys_lib.compression import quantization as q
from recsys_lib.compression.pruning.tables import rotate_to_user_axes
from recsys_lib.compression.quantization import EntropyCoding, TransformCoding, quantize
from recsys_lib.compression.quantization.transform import SteppedTensor
from recsys_lib.compression.tensors import DenseTensor, read_tensor
from recsys_lib.data import Interactions
from recsys_lib.models import ALS, EASE, IALS, Popularity

RANDOM, UNIFORM = np.random.default_rng(0), q.UniformQuantization(4)


def table(rows=400, columns=12):
    return (RANDOM.normal(size=(rows, columns)) * np.geomspace(1, 0.1, columns)).astype(np.float32)


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
    "form", [UNIFORM, q.CodebookQuantization(3, 1), q.ProductQuantization(4, 5)]
)
def test_a_coded_tensor_decodes_as_before_from_its_parts(form, contexts, through_bytes):
    inner = quantize(table(), form)
    coded = through_bytes(EntropyCoding(contexts).encode(inner))
    np.testing.assert_array_equal(coded.decode(), inner.decode())
    np.testing.assert_array_equal(coded.decode_codes(), inner.codes)
    assert "codes" not in coded.arrays()


@settings(deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 9),
    top=st.integers(0, 2000),
    seed=st.integers(0, 999),
)
def test_signed_numbers_come_back_bit_by_bit(through_bytes, rows, columns, top, seed):
    rng = np.random.default_rng(seed)
    whole = rng.integers(-top, top + 1, (rows, columns)) * (rng.random((rows, columns)) < 0.3)
    inner = SteppedTensor(whole, rng.uniform(0.1, 1, columns))
    np.testing.assert_array_equal(inner.whole, whole)
    for contexts in ("tensor", "column", "size"):
        again = through_bytes(EntropyCoding(contexts).encode(inner))
        np.testing.assert_array_equal(again.decode(), inner.decode())


def test_the_entropy_is_shannons():
    assert q.entropy_bits([0, 1] * 8) == 16
    assert q.entropy_bits(np.zeros(9, int)) == 0
    codes = np.array([[0, 5], [0, 5], [0, 6]])
    assert q.entropy_bits(codes, "column") == pytest.approx(3 * np.log2(3) - 2)


def test_columns_as_contexts_come_near_the_entropy_and_below_general_coders():
    inner = quantize(table(20_000, 8), q.CodebookQuantization(3))
    coded, bits = EntropyCoding("column").encode(inner), q.entropy_bits(inner.codes, "column")
    assert 8 * coded.arrays()["coded"].nbytes <= 1.002 * bits + 64
    assert 8 * coded.nbytes <= 1.02 * bits
    for data in (inner.arrays()["codes"].tobytes(), inner.codes.tobytes()):
        general = min(len(zlib.compress(data, 9)), len(lzma.compress(data)))
        assert coded.nbytes < 0.95 * general
    assert EntropyCoding("smallest").encode(inner).nbytes == coded.nbytes
    assert coded.nbytes < 0.93 * EntropyCoding("tensor").encode(inner).nbytes
    same = quantize(table(40, 16), q.CodebookQuantization(4, 1))
    assert EntropyCoding().encode(same).contexts == "tensor"


def test_sizes_as_contexts_come_within_a_few_percent_of_the_law():
    numbers, bits = geometric(2.0 ** RANDOM.uniform(-3, 3, 4000), 2.0 ** RANDOM.uniform(-3, 1, 64))
    by_size, by_column = (
        EntropyCoding(name).encode(stepped(numbers)) for name in ("size", "column")
    )
    assert bits / 8 < by_size.nbytes < 1.08 * bits / 8  # row levels included
    assert by_size.nbytes < 0.9 * by_column.nbytes
    even = EntropyCoding("size").encode(stepped(geometric(np.ones(3000), np.full(4, 0.5))[0]))
    assert "coded_rows" in by_size.arrays() and "coded_rows" not in even.arrays()


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
SEEN = TRAIN.to_csr().toarray() > 0
EVERYBODY = np.arange(600)


@pytest.fixture(scope="module")
def model():
    return IALS(24, epochs=4, l2=0.007, unobserved_weight=0.3).fit(TRAIN)


def rate_distortion(model, *options, train=TRAIN, teacher=None, epochs=2, **more):
    return quantize(model, q.RateDistortion(*options, epochs=epochs, **more), train=train,
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
    early, late, by_size = (
        quantize(model, TransformCoding(0.1, scale_users, **options))
        for options in ({}, {"round_up_from": 0.7}, {"contexts": "size"})
    )
    assert late.nbytes < early.nbytes and late.report.sparsity > early.report.sparsity
    assert by_size.nbytes < early.nbytes
    for name, tensor in by_size.tensors.items():
        np.testing.assert_allclose(tensor.decode(), early.tensors[name].decode(), rtol=1e-6)


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
    true, shares = rotate_to_user_axes(model.user_vectors, model.item_vectors)[1], []
    plain, scaled = (
        quantize(model, TransformCoding(0.4, axes="rotation", scale_items=scale))
        for scale in (False, True)
    )
    there = plain.model.item_vectors.any(axis=1)
    for one in (plain, scaled):
        shares.append(((true * one.model.item_vectors).sum(1) / (true**2).sum(1))[there])
    assert np.median(shares[0]) < 0.97
    assert np.quantile(np.abs(shares[1] - 1), 0.9) < 0.02 and shares[1].max() < 1.02
    assert 0 < scaled.nbytes - plain.nbytes < len(true) + 100


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_less_error_than_row_wise_rounding_in_fewer_bytes(model, bits):
    plain = quantize(model, q.UniformQuantization(bits, granularity="row"))
    limit = score_error(model, plain)
    coded = quantize(model, TransformCoding(limit, scale_users=False))
    assert score_error(model, coded) < 1.1 * limit
    assert coded.nbytes < 0.85 * plain.nbytes


def test_row_scales_serve_users_with_small_scores(model):
    small = model.user_vectors * np.where(EVERYBODY < 300, 0.1, 1.0).astype("f4")[:, None]
    uneven = with_weights(model, {"user_vectors": small})
    scaled, none, flat = (
        quantize(uneven, TransformCoding(0.2, **options))
        for options in ({}, {"scale_users": False}, {"user_exponent": 0.0})
    )
    errors = [score_error(uneven, one, np.arange(300)) for one in (scaled, none)]
    assert errors[0] ** 2 < 0.6 * errors[1] ** 2
    np.testing.assert_allclose(flat.model.user_vectors, none.model.user_vectors, rtol=1e-5)


def test_users_and_items_without_data_stay_zero_and_users_may_have_met_everything():
    few = Interactions(USERS[:2000], ITEMS[:2000], num_users=610, num_items=310)
    model = IALS(embedding_dim=8, epochs=2).fit(few)
    coded = quantize(model, TransformCoding(0.1)).model
    assert (coded.item_vectors[300:] == 0).all()
    assert np.abs(coded.user_vectors[600:]).max() < 1e-3
    everything = Interactions([0] * 4 + [1, 2], [0, 1, 2, 3, 0, 1])
    small = IALS(embedding_dim=2, epochs=2).fit(everything)
    for one, train in ((model, few), (small, everything)):
        stored = rate_distortion(one, train=train)
        assert np.isfinite(stored.score_all_items(np.arange(train.num_users))).all()


def test_ranks_better_than_transform_coding_because_it_optimises_at_any_price(model):
    coded, before = quantize(model, TransformCoding(0.3)), model.item_vectors.copy()
    ours = rate_distortion(model, 7e-4, epochs=60)
    assert ours.nbytes < coded.nbytes
    assert agreement(model, ours) > agreement(model, coded) + 0.02
    short, long = (rate_distortion(model, 2e-3, epochs=epochs) for epochs in (1, 60))
    assert long.nbytes < short.nbytes
    assert agreement(model, long) > agreement(model, short)
    prices = [rate_distortion(model, price, epochs=20) for price in (2e-4, 1e-3, 5e-3)]
    for dear, cheap in pairwise(prices):
        assert cheap.nbytes < 0.85 * dear.nbytes
        assert agreement(model, cheap) < agreement(model, dear)
    np.testing.assert_array_equal(model.item_vectors, before)


def test_steps_items_and_seconds_are_bounded(model):
    def run(price=1e-3, epochs=40, **options):
        small = rate_distortion(model, price, epochs=epochs, **options)
        return small, named_weights(small.model)

    np.testing.assert_equal(run(epochs=1)[1], run(max_steps=2, epochs=60)[1])
    (whole, tables), (some, others) = run(), run(items_per_step=100)
    np.testing.assert_equal(run(max_seconds=1e6)[1], tables)
    at_once, _ = run(epochs=10**6, max_steps=10**9, max_seconds=1e-9)
    assert at_once.nbytes > whole.nbytes
    assert (others["item_vectors"] != tables["item_vectors"]).any()
    assert some.nbytes == pytest.approx(whole.nbytes, rel=0.1)
    alike = [agreement(model, one) for one in (whole, some, at_once)]
    assert alike[1] > max(alike[0] - 0.05, alike[2])


def test_a_teacher_is_what_is_imitated(model, monkeypatch):
    teacher = EASE(l2=20.0).fit(TRAIN)
    alone = rate_distortion(model, 4e-4, epochs=40)
    taught = rate_distortion(model, 4e-4, epochs=40, teacher=teacher)
    assert agreement(teacher, taught) > agreement(teacher, alone) + 0.02
    assert agreement(model, taught) < agreement(model, alone)
    itself, same, kept = (rate_distortion(model, teacher=t).model for t in (model, None, teacher))
    np.testing.assert_allclose(itself.item_vectors, same.item_vectors, rtol=1e-4, atol=1e-4)
    # Scores too large to keep are asked for again, and teach the same.
    monkeypatch.setattr("recsys_lib.compression.quantization.rate_distortion._SCORES_KEPT", 0)
    asked = rate_distortion(model, teacher=teacher).model
    np.testing.assert_allclose(asked.item_vectors, kept.item_vectors, atol=1e-4)


def test_item_biases_are_part_of_what_is_imitated():
    rated = Interactions(USERS, ITEMS, ratings=TASTE[USERS, ITEMS], **SHAPE)
    model = ALS(embedding_dim=4, epochs=3).fit(rated)
    model.item_biases = (model.item_biases * 20).astype(np.float32)
    stored = rate_distortion(model, 1e-5, epochs=30)
    assert agreement(model, stored) > 0.8
    model.item_biases = model.item_biases[::-1].copy()
    assert agreement(model, stored) < 0.5


def test_refuses(model, refuses):
    other, popularity = Interactions([0, 1], [0, 1]), Popularity().fit(TRAIN)
    silent = with_weights(model, {"user_vectors": 0 * model.user_vectors})
    broken, small = copy.copy(model), EASE(l2=1.0).fit(other)
    broken.item_vectors = np.full_like(model.item_vectors, np.nan)
    by_size, codes = EntropyCoding("size"), quantize(table(), q.CodebookQuantization())
    refuses(
        ("'dense'", lambda: by_size.encode(DenseTensor(np.ones(3)))),
        ("signed numbers", lambda: by_size.encode(codes)),
        ("whole reaches 2001", lambda: stepped(np.full((2, 2), -2001))),
        ("round_up_from", lambda: TransformCoding(round_up_from=0.4)),
        ("Popularity", lambda: quantize(popularity, TransformCoding())),
        ("error", lambda: quantize(model, TransformCoding(1e-5))),
        ("scores 0 everywhere", lambda: quantize(silent, TransformCoding())),
        ("Popularity", lambda: rate_distortion(popularity)),
        ("expected Interactions", lambda: rate_distortion(model, train=None)),
        ("train counts", lambda: rate_distortion(model, train=other)),
        ("teacher is of type str", lambda: rate_distortion(model, teacher="EASE")),
        ("teacher counts", lambda: rate_distortion(model, teacher=small)),
        ("scores of teacher", lambda: rate_distortion(model, teacher=broken)),
    )
