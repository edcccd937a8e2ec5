"""Soft-label objectives by hand, against Keras, and against PyTorch with a step of its gradient."""

import inspect
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recsys_lib.compression.distillation.soft_labels import (
    mix,
    score_regression,
    soft_sigmoid_cross_entropy,
    soft_softmax_cross_entropy,
    softmax_kl_divergence,
)

LISTWISE = (soft_softmax_cross_entropy, softmax_kl_divergence)
WITH_TEMPERATURE = (*LISTWISE, soft_sigmoid_cross_entropy)
matrices = arrays(np.float32, (3, 4), elements=st.floats(-20, 20, width=32))


def gradient(function, student):
    student = tf.Variable(student)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(function(student))
    return tape.gradient(loss, student).numpy()


def test_binary_by_hand():
    # log(3) / T = log 3 / 1 and sigmoid(log 3) = 3/4; the student says 1/2.
    np.testing.assert_allclose(
        soft_sigmoid_cross_entropy([math.log(3)], [0.0]), [math.log(2)], rtol=1e-6
    )
    # At T = 2 the teacher's logit 2 log 3 is 3/4 again, the student's 2 log 4 is 4/5; T² = 4.
    expected = -4 * (0.75 * math.log(4 / 5) + 0.25 * math.log(1 / 5))
    loss = soft_sigmoid_cross_entropy([2 * math.log(3)], [2 * math.log(4)], temperature=2)
    np.testing.assert_allclose(loss, [expected], rtol=1e-6)


def test_listwise_by_hand():
    # exp(teacher / 2) = 1, 2, 1 and exp(student / 2) = 1, 1, 2: p = 1/4 1/2 1/4, s = 1/4 1/4 1/2.
    teacher, student = [[0.0, 2 * math.log(2), 0.0]], [[0.0, 0.0, 2 * math.log(2)]]
    cross = -4 * (0.25 * math.log(1 / 4) + 0.5 * math.log(1 / 4) + 0.25 * math.log(1 / 2))
    entropy = -4 * (0.5 * math.log(1 / 4) + 0.5 * math.log(1 / 2))
    np.testing.assert_allclose(
        soft_softmax_cross_entropy(teacher, student, temperature=2.0), [cross], rtol=1e-6
    )
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
def test_both_listwise_losses_have_the_gradient_of_the_docstring(teacher, student, temperature):
    p, s = (np.asarray(tf.nn.softmax(x / temperature)) for x in (teacher, student))
    for loss in LISTWISE:
        found = gradient(lambda x, f=loss: f(teacher, x, temperature=temperature), student)
        np.testing.assert_allclose(found, temperature * (s - p), atol=2e-5 * temperature)
    divergence = softmax_kl_divergence(teacher, student, temperature=temperature)
    assert np.all(np.asarray(divergence) >= -1e-4)
    np.testing.assert_array_equal(softmax_kl_divergence(teacher, teacher), 0)


@given(matrices, matrices)
def test_at_a_high_temperature_kl_is_half_the_variance_of_the_difference(teacher, student):
    teacher, student = tf.constant(teacher, tf.float64), tf.constant(student, tf.float64)
    limit = tf.reduce_mean(score_regression(teacher, student, centered=True), axis=1) / 2
    hot = softmax_kl_divergence(teacher, student, temperature=1e5)
    np.testing.assert_allclose(hot, limit, rtol=1e-3, atol=1e-5)


def test_the_temperature_leaves_the_size_of_the_gradient_alone():
    teacher, student = np.float32([[2, 0, -1, 0]]), np.float32([[0, 1, 0, 0]])
    sizes = [
        np.abs(gradient(lambda x, t=t: softmax_kl_divergence(teacher, x, temperature=t), student))
        for t in (4, 64)
    ]
    assert 0.5 < sizes[0].sum() / sizes[1].sum() < 2  # without T² it would be 256 times smaller


def test_no_gradient_reaches_the_teacher():
    teacher, student = tf.Variable([[1.0, 2.0]]), tf.Variable([[0.0, 0.0]])
    for loss in (*WITH_TEMPERATURE, score_regression):
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(loss(teacher, student))
        to_teacher, to_student = tape.gradient(value, [teacher, student])
        assert to_teacher is None
        assert np.abs(to_student).sum() > 0


@pytest.mark.parametrize("loss", [*WITH_TEMPERATURE, score_regression])
def test_shapes_must_agree(loss):
    with pytest.raises(ValueError, match=r"student_.*expected the same shape"):
        loss(np.zeros(3, np.float32), np.zeros((3, 1), np.float32))


@pytest.mark.parametrize("loss", LISTWISE)
def test_a_softmax_of_width_one_teaches_nothing(loss):
    one = np.zeros((3, 1), np.float32)
    with pytest.raises(ValueError, match="at least two candidates"):
        loss(one, one)
    with pytest.raises(ValueError, match=r"expected \(n, m\)"):
        loss(one[:, 0], one[:, 0])
    with pytest.raises(ValueError, match="at least two candidates"):
        score_regression(one, one, centered=True)


