"""Whole models in fewer bits: what is stored, what scores, what LiteRT stores, mixed precision."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from recsys_lib.compression import named_weights, with_weights
from recsys_lib.compression import quantization as q
from recsys_lib.compression.quantization.mixed import GroupedTensor, encode_width
from recsys_lib.compression.tensors import DenseTensor
from recsys_lib.data import Interactions
from recsys_lib.evaluation import evaluate_leave_one_out
from recsys_lib.models import IALS, Factors, RatingModelConfig, build_rating_model
from recsys_lib.notebook import quiet
from recsys_lib.serving import export_litert
from recsys_lib.training import KerasRecommender

CONFIG = RatingModelConfig("mlp_ranker", 300, 400, embedding_dim=32, hidden_units=(64, 32))
RANDOM = np.random.default_rng(0)
TABLES = ("user_embedding/embeddings", "item_embedding/embeddings")


def test_each_weight_can_have_its_own_form():
    forms = {
        TABLES[0]: q.UniformQuantization(bits=4, granularity="row"),
        TABLES[1]: "float16",
        "dense_0/kernel": q.UniformQuantization(bits=8, granularity="column", symmetric=True),
        "dense_1/kernel": None,
    }
    tensors = q.quantize(build_rating_model(CONFIG), forms).tensors
    assert [tensors[name].kind for name in forms] == ["uniform", "dense", "uniform", "dense"]
    assert tensors[TABLES[1]].nbytes < 400 * 32 * 2 + 60
    assert tensors["dense_1/kernel"].nbytes > 64 * 32 * 4
    # Codes of rows are for tables, and leave kernels alone.
    tensors = q.quantize(build_rating_model(CONFIG), q.ProductQuantization(8, bits=4)).tensors
    kinds = [tensors[name].kind for name in (*TABLES, "dense_0/kernel")]
    assert kinds == ["product", "product", "dense"]


def test_litert_stores_the_same_integers(tmp_path):
    """Its dynamic-range file: kernels by output, tables in all, symmetric, 8 bits."""
    litert, model = pytest.importorskip("ai_edge_litert.interpreter"), build_rating_model(CONFIG)
    weights = named_weights(model)
    with quiet():
        export_litert(model, tmp_path / "dynamic.tflite", "dynamic")
        interpreter = litert.Interpreter(str(tmp_path / "dynamic.tflite"))
        interpreter.allocate_tensors()
    # Two tables, two kernels; the last, of 32 numbers, stays float32.
    details = [d for d in interpreter.get_tensor_details()
               if d["dtype"] == np.int8 and "Gather" not in d["name"]]  # fmt: skip
    assert len(details) == 4
    for detail in details:
        name = next(n for n in weights if n.split("/")[0] + "_" in detail["name"])
        theirs, granularity = interpreter.get_tensor(detail["index"]), "tensor"
        if "kernel" in name:
            theirs, granularity = theirs.T, "column"
        config = q.UniformQuantization(8, granularity, symmetric=True, scale_dtype="float32")
        ours = config.encode(weights[name])
        np.testing.assert_array_equal(theirs, ours.codes.astype(int) - 127)
        scales = detail["quantization_parameters"]["scales"]
        np.testing.assert_allclose(scales, ours.scale.ravel(), rtol=1e-6)


def test_arrays_and_compressed_models_go_through_the_same_verb():
    config, tables = q.UniformQuantization(4), named_weights(IALS_16)
    small = q.quantize(IALS_16, config)
    for name, tensor in q.quantize(tables, config).items():
        np.testing.assert_array_equal(tensor.decode(), small.tensors[name].decode())
        np.testing.assert_array_equal(tensor.decode(), q.quantize(tables[name], config).decode())
    some = q.quantize(tables, {"user_vectors": "float16", "item_vectors": None})
    assert list(some) == ["user_vectors"] and some["user_vectors"].kind == "dense"
    items = q.quantize(IALS_16, {"item_vectors": q.CodebookQuantization(4)})
    both = q.quantize(items, {"user_vectors": config})
    assert {tensor.kind for tensor in both.tensors.values()} == {"uniform", "codebook"}
    np.testing.assert_array_equal(both.model.item_vectors, items.model.item_vectors)


@pytest.fixture(scope="module")
def fitted(published_ials):
    split, model = published_ials
    ndcg = evaluate_leave_one_out(model, split, k=10).ndcg
    assert ndcg >= 0.453
    return model, lambda other: evaluate_leave_one_out(other, split, k=10).ndcg / ndcg - 1


# The tolerances are about what chance among these users makes, 95 times of 100.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("bits", "search", "smaller", "change", "tolerance"),
    [
        (8, "minmax", 3.9, 0.001, 0.003),
        (4, "minmax", 7.7, -0.002, 0.004),
        (4, "mse", 7.7, -0.001, 0.005),
        (3, "minmax", 10.1, -0.013, 0.009),
        (2, "minmax", 14.8, -0.075, 0.02),
    ],
)
def test_the_curve_of_bits(fitted, bits, search, smaller, change, tolerance):
    model, changed = fitted
    small = q.quantize(model, q.UniformQuantization(bits=bits, scale_search=search))
    assert small.report.ratio == pytest.approx(smaller, abs=0.05)
    assert changed(small) == pytest.approx(change, abs=tolerance)
    if bits == 2:  # the search for the range halves the loss
        searched = q.quantize(model, q.UniformQuantization(bits, scale_search="mse"))
        assert -changed(searched) < -changed(small) / 2


@pytest.mark.slow
def test_users_folded_in_from_quantized_items_need_no_table(fitted, published_ials):
    model, changed = fitted
    matrix = published_ials[0].train.to_csr()
    histories = np.split(matrix.indices, matrix.indptr[1:-1])
    small = q.quantize(model, {"item_vectors": q.UniformQuantization(bits=4)})
    served = copy.copy(small.model)
    with threadpool_limits(1):
        served.user_vectors = small.model.fold_in(histories)
    assert small.report.bytes_before / small.tensors["item_vectors"].nbytes > 20
    assert changed(served) >= -0.005


BASE = q.UniformQuantization()
MET = Interactions(*RANDOM.integers(0, (40, 30), (400, 2)).T, num_users=40, num_items=30)
RANKER = RatingModelConfig("mlp_ranker", 40, 30, embedding_dim=8, hidden_units=(16, 8))
IALS_16 = IALS(embedding_dim=16, epochs=4).fit(MET)
LOSS = q.score_error(IALS_16, range(40), range(30))
CONSTANT = Factors(np.zeros((30, 16), np.float32), IALS_16.user_vectors)


def halves(width, parts=2):
    """Group neighbouring columns."""
    return q.WeightGroups(1, np.arange(width) * parts // width)


def curve(cost, size, fixed=0, reference=1.0):
    loss = np.asarray(cost, float) + reference
    pieces = tuple(f"w{n}" for n in range(len(loss)))
    bits = (2, 3, 4, 5, 6, 7, 8)[: loss.shape[1]]
    return q.SensitivityCurve(pieces, bits, loss, np.asarray(size), reference, fixed, {}, BASE)


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 2**32 - 1), st.floats(0, 1),
       st.sampled_from(["whole", "normal", "falling"]))  # fmt: skip
def test_the_allocation_is_that_of_dynamic_programming(count, width, seed, share, kind):
    rng, rows, shape = np.random.default_rng(seed), np.arange(count), (count, width)
    size = rng.integers(1, 40, shape)
    # Whole numbers make ties; negative ones are roundings that happened to help.
    cost = rng.integers(-2, 5, shape) * 1.0 if kind == "whole" else rng.normal(size=shape)
    if kind == "falling":
        size.sort(axis=1)
        cost = 1e-6 * rng.lognormal(0, 2, (count, 1)) * 4.0 ** -np.arange(width)
    least, most = size.min(axis=1).sum(), size.max(axis=1).sum()
    room = int(least + share * (most - least))
    best = np.r_[0, np.full(room, np.inf)]  # least cost at every size
    for losses, steps in zip(cost, size, strict=True):
        choices = zip(losses, steps, strict=True)
        best = np.min([np.r_[np.full(s, np.inf), best][: room + 1] + x for x, s in choices], axis=0)
    found = q.allocate_bits(curve(cost, size, fixed=100, reference=0.0), room + 100)
    largest = np.abs(cost).max()
    assert found.predicted_loss == pytest.approx(best.min(), rel=1e-9, abs=1e-9 * largest)
    chosen = [bits - 2 for bits in found.bits.values()]
    assert found.nbytes == size[rows, chosen].sum() + 100 <= room + 100


def test_the_allocation_of_many_pieces_comes_near_its_budget():
    rng, bits = np.random.default_rng(0), np.arange(2, 9)
    size = 500 * bits + rng.integers(60, 64, (200, 7))  # what is left is smaller than a step
    cost = rng.lognormal(0, 2, 200)[:, None] * 4.0**-bits
    assert 399_500 < q.allocate_bits(curve(cost, size), 400_000).nbytes <= 400_000


def test_of_equal_losses_the_smallest_is_taken():
    found = q.allocate_bits(curve([[0, 0, 0], [1, 0, 0]], [[5, 7, 9], [5, 7, 9]]), 1000)
    assert list(found.bits.values()) == [2, 3]


def test_what_is_stored_takes_the_bytes_of_the_allocation():
    assert q.frequency_groups([3, 1, 2, 0, 9], (0.2, 0.4, 0.4)).labels.tolist() == [1, 2, 1, 2, 0]
    groups = {
        "item_vectors": halves(16, 3),
        "user_vectors": q.frequency_groups(np.bincount(MET.user_ids, minlength=40), (0.25, 0.75)),
    }
    measured = q.sensitivity(IALS_16, LOSS, (0, 2, 4, 8, 16, 32), groups=groups)
    expected = [f"user_vectors[{n}]" for n in range(2)] + [f"item_vectors[{n}]" for n in range(3)]
    assert list(measured.pieces) == expected
    for budget in np.linspace(q.uniform_bits(measured, 0).nbytes, 5000, 9):
        allocation = q.allocate_bits(measured, budget)
        compressed = q.quantize(IALS_16, allocation.config)
        assert compressed.nbytes == allocation.nbytes <= budget
        frame = q.stored_bits(compressed)
        assert frame.bytes.sum() == compressed.nbytes
        by_piece = dict(zip(frame.piece, frame.bits, strict=True))
        assert {piece: by_piece[piece] for piece in measured.pieces} == dict(allocation.bits)


def test_each_curve_is_of_one_piece_alone():
    measured = q.sensitivity(IALS_16, LOSS, (2, 4, 16), groups={"item_vectors": halves(16)})
    for piece, losses in zip(measured.pieces, measured.loss, strict=True):
        name, _, group = piece.partition("[")
        part = slice(8 * int(group[0]), 8 * int(group[0]) + 8) if group else slice(None)
        for bits, loss in zip(measured.bits, losses, strict=True):
            values = named_weights(IALS_16)[name].copy()
            values[:, part] = encode_width(values[:, part], bits, BASE).decode()
            expected = LOSS(with_weights(IALS_16, {name: values}))
            assert loss == pytest.approx(expected, rel=1e-12)
    assert measured.reference == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["recommender", "keras"])
def test_a_ranker_keeps_its_biases_and_stays_as_it_is(kind):
    model = build_rating_model(RANKER)
    if kind == "recommender":
        model = KerasRecommender(RANKER, epochs=1, progress=False).fit(MET)
    before, loss = named_weights(model), q.score_error(model, range(10), range(30))
    measured = q.sensitivity(model, loss, (2, 8))
    assert all("bias" not in piece for piece in measured.pieces)
    biases = [DenseTensor(values) for values in before.values() if values.ndim == 1]
    assert measured.fixed_bytes == sum(tensor.nbytes for tensor in biases)
    allocation = q.allocate_bits(measured, q.uniform_bits(measured, 8).nbytes - 1)
    assert q.quantize(model, allocation.config).nbytes == allocation.nbytes
    assert sorted(set(allocation.bits.values())) == [2, 8]  # one byte less than 8 bits everywhere
    # The curve was measured on one copy whose weights change; a fresh model gives the same.
    alone = q.quantize(model, q.MixedPrecision({measured.pieces[1]: 2})).model
    assert loss(alone) == pytest.approx(measured.loss[1, 0], rel=1e-5)
    np.testing.assert_equal(named_weights(model), before)


def test_the_spectrum_gets_more_bits_where_it_is_larger():
    # Reverse water-filling: a dimension whose scores vary 16 times as much gets about 2 more bits
    # for each table (the error of the scores is a product of both tables).
    rng, spread = np.random.default_rng(0), 2.0 ** -np.arange(8)
    users, items = (np.float32(rng.normal(size=(n, 8)) * spread) for n in (40, 30))
    model = Factors(items, users)
    groups = {name: halves(8, 4) for name in ("user_vectors", "item_vectors")}
    base = q.UniformQuantization(granularity="column")
    loss = q.score_error(model, range(40), range(30))
    measured = q.sensitivity(model, loss, (0, 2, 3, 4, 5, 6, 8), groups=groups, base=base)
    uniform = q.uniform_bits(measured, 4)
    mixed = q.allocate_bits(measured, uniform.nbytes)
    bits = np.array(list(mixed.bits.values())).reshape(2, 4)
    assert (np.diff(bits, axis=1) <= 0).all() and (bits[:, 0] > bits[:, -1] + 2).all()
    errors = [loss(q.quantize(model, a.config).model) for a in (mixed, uniform)]
    assert errors[0] < errors[1] / 4


def test_score_error_ignores_what_changes_no_ranking():
    loss, biases = q.score_error(IALS_16, [1, 2, 3], [4, 5, 6]), np.arange(40, dtype=np.float32)
    more = {"user_biases": biases, "item_biases": 0 * biases[:30]}
    shifted = Factors(IALS_16.item_vectors, IALS_16.user_vectors, **more)
    assert loss(shifted) == pytest.approx(0, abs=1e-8)
    assert loss(CONSTANT) == pytest.approx(1)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), seed=st.integers(0, 999), count=st.integers(1, 20), axis=st.integers(0, 1))
def test_a_grouped_tensor_decodes_to_its_parts(through_bytes, data, seed, count, axis):
    rng, num_groups = np.random.default_rng(seed), data.draw(st.integers(1, count))
    labels = rng.permutation(np.r_[np.arange(num_groups), rng.integers(0, num_groups, count)])
    values = rng.normal(size=(len(labels), 5)).astype(np.float32)
    values, groups = values.T if axis else values, q.WeightGroups(axis, labels)
    widths = st.sampled_from([0, 2, 3, 4, 8, 16, 32])
    parts = [
        encode_width(values[groups.index(n)], data.draw(widths), BASE) for n in range(num_groups)
    ]
    tensor = through_bytes(GroupedTensor(groups, parts))
    assert tensor.shape == values.shape
    for number, part in enumerate(parts):
        np.testing.assert_array_equal(tensor.decode()[groups.index(number)], part.decode())


MEASURED = curve([[1, 0], [1, 0]], [[10, 20], [30, 50]], fixed=7)


def test_refuses(refuses):
    def mixed(*arguments):
        return lambda: q.quantize(IALS_16, q.MixedPrecision(*arguments))

    def measure(bits=(2, 4), loss=lambda model: 0.0):
        return lambda: q.sensitivity(IALS_16, loss, bits)

    def quantized(config, **options):
        return lambda: q.quantize(build_rating_model(RANKER), config, **options)

    two = {"item_vectors[0]": 4, "item_vectors[1]": 4}
    refuses(
        ("user_table", quantized({"user_table": BASE})),
        ("user_embedding", quantized({"user_embedding/embeddings": 8})),
        ("teacher", quantized(BASE, teacher=IALS_16)),
        ("shares sum", lambda: q.frequency_groups([1, 2, 3], (0.5, 0.4))),
        ("group 0", lambda: q.frequency_groups([1, 2, 3], (0.1, 0.9))),
        ("group 1", lambda: q.WeightGroups(0, np.array([0, 2]))),
        ("labels", lambda: q.WeightGroups(0, np.array([0.0]))),
        ("labels", lambda: q.WeightGroups(0, np.arange(257))),
        ("item_vectors.* is 1", mixed({"item_vectors": 1})),
        ("item_vectors.* is 4.0", mixed({"item_vectors": 4.0})),
        ("groups", mixed({"item_vectors[0]": 4}, {"item_vectors": halves(16)})),
        ("WeightGroups", mixed(two, {"item_vectors": [0]})),
        ("bits names 'items'", mixed({"items": 4})),
        ("15 labels", mixed(two, {"item_vectors": halves(15)})),
        ("groups names", mixed({"items[0]": 4, "items[1]": 4}, {"items": halves(16)})),
        ("nan for user_vectors", measure(loss=lambda m: np.nan if LOSS(m) > 1e-6 else 0.0)),
        ("bits is", measure((4, 2))),
        ("item_ids", lambda: q.score_error(IALS_16, [1], [2])),
        ("same score", lambda: q.score_error(CONSTANT, [1], [2, 3])),
        ("budget_bytes is 46: .* 47", lambda: q.allocate_bits(MEASURED, 46)),
        ("bits is 8", lambda: q.uniform_bits(MEASURED, 8)),
    )
