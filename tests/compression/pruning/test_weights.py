"""Weights: masks by magnitude as TFMOT has them, pruned models, and how sparse ones are stored."""

import math

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from recsys_lib.compression import named_weights
from recsys_lib.compression import pruning as p
from recsys_lib.compression.pruning import WeightPruning, magnitude_mask, prune
from recsys_lib.compression.pruning.sparse import BitmapTensor, CSRTensor, SparseMLP
from recsys_lib.compression.pruning.weights import GRANULARITIES, num_kept
from recsys_lib.compression.tfmot import load_tfmot
from recsys_lib.models import RatingModelConfig, build_rating_model

SHARE, FLOATS = st.floats(0, 0.999), st.floats(-8, 8, width=32)
SPARSITIES = [0.0, 0.1, 0.25, 0.3333, 0.5, 0.55, 0.7, 0.75, 0.8, 0.9, 0.95, 0.99, 0.999]


def matrix(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_masks_are_those_of_tfmot():
    load_tfmot()
    import tensorflow as tf
    from tensorflow_model_optimization.python.core.sparsity.keras import pruning_impl

    def theirs(weights, sparsity=None, block=(1, 1), pattern=None):
        variable = tf.Variable(weights)
        pruning = pruning_impl.Pruning(
            lambda: 0, [(variable, None, None)], lambda step: (True, tf.constant(sparsity)),
            block, "AVG", sparsity_m_by_n=pattern,
        )  # fmt: skip
        return pruning._maybe_update_block_mask(variable)[1].numpy().astype(bool)

    for seed, shape in enumerate([(16, 16), (64, 32), (12, 8), (128, 20)]):
        weights = matrix(shape, seed)
        for sparsity in SPARSITIES:
            mask = magnitude_mask(weights, sparsity)
            np.testing.assert_array_equal(mask, theirs(weights, sparsity))
            for block in ((4, 4), (2, 4), (4, 1)):
                mask = magnitude_mask(weights, sparsity, "block", block_size=block)
                np.testing.assert_array_equal(mask, theirs(weights, sparsity, block))
    for shape in ((8, 3), (16, 16), (6, 5), (7, 4), (3, 2)):  # groups that fit, and that do not
        for zeros, group in ((2, 4), (1, 4), (3, 4), (1, 2), (4, 8)):
            for weights in (matrix(shape), np.round(matrix(shape))):  # rounded: with many ties
                mask = magnitude_mask(weights, zeros / group, "n_of_m", group_size=group)
                expected = theirs(weights, pattern=(zeros, group))
                np.testing.assert_array_equal(mask, expected)
    # Where it differs: asked for 4 it keeps all that are equal to the fourth;
    ties, uneven = np.float32([[3, 1, 1, 1], [2, 1, 1, 1]]), np.full((5, 8), 0.1, np.float32)
    assert theirs(ties, 0.5).sum() == 8 and magnitude_mask(ties, 0.5).sum() == 4
    # it pads at both ends, so it measures rows 0-2 and 3-4, and removes blocks of 4 and 1 rows.
    uneven[3] = 1.0
    masks = theirs(uneven, 0.5, (4, 4)), magnitude_mask(uneven, 0.5, "block")
    assert masks[0].all(axis=1).tolist() == [False] * 4 + [True]
    assert masks[1].all(axis=1).tolist() == [True] * 4 + [False]


@pytest.mark.parametrize("size", [1, 2, 7, 10, 33, 65536])
def test_exactly_as_many_are_kept_as_documented_and_of_equal_ones_the_first(size):
    for values in (matrix((1, size))[0], np.ones(size, np.float32)):
        for sparsity in SPARSITIES:
            assert magnitude_mask(values, sparsity).sum() == (kept := num_kept(size, sparsity))
    assert magnitude_mask(values, sparsity)[:kept].all()
    pattern = magnitude_mask(np.ones((8, 1), np.float32), 0.5, "n_of_m")
    assert pattern.ravel().tolist() == [True, True, False, False] * 2


@settings(max_examples=150, deadline=None)
@given(
    arrays(np.float32, (7, 6), elements=st.sampled_from([0, 0.5, -0.5, -2]) | FLOATS),
    st.tuples(SHARE, SHARE).map(sorted),
    st.sampled_from(GRANULARITIES),
)
def test_masks_are_nested_and_the_smallest_go(weights, shares, granularity):
    less, more = (magnitude_mask(weights, share, granularity) for share in shares)
    assert not (more & ~less).any()
    mask, other = magnitude_mask(weights, shares[1]), weights != 0
    if not mask.all():
        assert np.abs(weights[~mask]).max() <= np.abs(weights[mask]).min()
    # Pruning again what was pruned removes nothing more.
    again = magnitude_mask(weights * mask, shares[1])
    np.testing.assert_array_equal(again & other, mask & other)


def test_rows_and_blocks_go_as_a_whole():
    weights = matrix((12, 8))
    rows = magnitude_mask(weights, 0.5, "row")
    assert sorted(rows.sum(axis=1)) == [0] * 6 + [8] * 6
    blocks = magnitude_mask(weights, 0.5, "block").reshape(3, 4, 2, 4).sum(axis=(1, 3))
    assert sorted(blocks.ravel()) == [0] * 3 + [16] * 3
    three = magnitude_mask(matrix((6, 8)).reshape(6, 4, 2), 0.5, "row")
    assert three.all(axis=(1, 2)).sum() == 3
    border = np.full((5, 3), 0.5, np.float32)  # its blocks are measured by what is there
    border[4, 2] = 0.75  # a block of one
    mask = magnitude_mask(border, 0.75, "block", block_size=(2, 2))
    assert mask.sum() == 1 + 4  # of 3 x 2 blocks, 1.5 rounds to 2: the small one, then the first
    assert mask[4, 2] and mask[:2, :2].all()


CONFIG = RatingModelConfig("mlp_ranker", 200, 150, embedding_dim=16, hidden_units=(32, 16))
RANKER = build_rating_model(CONFIG)


def test_a_budget_for_each_weight_or_a_global_one_that_differs_by_layer():
    names = ("dense_0/kernel", "item_embedding/embeddings")
    sparsity, before = dict(zip(names, (0.5, 0.9), strict=True)), named_weights(RANKER)
    for config in (WeightPruning(sparsity), WeightPruning(0.9, budget="global", names=names)):
        weights = named_weights(prune(RANKER, config).model)
        found = {name: np.mean(values == 0) for name, values in weights.items()}
        zeros = sum(found[name] * weights[name].size for name in names)
        if config.budget == "global":
            assert zeros == pytest.approx(0.9 * sum(weights[n].size for n in names), abs=1)
            assert abs(found[names[0]] - found[names[1]]) > 0.1
            kept = min(np.abs(weights[n])[weights[n] != 0].min() for n in names)
            assert kept >= max(np.abs(before[n])[weights[n] == 0].max() for n in names)
        else:
            assert {name: found[name] for name in names} == pytest.approx(sparsity, abs=1e-3)
        for name in before.keys() - names:
            np.testing.assert_array_equal(weights[name], before[name])


KINDS = [CSRTensor, BitmapTensor]
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
def test_what_is_stored_comes_back(through_bytes, values, layout):
    again = through_bytes(p.store_sparse(values, layout))
    np.testing.assert_array_equal(again.decode(), values, strict=True)
    assert again.shape == values.shape


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
    kinds = [p.store_sparse(sparse_matrix((200, 64), s)).kind for s in (0.0, 0.5, 0.8, 0.95, 0.99)]
    assert kinds == ["dense", "bitmap", "bitmap", "csr", "csr"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(200, 64), (64, 32), (30, 1000)])
