"""Sparse storage: round trips, bytes counted by hand, and where each layout pays."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from recsys_lib.compression.pruning import (
    SparseMLP,
    break_even_sparsity,
    magnitude_mask,
    store_sparse,
)
from recsys_lib.compression.pruning.sparse import BitmapTensor, CSRTensor
from recsys_lib.compression.tensors import DenseTensor, read_tensor

KINDS = [CSRTensor, BitmapTensor]


def sparse_matrix(shape: tuple[int, ...], sparsity: float, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return values * magnitude_mask(values, sparsity)


def array_bytes(tensor: CSRTensor | BitmapTensor | DenseTensor) -> int:
    return sum(array.nbytes for array in tensor.arrays().values())


@settings(max_examples=100, deadline=None)
@given(
    values=arrays(
        np.float32,
        array_shapes(min_dims=0, max_dims=3, max_side=9),
        elements=st.sampled_from([0, 0, 0, 1.5, -2, 1e-30]),
    ),
    layout=st.sampled_from(["csr", "bitmap", "dense", "smallest"]),
)
def test_what_is_stored_comes_back(values: np.ndarray, layout: str) -> None:
    tensor = store_sparse(values, layout)
    np.testing.assert_array_equal(tensor.decode(), values)
    assert tensor.decode().shape == tensor.shape == values.shape
    again = read_tensor(tensor.kind, tensor.header(), tensor.arrays())
    np.testing.assert_array_equal(again.decode(), values)
    assert again.nbytes == tensor.nbytes


def test_csr_is_that_of_scipy() -> None:
    values = sparse_matrix((50, 300), 0.9)
    stored = CSRTensor(values).arrays()
    theirs = scipy.sparse.csr_matrix(values)
    np.testing.assert_array_equal(stored["values"], theirs.data)
    np.testing.assert_array_equal(stored["columns"], theirs.indices)
    np.testing.assert_array_equal(np.cumsum(stored["row_lengths"]), theirs.indptr[1:])


@pytest.mark.parametrize(
    ("columns", "index_bytes"), [(256, 1), (257, 2), (65_536, 2), (65_537, 4), (1, 1)]
)
def test_indices_take_the_smallest_type_that_holds_them(columns: int, index_bytes: int) -> None:
    values = np.zeros((3, columns), np.float32)
    values[0, -1] = values[2, -1] = 1.0
    tensor = CSRTensor(values)
    assert tensor.arrays()["columns"].dtype.itemsize == index_bytes
    assert array_bytes(tensor) == 3 * 1 + 2 * (index_bytes + 4)
    np.testing.assert_array_equal(tensor.decode(), values)


def test_bytes_by_hand() -> None:
    values = sparse_matrix((100, 64), 0.9)  # 640 numbers remain
    assert array_bytes(CSRTensor(values)) == 100 + 640 * 5
    assert array_bytes(BitmapTensor(values)) == 6400 // 8 + 640 * 4
    assert array_bytes(CSRTensor(0 * values)) == 100


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(200, 64), (64, 32), (30, 1000)])
def test_break_even(kind: type[CSRTensor] | type[BitmapTensor], shape: tuple[int, int]) -> None:
    limit = break_even_sparsity(shape, kind.kind)
    dense_bytes = 4 * math.prod(shape)
    above, below = sparse_matrix(shape, limit + 0.01), sparse_matrix(shape, limit - 0.01)
    assert array_bytes(kind(above)) < dense_bytes < array_bytes(kind(below))


def test_the_smallest_layout_goes_from_dense_to_bitmap_to_csr() -> None:
    kinds = [store_sparse(sparse_matrix((200, 64), s)).kind for s in (0.0, 0.5, 0.8, 0.95, 0.99)]
    assert kinds == ["dense", "bitmap", "bitmap", "csr", "csr"]


def test_errors() -> None:
    for message, call in (
        ("layout is 'coo'", lambda: store_sparse(np.ones(3), "coo")),
        ("values holds 1 NaN", lambda: store_sparse(np.array([1, np.nan]))),
        (r"values has shape \(0,\)", lambda: store_sparse(np.zeros(0))),
        ("layout is 'dense'", lambda: break_even_sparsity((3, 4), "dense")),
        ("shape is 0", lambda: break_even_sparsity((0, 4), "csr")),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("kind", KINDS)
def test_parts_that_do_not_fit(kind: type[CSRTensor] | type[BitmapTensor]) -> None:
    tensor = kind(sparse_matrix((6, 8), 0.5))
    parts = tensor.arrays()
    with pytest.raises(ValueError, match="do not fit shape"):
        kind.from_parts(tensor.header(), parts | {"values": parts["values"][:-1]})
    with pytest.raises(ValueError, match="do not fit shape"):
        kind.from_parts({"shape": [7, 8]}, parts)
    if kind is CSRTensor:
        with pytest.raises(ValueError, match="columns reach"):
            kind.from_parts(tensor.header(), parts | {"columns": parts["columns"] + np.uint8(8)})


@pytest.mark.parametrize("sparse_from", [0.0, 0.8, 1.0])
def test_a_sparse_mlp_gives_what_keras_gives(sparse_from: float) -> None:
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((20,)), *(keras.layers.Dense(n, "relu") for n in (16, 8))]
    )
    model.add(keras.layers.Dense(1))
    model.layers[0].kernel.assign(sparse_matrix((20, 16), 0.9))
    model.layers[1].bias.assign(np.linspace(-1, 1, 8))
    layers = [layer.get_weights() for layer in model.layers]
    mlp = SparseMLP(layers, sparse_from=sparse_from)
    assert mlp.sparse == (sparse_from < 1, sparse_from == 0, sparse_from == 0)
    inputs = np.random.default_rng(1).normal(size=(30, 20)).astype(np.float32)
    before = inputs.copy()
    np.testing.assert_allclose(mlp(inputs), model(inputs).numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(inputs, before)


def test_errors_of_the_sparse_mlp() -> None:
    layer = np.ones((3, 2), np.float32), np.ones(2, np.float32)
    for message, call in (
        ("layers is empty", lambda: SparseMLP([])),
        (r"layers\[1\] has kernel \(3, 2\)", lambda: SparseMLP([layer, layer])),
        (r"layers\[0\] .* bias \(3,\)", lambda: SparseMLP([(layer[0], np.ones(3))])),
        ("sparse_from is 1.5", lambda: SparseMLP([layer], sparse_from=1.5)),
        ("kernel holds 6 NaN", lambda: SparseMLP([(np.full((3, 2), np.nan), layer[1])])),
        (r"inputs has shape \(3,\)", lambda: SparseMLP([layer])(np.ones(3))),
    ):
        with pytest.raises(ValueError, match=message):
            call()
