"""Losses by hand, in plain loops, against Keras, and against PyTorch with a gradient step."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recsys_lib.compression.distillation import losses
from recsys_lib.compression.distillation.losses import relaxed_ranking_loss, soft_loss

RNG = np.random.default_rng(0)
matrices = arrays(np.float32, (3, 4), elements=st.floats(-20, 20, width=32))


def test_keras_agrees_where_its_default_forgets_softmax_and_temperature():
    """Its string "kl_divergence" becomes a function, and only the class is treated as it should."""
    teacher, student = np.float32([[6, 3, 0]]), np.float32([[0, 3, 6]])
    ours = float(losses.softmax_kl_divergence(teacher, student, temperature=3.0)[0])
    theirs = keras.distillation.LogitsDistillation(3.0, keras.losses.KLDivergence())
    assert float(theirs.compute_loss(teacher, student)) == pytest.approx(ours, rel=1e-4)
    default = keras.distillation.LogitsDistillation(3.0)
    assert abs(float(default.compute_loss(teacher, student)) - ours) > 1


@settings(deadline=None, max_examples=30)
@given(matrices, matrices, st.sampled_from([0.5, 1.0, 2.0, 10.0]))
def test_the_listwise_loss_has_the_gradient_of_the_docstring(teacher, student, temperature):
    p, s = (np.asarray(tf.nn.softmax(x / temperature)) for x in (teacher, student))
    variable = tf.Variable(student)
    with tf.GradientTape() as tape:
        divergence = losses.softmax_kl_divergence(teacher, variable, temperature=temperature)
    found = tape.gradient(divergence, variable)
    np.testing.assert_allclose(found, temperature * (s - p), atol=2e-5 * temperature)
    assert np.all(np.asarray(divergence) >= -1e-4)
    np.testing.assert_array_equal(losses.softmax_kl_divergence(teacher, teacher), 0)
    # At a high temperature it is half of the variance of the difference.
    teacher, student = (tf.constant(x, tf.float64) for x in (teacher, student))
    hot = losses.softmax_kl_divergence(teacher, student, temperature=1e5)
    np.testing.assert_allclose(hot, np.var(teacher - student, axis=1) / 2, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["listwise", "binary", "regression"])
def test_no_gradient_reaches_the_teacher_and_shapes_must_agree(name):
    loss = soft_loss(name, temperature=2.0)
    teacher, student = tf.Variable([[1.0, 2.0]]), tf.Variable([[0.0, 0.0]])
    with tf.GradientTape() as tape:
        value = loss(teacher, student)
    to_teacher, to_student = tape.gradient(value, [teacher, student])
    assert to_teacher is None and np.abs(to_student).sum() > 0
    with pytest.raises(ValueError, match="student_logits"):
        loss(np.zeros(3, np.float32), np.zeros((3, 1), np.float32))


@pytest.mark.parametrize("loss", [losses.softmax_kl_divergence, losses.soft_sigmoid_cross_entropy])
def test_temperature_is_above_zero_and_logits_far_out_stay_finite(loss):
    far = np.float32([[1e4, -1e4]])
    assert np.isfinite([loss(far, -far), loss(far, far)]).all()
    for temperature in (0, math.nan, "2"):
        with pytest.raises((TypeError, ValueError), match="temperature"):
            loss(far, far, temperature=temperature)


def test_relaxed_ranking_loss_equals_loops():
    """The likelihood of equation 8 of Kang et al., one factor after the other, in float64."""
    s, z = RNG.normal(0, 2, (5, 4)), RNG.normal(0, 2, (5, 7))
    expected = np.zeros(5)
    for row, k in np.ndindex(5, 4):
        rest = sum(math.exp(x) for x in [*s[row, k:], *z[row]])
        expected[row] -= math.log(math.exp(s[row, k]) / rest)
    got = relaxed_ranking_loss(s.astype(np.float32), z.astype(np.float32))
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    s, z = np.float32([[90.0, 80.0]]), np.float32([[100.0, -200.0, 70.0]])  # no overflow
    loss = float(relaxed_ranking_loss(s, z)[0])
    assert loss == pytest.approx(float(relaxed_ranking_loss(s, z[:, ::-1])[0]), rel=1e-6)
    assert loss < float(relaxed_ranking_loss(s[:, ::-1], z)[0])  # the order of the others counts
    for shapes in (((2, 3), (3, 3)), ((3,), (3, 2)), ((2, 3), (2, 0))):
        with pytest.raises(ValueError, match="interesting"):
            relaxed_ranking_loss(*(np.zeros(shape, np.float32) for shape in shapes))


@pytest.mark.parametrize("kind", ["listwise", "binary", "regression"])
def test_loss_and_one_step_of_gradient_descent_are_those_of_pytorch(kind):
    """A small student learns from labels and a teacher, here and there, from the same start."""
    torch = pytest.importorskip("torch", reason="`make test` installs it")
    functional, (temperature, weight, rate) = torch.nn.functional, (3.0, 0.7, 0.5)
    random = np.random.default_rng(0)
    tables = [random.normal(size=(n, 4)).astype(np.float32) for n in (16, 5)]
    teacher = random.normal(size=(16, 5)).astype(np.float32) * 3
    labels = random.integers(0, 2, (16, 5)).astype(np.float32)

    ours = [tf.Variable(values) for values in tables]
    with tf.GradientTape() as tape:
        logits = ours[0] @ tf.transpose(ours[1])
        hard = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits))
        soft = tf.reduce_mean(soft_loss(kind, temperature)(teacher, logits))
        loss = (1 - weight) * hard + weight * soft
    keras.optimizers.SGD(rate).apply(tape.gradient(loss, ours), ours)

    theirs = [torch.tensor(values, requires_grad=True) for values in tables]
    scores, wanted = theirs[0] @ theirs[1].T, torch.tensor(teacher)
    cooler, target = scores / temperature, wanted / temperature
    pair = functional.log_softmax(cooler, dim=1), functional.softmax(target, dim=1)
    entropy = functional.binary_cross_entropy_with_logits
    soft = {
        "listwise": temperature**2 * functional.kl_div(*pair, reduction="batchmean"),
        "binary": temperature**2 * entropy(cooler, torch.sigmoid(target)),
        "regression": functional.mse_loss(scores, wanted),
    }[kind]
    total = (1 - weight) * entropy(scores, torch.tensor(labels)) + weight * soft
    total.backward()

    assert float(loss) == pytest.approx(total.item(), rel=1e-6)
    for start, our, their in zip(tables, ours, theirs, strict=True):
        moved = (their - rate * their.grad).detach().numpy()
        assert np.abs(moved - start).max() > 1e-3  # the step did something
        np.testing.assert_allclose(our.numpy(), moved, rtol=1e-5, atol=1e-6)