def test_break_even(kind, shape):
    limit = p.break_even_sparsity(shape, kind.kind)
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

    dense = [keras.layers.Dense(n, act) for n, act in ((16, "relu"), (8, "relu"), (1, None))]
    model = keras.Sequential([keras.Input((20,)), *dense])
    model.layers[0].kernel.assign(sparse_matrix((20, 16), 0.9))
    model.layers[1].bias.assign(np.linspace(-1, 1, 8))
    mlp = SparseMLP([layer.get_weights() for layer in model.layers], sparse_from=sparse_from)
    assert mlp.sparse == (sparse_from < 1, sparse_from == 0, sparse_from == 0)
    inputs = np.random.default_rng(1).normal(size=(30, 20)).astype(np.float32)
    before, expected = inputs.copy(), model(inputs).numpy()
    np.testing.assert_allclose(mlp(inputs), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(inputs, before)


def test_refuses(refuses):
    four, cube, mask, config = np.ones(4), np.ones((2, 2, 2)), magnitude_mask, WeightPruning
    model, by_name = RANKER, {"dense_0/kernel": 0.5}
    kernel, bias = np.ones((3, 2), np.float32), np.ones(2, np.float32)
    refuses(
        ("sparsity", lambda: mask(four, 1.0)),
        ("weights holds", lambda: mask(four * np.nan, 0.5)),
        ("weights has shape", lambda: mask(np.ones((0, 4)), 0.5)),
        ("'row'", lambda: mask(four, 0.5, "row")),
        ("matrix", lambda: mask(cube, 0.5, "block")),
        ("matrix", lambda: mask(four, 0.5, "n_of_m")),
        ("granularity", lambda: mask(four, 0.5, "2:4")),
        ("block_size is 0", lambda: mask(four, 0.5, block_size=(0, 4))),
        ("block_size has shape", lambda: config(block_size=4)),
        ("group_size", lambda: mask(four, 0.5, group_size=1)),
        (r"sparsity\['a'\]", lambda: config({"a": -0.5})),
        ("sparsity is given by name", lambda: config(by_name, budget="global")),
        ("sparsity is given by name", lambda: config(by_name, names=("a",))),
        ("'element'", lambda: config(0.5, "row", budget="global")),
        ("names is", lambda: config(names="dense_0/kernel")),
        ("names names 'x'", lambda: prune(model, config(names=("x",)))),
        ("sparsity names 'x'", lambda: prune(model, config({"x": 0.5}))),
        ("at least one", lambda: prune(model, config({}))),
        ("bias has", lambda: prune(model, config({"dense_0/bias": 0.5}, "row"))),
        ("config", lambda: prune(model, 0.5)),
        ("layout", lambda: p.store_sparse(np.ones(3), "coo")),
        ("values holds", lambda: p.store_sparse(np.array([1, np.nan]))),
        ("layout", lambda: p.break_even_sparsity((3, 4), "dense")),
        ("shape", lambda: p.break_even_sparsity((0, 4), "csr")),
        ("layers", lambda: SparseMLP([])),
        (r"layers\[1\] kernel", lambda: SparseMLP([(kernel, bias)] * 2)),
        (r"layers\[0\] kernel", lambda: SparseMLP([(kernel, np.ones(3))])),
        ("sparse_from", lambda: SparseMLP([(kernel, bias)], sparse_from=1.5)),
        ("inputs", lambda: SparseMLP([(kernel, bias)])(np.ones(3))),
    )
