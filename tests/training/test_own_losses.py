"""What a model and an optimizer bring along: Keras' own fit() is the reference."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from recsys_lib.data import Interactions
from recsys_lib.models import RatingModelConfig, build_rating_model
from recsys_lib.training import fit

RNG = np.random.default_rng(0)
COLUMNS = [RNG.integers(0, 9, 80), RNG.integers(0, 9, 80)]
DATA = Interactions(*COLUMNS, RNG.integers(1, 6, 80), num_users=9, num_items=9)


class Push(keras.layers.Layer):
    def call(self, x):
        self.add_loss(3 * keras.ops.mean(x**2))
        return x


class Halving(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.1 / (1 + keras.ops.cast(step, "float32"))


def excluding():
    optimizer = keras.optimizers.SGD(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["embeddings"])
    return optimizer


def build(shared=False, dot=True, push=False, **options):
    keras.utils.set_random_seed(1)
    inputs = [keras.Input((), dtype="int32", name=name) for name in ("user_ids", "item_ids")]
    tables = [keras.layers.Embedding(9, 4, **options) for _ in inputs]
    rows = [table(x) for table, x in zip(tables[:1] * 2 if shared else tables, inputs, strict=True)]
    rows[0] = Push()(rows[0]) if push else rows[0]
    rows[0] = keras.layers.Dense(4, kernel_regularizer="l2")(rows[0])
    out = keras.layers.Dot(1)(rows) if dot else keras.ops.sum(rows[0] * rows[1], 1, keepdims=True)
    return keras.Model(inputs, keras.layers.Reshape(())(out))


@pytest.mark.parametrize("dot", [True, False])
@pytest.mark.parametrize(
    ("options", "optimizer"),
    [
        ({"embeddings_regularizer": keras.regularizers.L2(0.5)}, lambda: keras.optimizers.SGD(0.1)),
        ({"embeddings_regularizer": "l1", "shared": True}, lambda: keras.optimizers.SGD(0.1)),
        ({"activity_regularizer": "l2"}, lambda: keras.optimizers.SGD(0.1)),
        ({"push": True}, lambda: keras.optimizers.SGD(0.1)),
        ({}, lambda: keras.optimizers.SGD(lambda: 0.1)),
        ({}, lambda: keras.optimizers.SGD(Halving())),
        ({}, excluding),
    ],
)
def test_fit_equals_that_of_keras(options, optimizer, dot):
    ours, theirs, start = (build(dot=dot, **options) for _ in range(3))
    run = {"epochs": 4, "batch_size": 80}  # one batch, so that order plays no role
    fit(ours, DATA, objective="squared_error", optimizer=optimizer(), progress=False, **run)
    theirs.compile(optimizer(), "mse")
    theirs.fit([DATA.user_ids, DATA.item_ids], DATA.ratings, verbose=0, **run)
    moved = zip(ours.get_weights(), theirs.get_weights(), start.get_weights(), strict=True)
    for a, b, before in moved:
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        assert np.abs(a - before).max() > 1e-4


def test_l2_counts_a_shared_table_for_users_and_items():
    model, rate, l2 = build(shared=True), 0.1, 0.3
    table = model.get_weights()[0].astype(np.float64)
    zero = {"objective_weight": 0.0, "extra_loss": lambda batch: 0.0, "l2": l2, "progress": False}
    for layer in model.layers[3:]:
        layer.trainable = False
    more = {"optimizer": keras.optimizers.SGD(rate), "objective": "squared_error", "epochs": 1}
    fit(model, DATA, **more, **zero)
    times = np.bincount(DATA.user_ids, minlength=9) + np.bincount(DATA.item_ids, minlength=9)
    expected = table * (1 - rate * l2 * times[:, None] / 80)
    np.testing.assert_allclose(model.get_weights()[0], expected, rtol=1e-4)


def test_a_fitted_model_can_be_saved_by_keras(tmp_path):
    model = build_rating_model(RatingModelConfig("matrix_factorization", 9, 9, 4))
    fit(model, DATA, epochs=1, progress=False)
    model.save(tmp_path / "model.keras")
    again, pairs = keras.models.load_model(tmp_path / "model.keras"), [DATA.user_ids, DATA.item_ids]
    np.testing.assert_array_equal(again(pairs), model(pairs))