@pytest.mark.parametrize("loss", WITH_TEMPERATURE)
@pytest.mark.parametrize("temperature", [0, -1.0, math.nan, math.inf])
def test_temperature_is_above_zero(loss, temperature):
    pair = np.zeros((1, 2), np.float32)
    with pytest.raises(ValueError, match="temperature"):
        loss(pair, pair, temperature=temperature)
    with pytest.raises(TypeError, match="temperature"):
        loss(pair, pair, temperature="2")


def test_logits_far_out_stay_finite():
    far = np.float32([[1e4, -1e4]])
    for loss in WITH_TEMPERATURE:
        assert np.isfinite(np.asarray(loss(far, -far))).all()
        assert np.isfinite(np.asarray(loss(far, far))).all()


def test_mix_by_hand_and_its_ends_to_the_bit():
    hard, soft = np.float32([0.1, 0.7]), np.float32([np.nan, 3.0])
    np.testing.assert_array_equal(mix(hard, soft, 0.0), hard)  # NaN times 0 would be NaN
    np.testing.assert_array_equal(mix(soft, hard, 1), hard)
    np.testing.assert_allclose(mix([1.0, 3.0], [5.0, 3.0], 0.25), [2.0, 3.0])


@pytest.mark.parametrize("weight", [-0.1, 1.1, math.nan])
def test_mix_weight_is_a_share(weight):
    with pytest.raises(ValueError, match="soft_weight"):
        mix([1.0], [1.0], weight)


def test_mix_checks_shapes():
    with pytest.raises(ValueError, match="hard_losses has shape"):
        mix(np.zeros(3, np.float32), np.zeros((3, 1), np.float32), 0.5)


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

    @pytest.mark.parametrize("kind", ["softmax", "sigmoid", "regression"])
    def test_loss_and_one_step_of_gradient_descent(self, start, kind):
        torch = pytest.importorskip("torch", reason="`make test` installs it")
        functional = torch.nn.functional
        tables, teacher, labels = start

        # Ours: hard labels and the teacher, mixed; one step of plain SGD.
        ours = {name: tf.Variable(values) for name, values in tables.items()}
        with tf.GradientTape() as tape:
            logits = ours["users"] @ tf.transpose(ours["items"])
            hard = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits), axis=1)
            if kind == "softmax":
                soft = softmax_kl_divergence(teacher, logits, temperature=self.TEMPERATURE)
            elif kind == "sigmoid":
                each = soft_sigmoid_cross_entropy(teacher, logits, temperature=self.TEMPERATURE)
                soft = tf.reduce_mean(each, axis=1)
            else:
                soft = tf.reduce_mean(score_regression(teacher, logits), axis=1)
            loss = tf.reduce_mean(mix(hard, soft, self.WEIGHT))
        variables = list(ours.values())
        optimizer = keras.optimizers.SGD(self.RATE)
        optimizer.apply(tape.gradient(loss, variables), variables)

        # The same with PyTorch's own losses, reductions and optimizer.
        theirs = {n: torch.tensor(v, requires_grad=True) for n, v in tables.items()}
        t, y = torch.tensor(teacher), torch.tensor(labels)
        scores = theirs["users"] @ theirs["items"].T
        hard_loss = functional.binary_cross_entropy_with_logits(scores, y)
        if kind == "softmax":
            soft_loss = self.TEMPERATURE**2 * functional.kl_div(
                functional.log_softmax(scores / self.TEMPERATURE, dim=1),
                functional.softmax(t / self.TEMPERATURE, dim=1),
                reduction="batchmean",
            )
        elif kind == "sigmoid":
            soft_loss = self.TEMPERATURE**2 * functional.binary_cross_entropy_with_logits(
                scores / self.TEMPERATURE, torch.sigmoid(t / self.TEMPERATURE)
            )
        else:
            soft_loss = functional.mse_loss(scores, t)
        total = (1 - self.WEIGHT) * hard_loss + self.WEIGHT * soft_loss
        descent = torch.optim.SGD(theirs.values(), lr=self.RATE)
        total.backward()
        descent.step()

        assert float(loss) == pytest.approx(total.item(), rel=1e-6)
        for name, start_values in tables.items():
            moved = theirs[name].detach().numpy()
            assert np.abs(moved - start_values).max() > 1e-3  # the step did something
            np.testing.assert_allclose(ours[name].numpy(), moved, rtol=1e-5, atol=1e-6)


def test_every_loss_takes_the_teacher_first():
    for loss in (*WITH_TEMPERATURE, score_regression):
        assert next(iter(inspect.signature(loss).parameters)).startswith("teacher")
