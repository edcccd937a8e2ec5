"""Sparse storage: round trips, bytes counted by hand, and where each layout pays."""

import math

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from recsys_lib.compression.pruning import break_even_sparsity, magnitude_mask, store_sparse
from recsys_lib.compression.pruning.sparse import BitmapTensor, CSRTensor, SparseMLP
from recsys_lib.compression.tensors import read_tensor

KINDS = [CSRTensor, BitmapTensor]
LAYER = np.ones((3, 2), np.float32), np.ones(2, np.float32)
NUMBERS = st.sampled_from([0, 0, 0, 1.5, -2, 1e-30])


def sparse_matrix(shape, sparsity):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return values * magnitude_mask(values, sparsity)


def array_bytes(tensor):
    return sum(array.nbytes for array in tensor.arrays().values())


@settings(max_examples=100, deadline=None)
@given(
    values=arrays(np.float32, array_shapes(min_dims=0, max_dims=3, max_side=9), elements=NUMBERS),
    layout=st.sampled_from(["csr", "bitmap", "dense", "smallest"]),
)
def test_what_is_stored_comes_back(values, layout):
    tensor = store_sparse(values, layout)
    again = read_tensor(tensor.kind, tensor.header(), tensor.arrays())
    for stored in (tensor, again):
        np.testing.assert_array_equal(stored.decode(), values, strict=True)
    assert again.nbytes == tensor.nbytes and tensor.shape == values.shape


def test_csr_is_that_of_scipy_with_the_smallest_types_and_bytes_by_hand():
    values = sparse_matrix((50, 300), 0.9)
    stored, theirs = CSRTensor(values).arrays(), scipy.sparse.csr_matrix(values)
    np.testing.assert_array_equal(stored["values"], theirs.data)
    np.testing.assert_array_equal(stored["columns"], theirs.indices)
    np.testing.assert_array_equal(np.cumsum(stored["row_lengths"]), theirs.indptr[1:])
    for columns, size in ((1, 1), (256, 1), (257, 2), (65_536, 2), (65_537, 4)):
        values = np.zeros((3, columns), np.float32)
        values[0, -1] = values[2, -1] = 1.0
        assert array_bytes(CSRTensor(values)) == 3 * 1 + 2 * (size + 4)
        np.testing.assert_array_equal(CSRTensor(values).decode(), values)
    values = sparse_matrix((100, 64), 0.9)  # 640 numbers remain
    assert array_bytes(CSRTensor(values)) == 100 + 640 * 5
    assert array_bytes(BitmapTensor(values)) == 6400 // 8 + 640 * 4
    assert array_bytes(CSRTensor(0 * values)) == 100
    kinds = [store_sparse(sparse_matrix((200, 64), s)).kind for s in (0.0, 0.5, 0.8, 0.95, 0.99)]
    assert kinds == ["dense", "bitmap", "bitmap", "csr", "csr"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(200, 64), (64, 32), (30, 1000)])
def test_break_even(kind, shape):
    limit = break_even_sparsity(shape, kind.kind)
    above, below = sparse_matrix(shape, limit + 0.01), sparse_matrix(shape, limit - 0.01)
    assert array_bytes(kind(above)) < 4 * math.prod(shape) < array_bytes(kind(below))


@pytest.mark.parametrize("kind", KINDS)
def test_parts_that_do_not_fit(kind):
    header, parts = (tensor := kind(sparse_matrix((6, 8), 0.5))).header(), tensor.arrays()
    wrong = [({}, {"values": parts["values"][:n]}) for n in (1, -1)] + [({"shape": [7, 8]}, {})]
    if kind is CSRTensor:
        wrong.append(({}, {"columns": parts["columns"] + np.uint8(8)}))
    for some, others in wrong:
        with pytest.raises(ValueError, match=r"do not fit shape|columns holds"):
            kind.from_parts(header | some, parts | others).decode()


@pytest.mark.parametrize("sparse_from", [0.0, 0.8, 1.0])
def test_a_sparse_mlp_gives_what_keras_gives(sparse_from):
    import keras

    keras.utils.set_random_seed(0)
    dense = [keras.layers.Dense(n, act) for n, act in ((16, "relu"), (8, "relu"), (1, None))]
    model = keras.Sequential([keras.Input((20,)), *dense])
    model.layers[0].kernel.assign(sparse_matrix((20, 16), 0.9))
    model.layers[1].bias.assign(np.linspace(-1, 1, 8))
    mlp = SparseMLP([layer.get_weights() for layer in model.layers], sparse_from=sparse_from)
    assert mlp.sparse == (sparse_from < 1, sparse_from == 0, sparse_from == 0)
    inputs = np.random.default_rng(1).normal(size=(30, 20)).astype(np.float32)
    before = inputs.copy()
    np.testing.assert_allclose(mlp(inputs), model(inputs).numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(inputs, before)


def test_refuses():
    for message, call in (
        ("layout is 'coo'", lambda: store_sparse(np.ones(3), "coo")),
        ("values holds 1 NaN", lambda: store_sparse(np.array([1, np.nan]))),
        (r"values has shape \(0,\)", lambda: store_sparse(np.zeros(0))),
        ("layout is 'dense'", lambda: break_even_sparsity((3, 4), "dense")),
        ("shape is 0", lambda: break_even_sparsity((0, 4), "csr")),
        ("layers is empty", lambda: SparseMLP([])),
        (r"layers\[1\] kernel has shape \(3, 2\)", lambda: SparseMLP([LAYER, LAYER])),
        (r"layers\[0\] kernel", lambda: SparseMLP([(LAYER[0], np.ones(3))])),
        ("sparse_from is 1.5", lambda: SparseMLP([LAYER], sparse_from=1.5)),
        ("kernel holds 6 NaN", lambda: SparseMLP([(np.full((3, 2), np.nan), LAYER[1])])),
        (r"inputs has shape \(3,\)", lambda: SparseMLP([LAYER])(np.ones(3))),
    ):
        with pytest.raises(ValueError, match=message):
            call()
