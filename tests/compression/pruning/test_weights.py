"""Weights: masks by magnitude as TFMOT has them, and models that are pruned by them."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recsys_lib.compression import named_weights, with_weights
from recsys_lib.compression.pruning import WeightPruning, magnitude_mask, prune
from recsys_lib.compression.pruning.weights import GRANULARITIES, num_kept
from recsys_lib.data import Interactions
from recsys_lib.models import IALS, RatingModelConfig, build_rating_model
from recsys_lib.training import KerasRecommender

SHARE, FLOATS = st.floats(0, 0.999), st.floats(-8, 8, width=32)
SPARSITIES = [0.0, 0.1, 0.25, 0.3333, 0.5, 0.55, 0.7, 0.75, 0.8, 0.9, 0.95, 0.99, 0.999]
TIES, UNEVEN = np.float32([[3, 1, 1, 1], [2, 1, 1, 1]]), np.full((5, 8), 0.1, np.float32)
UNEVEN[3] = 1.0

# Runs in a process of its own: importing TFMOT switches tf.keras to Keras 2 for the whole process.
TFMOT = """
import json, sys
import numpy as np
import tensorflow as tf
from tensorflow_model_optimization.python.core.sparsity.keras import pruning_impl

def mask(weights, sparsity=None, block=(1, 1), pattern=None):
    schedule = lambda step: (True, tf.constant(sparsity, tf.float32))
    variable = tf.Variable(np.float32(weights))
    pruning = pruning_impl.Pruning(lambda: 0, [(variable, None, None)], schedule, block, "AVG",
                                   sparsity_m_by_n=pattern)
    return pruning._maybe_update_block_mask(variable)[1].numpy().astype(int).tolist()

