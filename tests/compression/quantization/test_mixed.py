"""Mixed precision: stored forms of groups, measured sensitivity, and bits under a budget."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_lib.compression import named_weights, with_weights
from recsys_lib.compression.quantization import (
    MixedPrecision,
    SensitivityCurve,
    UniformQuantization,
    WeightGroups,
    allocate_bits,
    frequency_groups,
    quantize,
    score_error,
    sensitivity,
    stored_bits,
    uniform_bits,
)
from recsys_lib.compression.quantization.mixed import GroupedTensor, ZeroTensor, encode_width
from recsys_lib.compression.tensors import DenseTensor, read_tensor
from recsys_lib.data import Interactions
from recsys_lib.models import IALS, RatingModelConfig, build_rating_model
from recsys_lib.training import KerasRecommender

RNG = np.random.default_rng(0)
BASE = UniformQuantization()
DATA = Interactions(RNG.integers(0, 40, 400), RNG.integers(0, 30, 400), num_users=40, num_items=30)
RANKER = RatingModelConfig("mlp_ranker", 40, 30, embedding_dim=8, hidden_units=(16, 8))


@pytest.fixture(scope="module")
def ials() -> IALS:
    return IALS(embedding_dim=16, epochs=4).fit(DATA)


def halves(width: int, parts: int = 2) -> WeightGroups:
    """Group neighbouring columns."""
    return WeightGroups(1, np.arange(width) * parts // width)


def curve(cost: Any, size: Any, fixed: int = 0, reference: float = 1.0) -> SensitivityCurve:
    loss, nbytes = np.asarray(cost, float) + reference, np.asarray(size)
    pieces = tuple(f"w{n}" for n in range(len(loss)))
    bits = (2, 3, 4, 5, 6, 7, 8)[: loss.shape[1]]
    return SensitivityCurve(pieces, bits, loss, nbytes, reference, fixed, {}, BASE)


def by_brute_force(cost: Any, size: Any, room: float) -> float:
    rows = np.arange(len(cost))
    sums = [
        cost[rows, list(choice)].sum()
        for choice in itertools.product(range(cost.shape[1]), repeat=len(cost))
        if size[rows, list(choice)].sum() <= room
    ]
    return min(sums)


problems = st.tuples(
    st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**32 - 1), st.floats(0, 1), st.booleans()
)


@settings(deadline=None, max_examples=200)
@given(problems)
def test_the_allocation_is_that_of_brute_force(problem: tuple[int, int, int, float, bool]) -> None:
    count, width, seed, share, whole = problem
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 40, (count, width))
    # Whole numbers make ties; negative ones are roundings that happened to help.
    cost = rng.integers(-2, 5, (count, width)) * 1.0 if whole else rng.normal(size=(count, width))
    least, most = size.min(axis=1).sum(), size.max(axis=1).sum()
    room = int(least + share * (most - least))
    found = allocate_bits(curve(cost, size, fixed=100), room + 100)
    assert found.predicted_loss - 1 == pytest.approx(by_brute_force(cost, size, room), abs=1e-9)
    assert found.nbytes <= room + 100
    chosen = [(2, 3, 4, 5)[: cost.shape[1]].index(bits) for bits in found.bits.values()]
    assert found.nbytes == size[np.arange(count), chosen].sum() + 100


def by_dynamic_programming(cost: Any, size: Any, room: int) -> float:
    """Give the least cost by a table of costs at every size."""
    best = np.full(room + 1, np.inf)
    best[0] = 0
    for losses, sizes in zip(cost, size, strict=True):
        new = np.full(room + 1, np.inf)
        for loss, step in zip(losses, sizes.tolist(), strict=True):
            if step <= room:
                new[step:] = np.minimum(new[step:], best[: room + 1 - step] + loss)
        best = new
    return float(best.min())


@pytest.mark.parametrize("seed", range(4))
def test_the_allocation_is_that_of_dynamic_programming(seed: int) -> None:
    rng = np.random.default_rng(seed)
    numbers = rng.integers(100, 20_000, 24)
    bits = np.array([2, 3, 4, 5, 6, 8])
    size = numbers[:, None] * bits // 8 + 50
    cost = 10.0 ** -(2 * seed) * rng.lognormal(0, 2, 24)[:, None] * 4.0**-bits
    for average in (2.1, 3.3, 4.7):
        room = int((numbers * average / 8).sum() + 50 * 24)
        found = allocate_bits(curve(cost, size, reference=0.0), room)
        exact = by_dynamic_programming(cost, size, room)
        assert found.predicted_loss == pytest.approx(exact, rel=1e-9)


def test_of_equal_losses_the_smallest_is_taken() -> None:
    found = allocate_bits(curve([[0, 0, 0], [1, 0, 0]], [[5, 7, 9], [5, 7, 9]]), 1000)
    assert list(found.bits.values()) == [2, 3]


def test_many_pieces_take_no_time_to_speak_of() -> None:
    rng = np.random.default_rng(0)
    bits = np.array([0, 2, 3, 4, 5, 6, 8])
    size = np.full((200, 1), 4000) * bits // 8 + rng.integers(60, 64, (200, 7))
    cost = rng.lognormal(0, 2, 200)[:, None] * 4.0**-bits
    found = allocate_bits(curve(cost, size), 300_000)
    assert found.nbytes <= 300_000
    assert found.nbytes > 299_500  # what is left is smaller than a step of 500


def test_a_budget_that_is_too_small_names_the_smallest() -> None:
    measured = curve([[1, 0], [1, 0]], [[10, 20], [30, 50]], fixed=7)
    with pytest.raises(ValueError, match="budget_bytes is 46: expected at least 47, the smallest"):
        allocate_bits(measured, 46)
    assert allocate_bits(measured, 47).nbytes == 47
    with pytest.raises(ValueError, match="budget_bytes is nan"):
        allocate_bits(measured, float("nan"))
    with pytest.raises(ValueError, match="bits is 8: expected one of 2, 3"):
        uniform_bits(measured, 8)


def test_what_is_stored_takes_the_bytes_of_the_allocation(ials: IALS) -> None:
    groups = {
        "item_vectors": halves(16, 3),
        "user_vectors": frequency_groups(np.bincount(DATA.user_ids, minlength=40), (0.25, 0.75)),
    }
    loss = score_error(ials, range(40), range(30))
    measured = sensitivity(ials, loss, (0, 2, 4, 8, 16, 32), groups=groups)
    assert measured.pieces == (
        *("user_vectors[0]", "user_vectors[1]"),
        *("item_vectors[0]", "item_vectors[1]", "item_vectors[2]"),
    )
    smallest = uniform_bits(measured, 0).nbytes
    for budget in np.linspace(smallest, 5000, 9):
        allocation = allocate_bits(measured, budget)
        compressed = quantize(ials, allocation.config)
        assert compressed.nbytes == allocation.nbytes <= budget
        frame = stored_bits(compressed)
        assert frame.bytes.sum() == compressed.nbytes
        by_piece = dict(zip(frame.piece, frame.bits, strict=True))
        assert {piece: by_piece[piece] for piece in measured.pieces} == dict(allocation.bits)


def test_each_curve_is_of_one_piece_alone(ials: IALS) -> None:
    groups = {"item_vectors": halves(16, 2)}
    loss = score_error(ials, range(40), range(30))
    before = named_weights(ials)
    measured = sensitivity(ials, loss, (2, 4, 16), groups=groups)
    for row, piece in enumerate(measured.pieces):
        for column, bits in enumerate(measured.bits):
            name, _, group = piece.partition("[")
            values = before[name].copy()
            part = slice(None) if not group else slice(8 * int(group[0]), 8 * int(group[0]) + 8)
            values[:, part] = encode_width(values[:, part], bits, BASE).decode()
            expected = loss(with_weights(ials, {name: values}))
            assert measured.loss[row, column] == pytest.approx(expected, rel=1e-12)
    assert measured.reference == 0
    for name, values in named_weights(ials).items():
        np.testing.assert_array_equal(values, before[name])


@pytest.mark.parametrize("kind", ["recommender", "keras"])
def test_a_ranker_keeps_its_biases_and_stays_as_it_is(kind: str) -> None:
    model: Any = build_rating_model(RANKER)
    if kind == "recommender":
        model = KerasRecommender(RANKER, epochs=1, progress=False).fit(DATA)
    before = named_weights(model)
    loss = score_error(model, range(10), range(30))
    measured = sensitivity(model, loss, (2, 8))
    assert all("bias" not in piece for piece in measured.pieces)
    biases = [values for values in before.values() if values.ndim == 1]
    assert measured.fixed_bytes == sum(DenseTensor(values).nbytes for values in biases)
    allocation = allocate_bits(measured, uniform_bits(measured, 8).nbytes - 1)
    compressed = quantize(model, allocation.config)
    assert compressed.nbytes == allocation.nbytes
    assert sorted(set(allocation.bits.values())) == [2, 8]  # one byte less than 8 bits everywhere
    # The curve was measured on one copy whose weights change; a fresh model gives the same.
    for piece, bits in list(zip(measured.pieces, measured.loss, strict=True))[1::3]:
        alone = quantize(model, MixedPrecision({piece: 2})).model
        assert loss(alone) == pytest.approx(bits[0], rel=1e-5)
    for name, values in named_weights(model).items():
        np.testing.assert_array_equal(values, before[name])


def test_the_spectrum_gets_more_bits_where_it_is_larger() -> None:
    # Reverse water-filling: a dimension whose scores vary 16 times as much gets about 2 more bits
    # for each table (the error of the scores is a product of both tables).
    rng = np.random.default_rng(0)
    model = IALS(embedding_dim=8, epochs=1).fit(DATA)
    spread = 2.0 ** -np.arange(8)
    tables = {
        "user_vectors": rng.normal(size=(40, 8)) * spread,
        "item_vectors": rng.normal(size=(30, 8)) * spread,
    }
    model = with_weights(model, tables)
    groups = {name: halves(8, 4) for name in tables}
    base = UniformQuantization(granularity="column")
    loss = score_error(model, range(40), range(30))
    measured = sensitivity(model, loss, (0, 2, 3, 4, 5, 6, 8), groups=groups, base=base)
    uniform = uniform_bits(measured, 4)
    mixed = allocate_bits(measured, uniform.nbytes)
    bits = np.array(list(mixed.bits.values())).reshape(2, 4)
    assert (np.diff(bits, axis=1) <= 0).all() and (bits[:, 0] > bits[:, -1] + 2).all()
    errors = [loss(quantize(model, a.config).model) for a in (mixed, uniform)]
    assert errors[0] < errors[1] / 4


def test_score_error_ignores_what_changes_no_ranking(ials: IALS) -> None:
    class Shifted:
        def score(self, users: Any, items: Any) -> Any:
            return ials.score(users, items) + 10 * np.asarray(users)

    class Constant:
        def score(self, users: Any, items: Any) -> Any:
            return np.zeros(len(users))

    loss = score_error(ials, [1, 2, 3], [4, 5, 6])
    assert loss(Shifted()) == pytest.approx(0, abs=1e-10)
    assert loss(Constant()) == pytest.approx(1)
    with pytest.raises(ValueError, match="two or more items"):
        score_error(ials, [1], [2])
    with pytest.raises(ValueError, match="the same score"):
        score_error(Constant(), [1], [2, 3])


@st.composite
def grouped(draw: st.DrawFn) -> tuple[int, np.ndarray, np.ndarray, list[int]]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, axis = draw(st.integers(1, 20)), draw(st.integers(0, 1))
    num_groups = draw(st.integers(1, count))
    labels = rng.permutation(np.r_[np.arange(num_groups), rng.integers(0, num_groups, count)])
    shape = (len(labels), 5) if axis == 0 else (5, len(labels))
    widths = st.sampled_from([0, 2, 3, 4, 8, 16, 32])
    bits = draw(st.lists(widths, min_size=num_groups, max_size=num_groups))
    return axis, labels, rng.normal(size=shape).astype(np.float32), bits


@settings(deadline=None, max_examples=60)
@given(grouped())
def test_a_grouped_tensor_decodes_to_its_parts_and_comes_back(case: Any) -> None:
    axis, labels, values, bits = case
    groups = WeightGroups(axis, labels)
    parts = [encode_width(values[groups.index(n)], width, BASE) for n, width in enumerate(bits)]
    tensor = GroupedTensor(groups, parts)
    decoded = tensor.decode()
    assert tensor.shape == decoded.shape == values.shape
    for number, part in enumerate(parts):
        np.testing.assert_array_equal(decoded[groups.index(number)], part.decode())
    header = json.loads(json.dumps(tensor.header()))
    again = read_tensor(tensor.kind, header, tensor.arrays())
    np.testing.assert_array_equal(again.decode(), decoded)
    assert again.nbytes == tensor.nbytes


def test_groups() -> None:
    assert frequency_groups([3, 1, 2, 0, 9], (0.2, 0.4, 0.4)).labels.tolist() == [1, 2, 1, 2, 0]
    assert ZeroTensor((3, 0)).decode().shape == (3, 0)
    with pytest.raises(ValueError, match="shares sum to"):
        frequency_groups([1, 2, 3], (0.5, 0.4))
    with pytest.raises(ValueError, match="group 0 empty"):
        frequency_groups([1, 2, 3], (0.1, 0.9))
    for axis, labels, error, message in (
        (2, [0], ValueError, "axis is 2"),
        (0, [0, 2], ValueError, "group 1 empty"),
        (0, [0.0], TypeError, "labels is of type float64"),
        (0, np.arange(257), ValueError, "from 0 to 255"),
    ):
        with pytest.raises(error, match=message):
            WeightGroups(axis, np.array(labels))


def test_errors_of_the_config(ials: IALS) -> None:
    two = {"item_vectors[0]": 4, "item_vectors[1]": 4}
    for bits, groups, error, message in (
        ({"item_vectors": 1}, {}, ValueError, "is 1: expected 0, 2 to 8"),
        ({"item_vectors": 4.0}, {}, TypeError, "item_vectors"),
        ({"item_vectors[0]": 4}, {"item_vectors": halves(16)}, ValueError, "bits has no 'item_ve"),
        (two, {"item_vectors": [0]}, TypeError, "expected WeightGroups"),
    ):
        with pytest.raises(error, match=message):
            MixedPrecision(bits, groups)
    with pytest.raises(TypeError, match="base is of type int"):
        MixedPrecision({}, base=4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="bits names 'items'"):
        quantize(ials, MixedPrecision({"items": 4}))
    with pytest.raises(ValueError, match="labels 15 columns: expected 16"):
        quantize(ials, MixedPrecision(two, {"item_vectors": halves(15)}))
    with pytest.raises(ValueError, match="groups names 'items'"):
        quantize(ials, MixedPrecision({"items[0]": 4, "items[1]": 4}, {"items": halves(16)}))


def test_errors_of_the_measurement(ials: IALS) -> None:
    def loss(model: Any) -> float:
        return 0.0

    def broken(model: Any) -> float:
        same = np.array_equal(model.user_vectors, ials.user_vectors)
        return 0.0 if same else float("nan")

    with pytest.raises(ValueError, match="loss is nan for user_vectors in 2 bits"):
        sensitivity(ials, broken)
    for bits in ((), (4, 2), (2, 2), (1, 2)):
        with pytest.raises(ValueError, match="bits is"):
            sensitivity(ials, loss, bits)
    with pytest.raises(ValueError, match="groups names 'items'"):
        sensitivity(ials, loss, groups={"items": halves(16)})
    with pytest.raises(RuntimeError, match="fit"):
        sensitivity(IALS(), loss)
