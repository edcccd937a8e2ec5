"""Objectives against Keras, against each other and against values worked out by hand."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from recsys_lib.objectives import bpr, sampled_softmax, sigmoid_cross_entropy, squared_error

finite = st.floats(-30, 30, width=32)


def test_equals_keras_losses_and_values_by_hand():
    rng, losses = np.random.default_rng(0), keras.losses
    labels, logits = rng.random((50, 1)).astype("float32"), rng.normal(size=(50, 1)).astype("f4")
    labels[:3], logits[:3] = [[0], [1], [1]], [[1000], [-1000], [1000]]  # costs 1000, 1000 and 0
    negatives = rng.normal(size=(50, 7)).astype("float32")
    first, both = np.eye(8, dtype="float32")[[0] * 50], np.hstack([logits, negatives])
    for objective, given_, theirs in (
        (sigmoid_cross_entropy, (labels, logits), losses.BinaryCrossentropy(True, reduction=None)),
        (squared_error, (labels, logits), losses.MeanSquaredError(reduction=None)),
    ):
        found = np.asarray(objective(*given_))
        np.testing.assert_allclose(found[:, 0], theirs(*given_), rtol=1e-6, atol=1e-7)
    softmax = losses.CategoricalCrossentropy(True, reduction=None)(first, both)
    np.testing.assert_allclose(sampled_softmax(logits[:, 0], negatives), softmax, rtol=1e-5)
    # sigmoid(log 3) = 3/4: a positive costs log(4/3).
    np.testing.assert_allclose(bpr([math.log(3)], [0.0]), [math.log(4 / 3)], rtol=1e-6)


@given(finite, finite)
def test_they_agree_where_they_are_the_same(positive, negative):
    pairwise = bpr([positive], [negative])
    np.testing.assert_allclose(sampled_softmax([positive], [[negative]]), pairwise, atol=1e-5)
    lead = [np.float32(positive) - np.float32(negative)]
    np.testing.assert_allclose(sigmoid_cross_entropy([1.0], lead), pairwise, atol=1e-5)


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