print("MASKS" + json.dumps([mask(*job) for job in json.load(sys.stdin)]))
"""


def matrix(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.slow
def test_masks_are_those_of_tfmot():
    jobs, ours = [], []
    for seed, shape in enumerate([(16, 16), (64, 32), (12, 8), (128, 20)]):
        weights = matrix(shape, seed)
        for sparsity in SPARSITIES:
            jobs.append((weights, sparsity))
            ours.append(magnitude_mask(weights, sparsity))
            for block in ((4, 4), (2, 4), (4, 1)):
                jobs.append((weights, sparsity, block))
                ours.append(magnitude_mask(weights, sparsity, "block", block_size=block))
    for shape in ((8, 3), (16, 16), (6, 5), (7, 4), (3, 2)):  # groups that fit, and that do not
        for zeros, group in ((2, 4), (1, 4), (3, 4), (1, 2), (4, 8)):
            for weights in (matrix(shape), np.round(matrix(shape))):  # rounded: with many ties
                jobs.append((weights, None, (1, 1), (zeros, group)))
                ours.append(magnitude_mask(weights, zeros / group, "n_of_m", group_size=group))
    jobs += [(TIES, 0.5), (UNEVEN, 0.5, (4, 4))]
    listed = json.dumps([(weights.tolist(), *rest) for weights, *rest in jobs])
    printed = subprocess.check_output([sys.executable, "-c", TFMOT], input=listed, text=True)
    *masks, tied, padded = (np.array(m, bool) for m in json.loads(printed.split("MASKS")[1]))
    for job, theirs, mine in zip(jobs[:-2], masks, ours, strict=True):
        np.testing.assert_array_equal(mine, theirs, err_msg=str(job)[-120:])
    # Where it differs: asked for 4 it keeps all that are equal to the fourth;
    assert tied.sum() == 8 and magnitude_mask(TIES, 0.5).sum() == 4
    # it pads at both ends, so it measures rows 0-2 and 3-4, and removes blocks of 4 and 1 rows.
    mask = magnitude_mask(UNEVEN, 0.5, "block")
    assert padded.all(axis=1).tolist() == [False] * 4 + [True]
    assert mask.all(axis=1).tolist() == [True] * 4 + [False]


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
    assert set(rows.sum(axis=1)) == {0, 8}
    assert rows.all(axis=1).sum() == 6
    blocks = magnitude_mask(weights, 0.5, "block").reshape(3, 4, 2, 4).sum(axis=(1, 3))
    assert sorted(set(blocks.ravel())) == [0, 16]
    assert (blocks == 16).sum() == 3
    three = magnitude_mask(matrix((6, 8)).reshape(6, 4, 2), 0.5, "row")
    assert three.all(axis=(1, 2)).sum() == 3
    border = np.full((5, 3), 0.5, np.float32)  # its blocks are measured by what is there
    border[4, 2] = 0.75  # a block of one
    mask = magnitude_mask(border, 0.75, "block", block_size=(2, 2))
    assert mask.sum() == 1 + 4  # of 3 x 2 blocks, 1.5 rounds to 2: the small one, then the first
    assert mask[4, 2] and mask[:2, :2].all()


CONFIG = RatingModelConfig("mlp_ranker", 200, 150, embedding_dim=16, hidden_units=(32, 16))
DATA = Interactions(np.arange(200), np.arange(200) % 150, num_users=200, num_items=150)


RANKER = build_rating_model(CONFIG)


@pytest.mark.parametrize("kind", ["keras", "tf_keras", "ials", "recommender"])
def test_each_kind_of_model_is_pruned_into_a_new_one(kind):
    if kind == "ials":
        model = IALS(embedding_dim=16, epochs=1).fit(DATA)
    elif kind == "recommender":
        model = KerasRecommender(CONFIG, epochs=1, progress=False).fit(DATA)
    else:
        keras = pytest.importorskip("tf_keras") if kind == "tf_keras" else None
        model = build_rating_model(CONFIG, keras=keras)
    before = named_weights(model)
    pruned = prune(model, WeightPruning(0.8))
    assert type(pruned.model) is type(model)
    for name, values in named_weights(pruned.model).items():
        mask = magnitude_mask(before[name], 0.8) if values.ndim > 1 else 1
        np.testing.assert_array_equal(values, before[name] * mask)
        np.testing.assert_array_equal(named_weights(model)[name], before[name])
        np.testing.assert_array_equal(pruned.tensors[name].decode(), values)
    assert pruned.nbytes < 0.35 * pruned.report.bytes_before
    assert pruned.nbytes == pruned.report.bytes_after
    assert pruned.score([3], [4]).shape == (1,)


def test_a_budget_for_each_weight_or_a_global_one_that_differs_by_layer():
    sparsity = {"dense_0/kernel": 0.5, "item_embedding/embeddings": 0.9}
    report = prune(RANKER, WeightPruning(sparsity)).report
    found = {tensor.name: tensor.sparsity for tensor in report.tensors if tensor.sparsity > 0}
    biases = {name: 1.0 for name in found if name.endswith("bias")}  # zeros from the start
    assert found == pytest.approx(sparsity | biases, abs=1e-3)
    names = ("dense_0/kernel", "item_embedding/embeddings")
    pruned = prune(RANKER, WeightPruning(0.9, budget="global", names=names))
    weights = named_weights(pruned.model)
    zeros = sum(int((weights[name] == 0).sum()) for name in names)
    assert zeros == pytest.approx(0.9 * sum(weights[name].size for name in names), abs=1)
    shares = [float((weights[name] == 0).mean()) for name in names]
    assert abs(shares[0] - shares[1]) > 0.1
    users = (found["user_embedding/embeddings"] for found in (weights, named_weights(RANKER)))
    np.testing.assert_array_equal(*users)


def test_refuses():
    four, cube, mask, config = np.ones(4), np.ones((2, 2, 2)), magnitude_mask, WeightPruning
    model, by_name = RANKER, {"dense_0/kernel": 0.5}
    broken = with_weights(model, {})
    broken.get_layer("dense_0").kernel.assign(np.full((32, 32), np.nan))
    for message, call in (
        ("sparsity is 1.0", lambda: mask(four, 1.0)),
        ("sparsity is nan", lambda: mask(four, float("nan"))),
        ("weights holds 4 NaN", lambda: mask(four * np.nan, 0.5)),
        (r"weights has shape \(0, 4\)", lambda: mask(np.ones((0, 4)), 0.5)),
        ("expected a matrix for 'row'", lambda: mask(four, 0.5, "row")),
        ("expected a matrix", lambda: mask(cube, 0.5, "block")),
        ("expected a matrix", lambda: mask(four, 0.5, "n_of_m")),
        ("granularity is '2:4'", lambda: mask(four, 0.5, "2:4")),
        ("block_size is 0", lambda: mask(four, 0.5, block_size=(0, 4))),
        ("block_size has shape", lambda: config(block_size=4)),
        ("group_size is 1", lambda: mask(four, 0.5, group_size=1)),
        ("weights is of type int64", lambda: mask([[1, 2]], 0.5)),
        (r"sparsity\['a'\] is -0.5", lambda: config({"a": -0.5})),
        ("sparsity is given by name", lambda: config(by_name, budget="global")),
        ("sparsity is given by name", lambda: config(by_name, names=("a",))),
        ("expected 'element'", lambda: config(0.5, "row", budget="global")),
        ("names is 'dense", lambda: config(names="dense_0/kernel")),
        ("names names 'x'", lambda: prune(model, config(names=("x",)))),
        ("sparsity names 'x'", lambda: prune(model, config({"x": 0.5}))),
        ("expected at least one", lambda: prune(model, config({}))),
        ("bias has", lambda: prune(model, config({"dense_0/bias": 0.5}, "row"))),
        ("config is of type float", lambda: prune(model, 0.5)),
        ("dense_0/kernel holds 1024 NaN", lambda: prune(broken, config())),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            call()
