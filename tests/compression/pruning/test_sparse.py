"""Sparse storage: round trips, bytes counted by hand, and where each layout pays."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from recsys_lib.compression import DenseTensor, read_tensor
from recsys_lib.compression.pruning import (
    SparseMLP,
    break_even_sparsity,
    magnitude_mask,
    store_sparse,
)

from recsys_lib.compression.pruning.sparse import BitmapTensor, CSRTensor

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


def test_row_lengths_take_two_bytes_where_a_row_has_more_than_255() -> None:
    assert CSRTensor(np.ones((2, 255), np.float32)).arrays()["row_lengths"].dtype == np.uint8
    assert CSRTensor(np.ones((2, 256), np.float32)).arrays()["row_lengths"].dtype == np.uint16


def test_bytes_by_hand() -> None:
    values = sparse_matrix((100, 64), 0.9)  # 640 numbers remain
    assert array_bytes(CSRTensor(values)) == 100 + 640 * 5
    assert array_bytes(BitmapTensor(values)) == 6400 // 8 + 640 * 4
    file = io.BytesIO()
    np.savez(file, **CSRTensor(values).arrays())
    assert len(file.getvalue()) >= array_bytes(CSRTensor(values))  # nothing is left out


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


def test_a_matrix_of_zeros() -> None:
    zeros = np.zeros((10, 10), np.float32)
    assert array_bytes(CSRTensor(zeros)) == 10
    np.testing.assert_array_equal(store_sparse(zeros).decode(), zeros)


def test_errors() -> None:
    with pytest.raises(ValueError, match="layout is 'coo': expected one of csr, bitmap"):
        store_sparse(np.ones(3), "coo")
    with pytest.raises(ValueError, match="values holds 1 NaN"):
        CSRTensor(np.array([1, np.nan]))
    with pytest.raises(ValueError, match=r"values has shape \(0,\)"):
        BitmapTensor(np.zeros(0))
    with pytest.raises(ValueError, match="layout is 'dense': expected one of csr, bitmap"):
        break_even_sparsity((3, 4), "dense")
    with pytest.raises(ValueError, match="shape is 0"):
        break_even_sparsity((0, 4), "csr")


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
    assert (
        mlp.sparse
        == {
            0.0: (True, True, True),
            0.8: (True, False, False),
            1.0: (False, False, False),
        }[sparse_from]
    )
    inputs = np.random.default_rng(1).normal(size=(30, 20)).astype(np.float32)
    before = inputs.copy()
    np.testing.assert_allclose(mlp(inputs), model(inputs).numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(inputs, before)


def test_errors_of_the_sparse_mlp() -> None:
    layer = np.ones((3, 2), np.float32), np.ones(2, np.float32)
    with pytest.raises(ValueError, match="layers is empty"):
        SparseMLP([])
    with pytest.raises(ValueError, match=r"layers\[1\] has kernel \(3, 2\) .* expected \(2, outp"):
        SparseMLP([layer, layer])
    with pytest.raises(ValueError, match=r"layers\[0\] has kernel \(3, 2\) and bias \(3,\)"):
        SparseMLP([(layer[0], np.ones(3))])
    with pytest.raises(ValueError, match=r"sparse_from is 1.5: expected a number in \[0, 1\]"):
        SparseMLP([layer], sparse_from=1.5)
    with pytest.raises(ValueError, match=r"layers\[0\] kernel holds 6 NaN"):
        SparseMLP([(np.full((3, 2), np.nan), layer[1])])
    with pytest.raises(ValueError, match=r"inputs has shape \(3,\): expected \(n, 3\)"):
        SparseMLP([layer])(np.ones(3))
