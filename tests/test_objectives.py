"""Objectives against values worked out by hand, and against each other and Keras."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from recsys_lib.objectives import bpr, sampled_softmax, sigmoid_cross_entropy, squared_error

finite = st.floats(-30, 30, width=32)


@pytest.mark.parametrize(
    ("objective", "first", "second", "expected"),
    [
        (squared_error, [[5.0, 3.0], [1.0, 2.0]], [[4.0, 3.5], [1.0, 0.0]], [[1, 0.25], [0, 4]]),
        # sigmoid(log 3) = 3/4: a positive costs log(4/3), a negative log 4, a soft label between.
        (sigmoid_cross_entropy, [1.0, 0.0], [math.log(3)] * 2, [math.log(4 / 3), math.log(4)]),
        (sigmoid_cross_entropy, [0.5], [math.log(3)], [math.log(16 / 3) / 2]),
        (sigmoid_cross_entropy, [0.0, 1.0, 1.0], [1000.0, -1000.0, 1000.0], [1000, 1000, 0]),
        (bpr, [math.log(3)], [0.0], [math.log(4 / 3)]),
        (sampled_softmax, [math.log(2)], [[0.0, math.log(5)]], [math.log(4)]),
    ],
)
def test_by_hand(objective, first, second, expected):
    np.testing.assert_allclose(objective(first, second), expected, rtol=1e-6)


@given(finite, finite)
def test_they_agree_where_they_are_the_same(positive, negative):
    pairwise = bpr([positive], [negative])
    np.testing.assert_allclose(sampled_softmax([positive], [[negative]]), pairwise, atol=1e-5)
    lead = [np.float32(positive) - np.float32(negative)]
    np.testing.assert_allclose(sigmoid_cross_entropy([1.0], lead), pairwise, atol=1e-5)


def test_equals_keras_losses():
    rng = np.random.default_rng(0)
    labels, logits = rng.random(50).astype("float32"), rng.normal(size=50).astype("float32")
    negatives = rng.normal(size=(50, 7)).astype("float32")
    both = np.concatenate([logits[:, None], negatives], axis=1)
    first = np.eye(8, dtype="float32")[[0] * 50]
    theirs = keras.losses
    for ours, wanted in (
        (sigmoid_cross_entropy(labels, logits), theirs.BinaryCrossentropy(True)(labels, logits)),
        (squared_error(labels, logits), theirs.MeanSquaredError()(labels, logits)),
        (sampled_softmax(logits, negatives), theirs.CategoricalCrossentropy(True)(first, both)),
    ):
        np.testing.assert_allclose(np.mean(ours), wanted, rtol=1e-6)


@pytest.mark.parametrize("objective", [squared_error, sigmoid_cross_entropy, bpr])
def test_nothing_is_broadcast_and_a_batch_of_unknown_size_is_checked_in_a_graph(objective):
    for shapes in (((3,), (3, 1)), ((3, 4), (3, 1)), ((3,), (4,)), ((), (3,))):
        with pytest.raises(ValueError, match="expected the same shape"):
            objective(*(np.zeros(shape, "float32") for shape in shapes))
    spec = [tf.TensorSpec([None]), tf.TensorSpec([None, 1])]
    with pytest.raises(ValueError, match="expected the same shape"):
        tf.function(objective, input_signature=spec).get_concrete_function()


def test_sampled_softmax_refuses_other_shapes():
    for shapes in (((3,), (3,)), ((3, 1), (3, 2)), ((3,), (4, 2)), ((3,), (3, 0))):
        with pytest.raises(ValueError, match="negative_logits"):
            sampled_softmax(*map(np.zeros, shapes))
