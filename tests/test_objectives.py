"""Objectives against values worked out by hand, and against each other."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_lib.objectives import bpr, sampled_softmax, sigmoid_cross_entropy, squared_error

finite = st.floats(-30, 30, width=32)


def test_squared_error_by_hand():
    loss = squared_error([[5.0, 3.0], [1.0, 2.0]], [[4.0, 3.5], [1.0, 0.0]])
    np.testing.assert_allclose(loss, [[1.0, 0.25], [0.0, 4.0]])


def test_sigmoid_cross_entropy_by_hand():
    # sigmoid(log 3) = 3/4: a positive costs log(4/3), a negative log 4, a soft label between.
    logit = math.log(3)
    expected = [math.log(4 / 3), math.log(4), 0.75 * math.log(4 / 3) + 0.25 * math.log(4)]
    np.testing.assert_allclose(
        sigmoid_cross_entropy([1.0, 0.0, 0.75], [logit] * 3), expected, rtol=1e-6
    )


def test_sigmoid_cross_entropy_does_not_overflow():
    loss = np.asarray(sigmoid_cross_entropy([0.0, 1.0, 1.0], [1000.0, -1000.0, 1000.0]))
    np.testing.assert_allclose(loss, [1000.0, 1000.0, 0.0])


def test_bpr_by_hand():
    # A lead of log 3 is right with probability 3/4.
    np.testing.assert_allclose(bpr([math.log(3)], [0.0]), [math.log(4 / 3)], rtol=1e-6)


def test_sampled_softmax_by_hand():
    # exp: 2 / (2 + 1 + 5) = 1/4.
    loss = sampled_softmax([math.log(2)], [[0.0, math.log(5)]])
    np.testing.assert_allclose(loss, [math.log(4)], rtol=1e-6)


def test_sampled_softmax_correction_by_hand():
    # Divided by the draw probabilities 1/2, 1/4, 1/4: 4 / (4 + 4 + 20) = 1/7.
    quarter = math.log(0.25)
    loss = sampled_softmax(
        [math.log(2)],
        [[0.0, math.log(5)]],
        positive_log_q=[math.log(0.5)],
        negative_log_q=[[quarter, quarter]],
    )
    np.testing.assert_allclose(loss, [math.log(7)], rtol=1e-6)


@given(finite, finite)
def test_sampled_softmax_with_one_negative_is_bpr(positive, negative):
    np.testing.assert_allclose(
        sampled_softmax([positive], [[negative]]), bpr([positive], [negative]), atol=1e-5
    )


@given(finite, finite)
def test_bpr_is_cross_entropy_of_the_difference(positive, negative):
    np.testing.assert_allclose(
        bpr([positive], [negative]),
        sigmoid_cross_entropy([1.0], [np.float32(positive) - np.float32(negative)]),
        atol=1e-5,
    )


def test_equals_keras_losses():
    import keras

    rng = np.random.default_rng(0)
    labels, logits = rng.random(50).astype("float32"), rng.normal(size=50).astype("float32")
    ours = np.mean(sigmoid_cross_entropy(labels, logits))
    theirs = keras.losses.BinaryCrossentropy(from_logits=True)(labels, logits)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    np.testing.assert_allclose(
        np.mean(squared_error(labels, logits)),
        keras.losses.MeanSquaredError()(labels, logits),
        rtol=1e-6,
    )
    negatives = rng.normal(size=(50, 7)).astype("float32")
    both = np.concatenate([logits[:, None], negatives], axis=1)
    theirs = keras.losses.CategoricalCrossentropy(from_logits=True)(
        np.eye(8, dtype="float32")[[0] * 50], both
    )
    np.testing.assert_allclose(np.mean(sampled_softmax(logits, negatives)), theirs, rtol=1e-6)


@pytest.mark.parametrize("objective", [squared_error, sigmoid_cross_entropy, bpr])
@pytest.mark.parametrize("shapes", [((3,), (3, 1)), ((3, 4), (3, 1)), ((3,), (4,)), ((), (3,))])
def test_nothing_is_broadcast(objective, shapes):
    first, second = (np.zeros(shape, "float32") for shape in shapes)
    with pytest.raises(ValueError, match="expected the same shape"):
        objective(first, second)


@pytest.mark.parametrize("objective", [squared_error, sigmoid_cross_entropy, bpr])
def test_labels_of_unknown_batch_size_are_still_checked_in_a_graph(objective):
    import tensorflow as tf

    spec = [tf.TensorSpec([None]), tf.TensorSpec([None, 1])]
    with pytest.raises(ValueError, match="expected the same shape"):
        tf.function(objective, input_signature=spec).get_concrete_function()


@pytest.mark.parametrize(
    ("positive", "negative", "message"),
    [
        (np.zeros(3), np.zeros(3), "expected \\(n,\\) and \\(n, m\\)"),
        (np.zeros((3, 1)), np.zeros((3, 2)), "expected \\(n,\\) and \\(n, m\\)"),
        (np.zeros(3), np.zeros((4, 2)), "expected \\(n,\\) and \\(n, m\\)"),
        (np.zeros(3), np.zeros((3, 0)), "teaches nothing"),
    ],
)
def test_sampled_softmax_refuses_other_shapes(positive, negative, message):
    with pytest.raises(ValueError, match=message):
        sampled_softmax(positive, negative)


def test_sampled_softmax_wants_both_corrections():
    with pytest.raises(ValueError, match="both or neither"):
        sampled_softmax([0.0], [[0.0]], positive_log_q=[0.0])
