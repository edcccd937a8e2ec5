"""Transform coding keeps its promise about scores, and beats row-wise rounding at equal bytes."""

from __future__ import annotations

import numpy as np
import pytest

from recsys_lib.compression import with_weights
from recsys_lib.compression.quantization import TransformCoding, UniformQuantization, quantize
from recsys_lib.compression.tensors import read_tensor
from recsys_lib.data import Interactions
from recsys_lib.models import IALS, Popularity

RANDOM = np.random.default_rng(0)
TASTE = RANDOM.normal(size=(600, 4)) @ RANDOM.normal(size=(4, 300)) + RANDOM.normal(size=(600, 300))
USERS, ITEMS = np.nonzero(TASTE > 2.5)
DATA = Interactions(USERS, ITEMS, num_users=600, num_items=300)


@pytest.fixture(scope="module")
def model() -> IALS:
    return IALS(embedding_dim=24, epochs=4).fit(DATA)


def score_error(model: IALS, other: object) -> float:
    users = np.arange(600)
    exact = model.score_all_items(users)
    off = other.score_all_items(users) - exact  # type: ignore[attr-defined]
    return float(np.sqrt((off**2).mean() / (exact**2).mean()))


@pytest.mark.parametrize("scale_users", [True, False])
@pytest.mark.parametrize("asked", [0.05, 0.1, 0.3])
def test_scores_are_as_near_as_asked_for(model: IALS, asked: float, scale_users: bool) -> None:
    coded = quantize(model, TransformCoding(asked, scale_users))
    found = score_error(model, coded)
    assert 0.3 * asked < found < 1.1 * asked  # the bound takes no account of the wider zero


def test_more_error_is_fewer_bytes(model: IALS) -> None:
    sizes = [quantize(model, TransformCoding(e)).nbytes for e in (0.05, 0.1, 0.2, 0.4)]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < 0.5 * sizes[0]


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_less_error_than_row_wise_rounding_in_fewer_bytes(model: IALS, bits: int) -> None:
    plain = quantize(model, UniformQuantization(bits, granularity="row"))
    limit = score_error(model, plain)
    coded = quantize(model, TransformCoding(limit, scale_users=False))
    assert score_error(model, coded) < 1.1 * limit
    assert coded.nbytes < 0.85 * plain.nbytes


def test_row_scales_serve_users_with_small_scores(model: IALS) -> None:
    small = model.user_vectors * np.where(np.arange(600) < 300, 0.1, 1.0).astype("f4")[:, None]
    uneven = with_weights(model, {"user_vectors": small})
    users = np.arange(300)
    exact = uneven.score_all_items(users)
    errors = []
    for scale_users in (True, False):
        coded = quantize(uneven, TransformCoding(0.2, scale_users))
        errors.append(((coded.score_all_items(users) - exact) ** 2).sum() / (exact**2).sum())
    assert errors[0] < 0.6 * errors[1]


def test_rounding_up_later_makes_zeros_and_fewer_bytes(model: IALS) -> None:
    early, late = (quantize(model, TransformCoding(0.1, round_up_from=u)) for u in (0.5, 0.7))
    assert late.nbytes < early.nbytes
    assert late.report.sparsity > early.report.sparsity
    flat = quantize(model, TransformCoding(0.1, user_exponent=0.0))
    none = quantize(model, TransformCoding(0.1, scale_users=False))
    np.testing.assert_allclose(flat.model.user_vectors, none.model.user_vectors, rtol=1e-5)


def test_sizes_as_contexts_give_equal_vectors_in_fewer_bytes(model: IALS) -> None:
    by_column, by_size = (
        quantize(model, TransformCoding(0.2, contexts=one)) for one in ("column", "size")
    )
    for name in ("user_vectors", "item_vectors"):
        before, after = (getattr(one.model, name) for one in (by_column, by_size))
        np.testing.assert_allclose(after, before, rtol=1e-6, atol=0)
        tensor = by_size.tensors[name]
        again = read_tensor(tensor.kind, tensor.header(), tensor.arrays())
        np.testing.assert_array_equal(again.decode(), after)
    assert by_size.nbytes < by_column.nbytes


def test_users_and_items_without_data_stay_zero() -> None:
    data = Interactions(USERS[:2000], ITEMS[:2000], num_users=610, num_items=310)
    model = IALS(embedding_dim=8, epochs=2).fit(data)
    coded = quantize(model, TransformCoding(0.1))
    assert (coded.model.item_vectors[300:] == 0).all()
    assert np.isfinite(coded.model.user_vectors).all()
    assert np.abs(coded.model.user_vectors[600:]).max() < 1e-3


def test_bad_input_is_named(model: IALS) -> None:
    for name, value in {
        "relative_error": -1,
        "user_exponent": 1.5,
        "round_up_from": 0.4,
        "contexts": "row",
    }.items():
        with pytest.raises(ValueError, match=f"{name} is"):
            TransformCoding(**{name: value})
    with pytest.raises(TypeError, match="Popularity"):
        quantize(Popularity().fit(DATA), TransformCoding())
    with pytest.raises(ValueError, match="allow a larger error"):
        quantize(model, TransformCoding(1e-5))
    zeros = with_weights(model, {"user_vectors": np.zeros((600, 24), np.float32)})
    with pytest.raises(ValueError, match="scores 0 everywhere"):
        quantize(zeros, TransformCoding())
