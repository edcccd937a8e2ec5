"""Losses by hand, in plain loops, against Keras, and against PyTorch with a gradient step."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recsys_lib.compression.distillation.losses import (
    relaxed_ranking_loss,
    soft_loss,
    soft_sigmoid_cross_entropy,
    softmax_kl_divergence,
)

WITH_TEMPERATURE = (softmax_kl_divergence, soft_sigmoid_cross_entropy)
RNG = np.random.default_rng(0)
matrices = arrays(np.float32, (3, 4), elements=st.floats(-20, 20, width=32))


def gradient(function, student):
    student = tf.Variable(student)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(function(student))
    return tape.gradient(loss, student).numpy()


def test_binary_by_hand():
    # At T = 2 the teacher's logit 2 log 3 is 3/4, the student's 2 log 4 is 4/5; T² = 4.
    expected = -4 * (0.75 * math.log(4 / 5) + 0.25 * math.log(1 / 5))
    loss = soft_sigmoid_cross_entropy([2 * math.log(3)], [2 * math.log(4)], temperature=2)
    np.testing.assert_allclose(loss, [expected], rtol=1e-6)


def test_listwise_by_hand():
    # exp(teacher / 2) = 1, 2, 1 and exp(student / 2) = 1, 1, 2: p = 1/4 1/2 1/4, s = 1/4 1/4 1/2.
    teacher, student = [[0.0, 2 * math.log(2), 0.0]], [[0.0, 0.0, 2 * math.log(2)]]
    cross = -4 * (0.25 * math.log(1 / 4) + 0.5 * math.log(1 / 4) + 0.25 * math.log(1 / 2))
    entropy = -4 * (0.5 * math.log(1 / 4) + 0.5 * math.log(1 / 2))
    np.testing.assert_allclose(
        softmax_kl_divergence(teacher, student, temperature=2.0), [cross - entropy], rtol=1e-5
    )


def test_keras_default_forgets_softmax_and_temperature():
    """Its string "kl_divergence" becomes a function, and only the class is treated as it should."""
    teacher, student, temperature = np.float32([[6, 3, 0]]), np.float32([[0, 3, 6]]), 3.0
    # exp(2) = 7.389, e = 2.718, 1: p = .66524, .24473, .09003, and s is p backwards.
    p = np.array([math.e**2, math.e, 1]) / (math.e**2 + math.e + 1)
    by_hand = 9 * float(np.sum(p * np.log(p / p[::-1])))
    ours = float(softmax_kl_divergence(teacher, student, temperature=temperature)[0])
    assert ours == pytest.approx(by_hand, rel=1e-5)

    losses = keras.distillation.LogitsDistillation(temperature, keras.losses.KLDivergence())
    assert float(losses.compute_loss(teacher, student)) == pytest.approx(by_hand, rel=1e-4)
    default = keras.distillation.LogitsDistillation(temperature)
    # What it computes instead: logits / T, cut off at 1e-7 and 1, taken for probabilities.
    cut_teacher, cut_student = (np.clip(x / temperature, 1e-7, 1) for x in (teacher, student))
    nonsense = float(np.sum(cut_teacher * np.log(cut_teacher / cut_student)))
    assert float(default.compute_loss(teacher, student)) == pytest.approx(nonsense, rel=1e-4)
    assert abs(nonsense - by_hand) > 1


@given(matrices, matrices, st.sampled_from([0.5, 1.0, 2.0, 10.0]))
def test_the_listwise_loss_has_the_gradient_of_the_docstring(teacher, student, temperature):
    p, s = (np.asarray(tf.nn.softmax(x / temperature)) for x in (teacher, student))
    found = gradient(lambda x: softmax_kl_divergence(teacher, x, temperature=temperature), student)
    np.testing.assert_allclose(found, temperature * (s - p), atol=2e-5 * temperature)
    divergence = softmax_kl_divergence(teacher, student, temperature=temperature)
    assert np.all(np.asarray(divergence) >= -1e-4)
    np.testing.assert_array_equal(softmax_kl_divergence(teacher, teacher), 0)


@given(matrices, matrices)
def test_at_a_high_temperature_kl_is_half_the_variance_of_the_difference(teacher, student):
    teacher, student = teacher.astype(float), student.astype(float)
    hot = softmax_kl_divergence(tf.constant(teacher), tf.constant(student), temperature=1e5)
    np.testing.assert_allclose(hot, (teacher - student).var(axis=1) / 2, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["listwise", "binary", "regression"])
def test_no_gradient_reaches_the_teacher_and_shapes_must_agree(name):
    loss = soft_loss(name, temperature=2.0)
    teacher, student = tf.Variable([[1.0, 2.0]]), tf.Variable([[0.0, 0.0]])
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(loss(teacher, student))
    to_teacher, to_student = tape.gradient(value, [teacher, student])
    assert to_teacher is None
    assert np.abs(to_student).sum() > 0
    with pytest.raises(ValueError, match="student_logits"):
        loss(np.zeros(3, np.float32), np.zeros((3, 1), np.float32))


def test_a_softmax_of_width_one_teaches_nothing():
    one = np.zeros((3, 1), np.float32)
    for logits in (one, one[:, 0]):
        with pytest.raises(ValueError, match="at least two candidates"):
            softmax_kl_divergence(logits, logits)


@pytest.mark.parametrize("loss", WITH_TEMPERATURE)
@pytest.mark.parametrize("temperature", [0, math.nan, "2"])
def test_temperature_is_above_zero(loss, temperature):
    pair = np.zeros((1, 2), np.float32)
    with pytest.raises((TypeError, ValueError), match="temperature"):
        loss(pair, pair, temperature=temperature)


@pytest.mark.parametrize("loss", WITH_TEMPERATURE)
def test_logits_far_out_stay_finite(loss):
    far = np.float32([[1e4, -1e4]])
    assert np.isfinite([loss(far, -far), loss(far, far)]).all()


def rrd_by_loops(interesting, uninteresting):
    """The likelihood of equation 8 of Kang et al., one factor after the other, in float64."""
    losses = []
    for s, z in zip(interesting, uninteresting, strict=True):
        likelihood = 1.0
        for k in range(len(s)):
            rest = sum(math.exp(x) for x in s[k:]) + sum(math.exp(x) for x in z)
            likelihood *= math.exp(s[k]) / rest
        losses.append(-math.log(likelihood))
    return losses


def test_relaxed_ranking_loss_equals_loops():
    s, z = RNG.normal(0, 2, (5, 4)), RNG.normal(0, 2, (5, 7))
    got = relaxed_ranking_loss(s.astype(np.float32), z.astype(np.float32))
    np.testing.assert_allclose(got, rrd_by_loops(s, z), rtol=1e-5)


def test_relaxed_ranking_loss_ignores_the_order_of_the_uninteresting_and_does_not_overflow():
    s, z = np.float32([[90.0, 80.0]]), np.float32([[100.0, -200.0, 70.0]])
    loss = float(relaxed_ranking_loss(s, z)[0])
    assert np.isfinite(loss)
    assert loss == pytest.approx(float(relaxed_ranking_loss(s, z[:, ::-1])[0]), rel=1e-6)
    assert loss < float(relaxed_ranking_loss(s[:, ::-1], z)[0])  # the order of the others counts


@pytest.mark.parametrize("shapes", [((2, 3), (3, 3)), ((3,), (3, 2)), ((2, 3), (2, 0))])
def test_relaxed_ranking_loss_refuses_shapes(shapes):
    with pytest.raises(ValueError, match="interesting"):
        relaxed_ranking_loss(*(np.zeros(shape, np.float32) for shape in shapes))


class TestPyTorch:
    """A small student learns from a teacher, here and in PyTorch, from the same start."""

    ROWS, CANDIDATES, DIM, TEMPERATURE, WEIGHT, RATE = 16, 5, 4, 3.0, 0.7, 0.5

    @pytest.fixture
    def start(self):
        random = np.random.default_rng(0)
        shapes = {"users": (self.ROWS, self.DIM), "items": (self.CANDIDATES, self.DIM)}
        tables = {k: random.normal(size=v).astype(np.float32) for k, v in shapes.items()}
        teacher = random.normal(size=(self.ROWS, self.CANDIDATES)).astype(np.float32) * 3
        labels = random.integers(0, 2, (self.ROWS, self.CANDIDATES)).astype(np.float32)
        return tables, teacher, labels

    @pytest.mark.parametrize("kind", ["listwise", "binary", "regression"])
    def test_loss_and_one_step_of_gradient_descent(self, start, kind):
        torch = pytest.importorskip("torch", reason="`make test` installs it")
        functional = torch.nn.functional
        tables, teacher, labels = start

        # Ours: hard labels and the teacher, mixed; one step of plain SGD.
        ours = {name: tf.Variable(values) for name, values in tables.items()}
        with tf.GradientTape() as tape:
            logits = ours["users"] @ tf.transpose(ours["items"])
            hard = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits), axis=1)
            soft = tf.reduce_mean(soft_loss(kind, self.TEMPERATURE)(teacher, logits))
            loss = (1 - self.WEIGHT) * tf.reduce_mean(hard) + self.WEIGHT * soft
        variables = list(ours.values())
        optimizer = keras.optimizers.SGD(self.RATE)
        optimizer.apply(tape.gradient(loss, variables), variables)

        # The same with PyTorch's own losses, reductions and optimizer.
        theirs = {n: torch.tensor(v, requires_grad=True) for n, v in tables.items()}
        t, y = torch.tensor(teacher), torch.tensor(labels)
        scores = theirs["users"] @ theirs["items"].T
        hard_loss = functional.binary_cross_entropy_with_logits(scores, y)
        if kind == "listwise":
            their_soft = self.TEMPERATURE**2 * functional.kl_div(
                functional.log_softmax(scores / self.TEMPERATURE, dim=1),
                functional.softmax(t / self.TEMPERATURE, dim=1),
                reduction="batchmean",
            )
        elif kind == "binary":
            their_soft = self.TEMPERATURE**2 * functional.binary_cross_entropy_with_logits(
                scores / self.TEMPERATURE, torch.sigmoid(t / self.TEMPERATURE)
            )
        else:
            their_soft = functional.mse_loss(scores, t)
        total = (1 - self.WEIGHT) * hard_loss + self.WEIGHT * their_soft
        descent = torch.optim.SGD(theirs.values(), lr=self.RATE)
        total.backward()
        descent.step()

        assert float(loss) == pytest.approx(total.item(), rel=1e-6)
        for name, start_values in tables.items():
            moved = theirs[name].detach().numpy()
            assert np.abs(moved - start_values).max() > 1e-3  # the step did something
            np.testing.assert_allclose(ours[name].numpy(), moved, rtol=1e-5, atol=1e-6)
