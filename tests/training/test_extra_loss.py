"""An extra loss beside the objective: what it is given and adds, and that none is no change."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from recsys_lib.data import Interactions
from recsys_lib.models import RatingModelConfig, build_rating_model
from recsys_lib.training import fit

RNG = np.random.default_rng(0)
DATA = Interactions(RNG.integers(0, 9, 70), RNG.integers(0, 8, 70), num_users=9, num_items=8)
RATE = 0.5


def trained(extra_loss=None, **options):
    model = build_rating_model(RatingModelConfig("dot_product", 9, 8, 3, init_std=0.5))
    settings = {
        "objective": "bpr",
        "optimizer": keras.optimizers.SGD(RATE),
        "epochs": 2,
        "batch_size": 32,
        "progress": False,
    } | options
    history = fit(model, DATA, extra_loss=extra_loss, **settings)
    return model.get_weights(), history


def test_an_extra_loss_of_zero_changes_nothing():
    (plain, history), (same, other) = trained(), trained(lambda batch: 0.0)
    assert all(map(np.array_equal, plain, same)) and other.loss == history.loss


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_extra_loss_sees_the_batch_and_its_gradient_is_added(jit_compile):
    """With the objective switched off, one update moves along the extra gradient alone."""
    shapes = []

    def half_the_squares(batch):
        shapes.append((batch.user_ids.shape[1:], batch.item_ids.shape[1:], batch.step.dtype))
        return tf.reduce_sum(batch.logits[:, 0] ** 2) / 2

    options = {"epochs": 1, "batch_size": 70, "objective_weight": 0.0, "jit_compile": jit_compile}
    weights, history = trained(half_the_squares, **options)
    start = build_rating_model(RatingModelConfig("dot_product", 9, 8, 3, init_std=0.5))
    users, items = (w.astype(np.float64) for w in start.get_weights())
    moved, logits = [users.copy(), items.copy()], []
    for user, item in zip(DATA.user_ids, DATA.item_ids, strict=True):
        logits.append(users[user] @ items[item])
        moved[0][user] -= RATE * logits[-1] * items[item]
        moved[1][item] -= RATE * logits[-1] * users[user]
    for got, wanted in zip(weights, moved, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
    assert history.loss[0] == pytest.approx(np.sum(np.square(logits)) / 2, rel=1e-4)
    assert shapes[0] == ((), (5,), tf.int64)


class Anchor(keras.layers.Layer):
    """Pulls one number of its own towards 3, counts updates, and notes their numbers."""

    def __init__(self):
        super().__init__()
        self.number = self.add_weight(shape=(), initializer="zeros")
        self.updates = self.add_weight(shape=(), initializer="zeros", trainable=False)
        self.steps = self.add_weight(shape=(), initializer="zeros", trainable=False)
        self.built = True

    def call(self, batch):
        self.steps.assign(tf.cast(batch.step, tf.float32))
        return (self.number - 3.0) ** 2 / 2

    def after_update(self):
        self.updates.assign(self.updates + 1)


def test_its_own_variables_are_trained_and_part_of_checkpoints(tmp_path):
    whole, layer, path = Anchor(), Anchor(), tmp_path / "run"
    wanted, _ = trained(whole, epochs=4)  # 70 rows in batches of 32: 3 updates an epoch
    assert float(whole.updates) == 12 and float(whole.steps) == 11
    assert float(whole.number) == pytest.approx(3 * (1 - (1 - RATE) ** 12), rel=1e-5)
    trained(Anchor(), epochs=2, checkpoint=path)
    got, _ = trained(layer, epochs=4, checkpoint=path)
    assert all(map(np.array_equal, got, wanted)) and float(layer.number) == float(whole.number)
    with pytest.raises(ValueError, match="extra_loss was Anchor, now it is None"):
        trained(epochs=4, checkpoint=path)


@pytest.mark.parametrize(
    ("extra_loss", "options", "error", "message"),
    [
        (0.5, {}, TypeError, "callable"),
        (None, {"objective_weight": 0.5}, ValueError, "no extra_loss"),
        (lambda batch: 0.0, {"objective_weight": -1}, ValueError, "objective_weight is -1"),
        (lambda batch: batch.logits[:, 0], {}, ValueError, "expected a scalar"),
        (lambda batch: tf.constant(np.nan), {}, FloatingPointError, "nan"),
    ],
)
def test_what_is_no_extra_loss_is_refused(extra_loss, options, error, message):
    with pytest.raises(error, match=message):
        trained(extra_loss, **options)
