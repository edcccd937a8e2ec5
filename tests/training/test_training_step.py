"""One update against formulas, and losses beside the objective."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from recsys_lib import objectives
from recsys_lib.data import Interactions
from recsys_lib.models import RatingModelConfig, build_rating_model
from recsys_lib.training import loop
from recsys_lib.training.forward import make_forward
from recsys_lib.training.sampling import epoch_order, uniform_negatives
from tests.training.toys import towers, toy_data, toy_model
from tests.training.toys import train as train_toys

# User 0 and item 1 occur twice in one batch: their gradients have to be added up.
TOY = Interactions([0, 0, 1], [1, 2, 1], ratings=[4, 2, 5], num_users=2, num_items=4)
RATE, L2, DATA = 0.1, 0.3, toy_data(80)


def train(model, data=TOY, **options):
    """One epoch of plain gradient descent, unless said otherwise."""
    return train_toys(
        model, data, **{"optimizer": keras.optimizers.SGD(RATE), "epochs": 1} | options
    )


@pytest.mark.slow
@pytest.mark.parametrize("objective", loop.OBJECTIVES)
def test_a_step_follows_the_gradient_of_the_formulas(objective):
    many, seed = 3, 5
    model = build_rating_model(RatingModelConfig("dot_product", 2, 4, 3, init_std=0.5))
    tables = [tf.Variable(w, dtype=tf.float64) for w in model.get_weights()]
    order = epoch_order(len(TOY), seed, epoch=0)
    drawn = uniform_negatives(len(TOY), many, TOY.num_items, seed, step=0).numpy()
    items = np.column_stack([TOY.item_ids[order], drawn])
    items = items[:, :1] if objective == "squared_error" else items
    with tf.GradientTape() as tape:
        u, i = tf.gather(tables[0], TOY.user_ids[order]), tf.gather(tables[1], items)
        logits = tf.einsum("nd,nkd->nk", u, i)
        x, others = logits[:, 0], logits[:, 1:]
        losses = {
            "squared_error": (TOY.ratings[order] - x) ** 2,
            "sigmoid_cross_entropy": tf.nn.softplus(-x) + tf.reduce_sum(tf.nn.softplus(others), 1),
            "bpr": tf.reduce_sum(tf.nn.softplus(others - x[:, None]), 1),
            "sampled_softmax": tf.reduce_logsumexp(logits, 1) - x,
        }[objective]
        squares = items.shape[1] * tf.reduce_sum(u**2, 1) + tf.reduce_sum(i**2, (1, 2))
        total = tf.reduce_mean(losses + L2 / 2 * squares)
    run = train(model, objective=objective, l2=L2, negatives_per_positive=many, seed=seed)
    for got, table, slope in zip(
        model.get_weights(), tables, tape.gradient(total, tables), strict=True
    ):
        expected = table - RATE * tf.convert_to_tensor(slope)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert run.loss[0] == pytest.approx(np.mean(losses), rel=1e-5)


def test_adagrad_sees_the_sum_of_repeated_gradients():
    # Keras 3 optimizers square repeated rows one by one; the sum has to be squared instead.
    model = build_rating_model(RatingModelConfig("dot_product", 1, 1, embedding_dim=1))
    user, item = (float(w[0, 0]) for w in model.get_weights())
    gradient = -2 * (1 - user * item) * item  # the mean over two equal rows
    adagrad = keras.optimizers.Adagrad(0.5, initial_accumulator_value=0.1)
    rows = Interactions([0, 0], [0, 0], ratings=[1, 1])
    train(model, rows, objective="squared_error", optimizer=adagrad)
    assert not adagrad.built  # a copy was used
    expected = user - 0.5 * gradient / np.sqrt(0.1 + gradient**2 + 1e-7)
    assert model.get_weights()[0][0, 0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 7, 80, 99])
def test_each_row_is_seen_once(batch_size):
    # With rate 0 the epoch's loss is the objective's mean over all rows, whatever the batches.
    model = toy_model()
    still = {"optimizer": keras.optimizers.SGD(0.0), "objective": "squared_error"}
    predicted = model([DATA.user_ids, DATA.item_ids])
    expected = np.mean(objectives.squared_error(DATA.ratings, predicted))
    loss = train(model, DATA, batch_size=batch_size, **still).loss[0]
    assert loss == pytest.approx(expected, rel=1e-5)


def test_negatives_are_uniform():
    drawn, other = (uniform_negatives(1000, 20, 10, seed=3, step=n).numpy() for n in (7, 8))
    counts = np.bincount(drawn.ravel(), minlength=10)
    assert len(counts) == 10
    # 20,000 draws: the chi-squared statistic with 9 degrees of freedom is below 27.9 in 99.9 %.
    assert np.sum((counts - 2000) ** 2 / 2000) < 27.9
    assert 0.05 < np.mean(drawn == other) < 0.15


DENSE = [(name, "dense") for name in ("sgd", "adagrad", "adam")]


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "way"), [*DENSE, ("adam", "xla")])
def test_neither_dense_gradients_nor_xla_change_the_outcome(optimizer, way, monkeypatch):
    # Gradients of large tables stay lists; turning that off must not change the outcome.
    data = Interactions([0, 3, 3, 299], [1, 1, 2, 0], num_users=300, num_items=400)
    config = RatingModelConfig("matrix_factorization", 300, 400, embedding_dim=4)
    models = [build_rating_model(config) for _ in range(2)]
    run = {"optimizer": optimizer, "l2": 0.1, "epochs": 3, "batch_size": 4}
    train(models[0], data, jit_compile=False, **run)
    if way == "dense":
        monkeypatch.setattr(loop, "is_large", lambda rows, gathered: False)
    train(models[1], data, jit_compile=way == "xla", **run)
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def trained(extra_loss=None, **options):
    model = toy_model("dot_product", init_std=0.5)
    run = {"objective": "bpr", "batch_size": 32, "epochs": 2, "extra_loss": extra_loss} | options
    return model.get_weights(), train(model, DATA, **run), model.get_weights()


def test_an_extra_loss_of_zero_changes_nothing():
    (_, history, plain), (_, other, same) = trained(), trained(lambda batch: 0.0)
    assert all(map(np.array_equal, plain, same)) and other.loss == history.loss


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_extra_loss_sees_the_batch_and_its_gradient_is_added(jit_compile):
    """With the objective switched off, one update moves along the extra gradient alone."""
    shapes = []

    def half_the_squares(batch):
        shapes.append((batch.user_ids.shape[1:], batch.item_ids.shape[1:], batch.step.dtype))
        return tf.reduce_sum(batch.logits[:, 0] ** 2) / 2

    options = {"epochs": 1, "batch_size": 80, "objective_weight": 0.0, "jit_compile": jit_compile}
    start, history, weights = trained(half_the_squares, **options)
    tables = [tf.Variable(table, dtype=tf.float64) for table in start]
    with tf.GradientTape() as tape:
        rows = zip(tables, (DATA.user_ids, DATA.item_ids), strict=True)
        u, i = (tf.gather(table, ids) for table, ids in rows)
        expected = tf.reduce_sum(tf.reduce_sum(u * i, 1) ** 2) / 2
    for got, table, slope in zip(weights, tables, tape.gradient(expected, tables), strict=True):
        moved = table - RATE * tf.convert_to_tensor(slope)
        np.testing.assert_allclose(got, moved, rtol=1e-4, atol=1e-5)
    assert history.loss[0] == pytest.approx(float(expected), rel=1e-4)
    assert shapes[0] == ((), (5,), tf.int64)


class Anchor(keras.layers.Layer):
    """Pulls one number of its own towards 3, counts updates, and notes their numbers."""

    def __init__(self):
        super().__init__()
        self.number = self.add_weight(shape=(), initializer="zeros")
        self.updates, self.steps = (
            self.add_weight(shape=(), initializer="zeros", trainable=False) for _ in range(2)
        )
        self.built = True

    def call(self, batch):
        self.steps.assign(tf.cast(batch.step, tf.float32))
        return (self.number - 3.0) ** 2 / 2

    def after_update(self):
        self.updates.assign(self.updates + 1)


@pytest.mark.slow
def test_its_own_variables_are_trained_and_part_of_checkpoints(tmp_path):
    whole, layer, path = Anchor(), Anchor(), tmp_path / "run"
    wanted = trained(whole, epochs=4)[2]  # 80 rows in batches of 32: 3 updates an epoch
    assert float(whole.updates) == 12 and float(whole.steps) == 11
    assert float(whole.number) == pytest.approx(3 * (1 - (1 - RATE) ** 12), rel=1e-5)
    trained(Anchor(), epochs=2, checkpoint=path)
    got = trained(layer, epochs=4, checkpoint=path)[2]
    assert all(map(np.array_equal, got, wanted)) and float(layer.number) == float(whole.number)
    with pytest.raises(ValueError, match="extra_loss was Anchor, now it is None"):
        trained(epochs=4, checkpoint=path)


REFUSED = [
    (0.5, {}, TypeError, "callable"),
    (None, {"objective_weight": 0.5}, ValueError, "no extra_loss"),
    (lambda batch: 0.0, {"objective_weight": -1}, ValueError, "objective_weight is -1"),
    (lambda batch: batch.logits[:, 0], {}, ValueError, "expected a scalar"),
    (lambda batch: tf.constant(np.nan), {}, FloatingPointError, "nan"),
]


@pytest.mark.parametrize("extra_loss, options, error, message", REFUSED)
def test_what_is_no_extra_loss_is_refused(extra_loss, options, error, message):
    with pytest.raises(error, match=message):
        trained(extra_loss, **options)


def test_l2_counts_a_shared_table_for_users_and_items():
    model = towers(shared=True)
    table = model.get_weights()[0].astype(np.float64)
    for layer in model.layers[3:]:
        layer.trainable = False
    only_l2 = {"objective_weight": 0.0, "extra_loss": lambda batch: 0.0, "l2": L2}
    train(model, DATA, objective="squared_error", batch_size=80, **only_l2)
    times = np.bincount(DATA.user_ids, minlength=20) + np.bincount(DATA.item_ids, minlength=20)
    expected = table * (1 - RATE * L2 * times[:, None] / 80)
    np.testing.assert_allclose(model.get_weights()[0], expected, rtol=1e-4)


@pytest.mark.parametrize("kind", ["dot_product", "matrix_factorization", "two_tower"])
def test_compiled_products_are_the_same(kind):
    model = build_rating_model(RatingModelConfig(kind, 20, 15, 4, init_std=1.0))
    random = np.random.default_rng(0)
    pairs = random.integers(20, size=30), random.integers(15, size=(30, 5))
    results = []
    for compiled in (False, True):
        with tf.GradientTape() as tape:
            logits = make_forward(model, compiled)(*(tf.constant(x, tf.int32) for x in pairs))
            loss = tf.reduce_sum(logits**2)
        slopes = tape.gradient(loss, [x.value for x in model.trainable_variables])
        results.append([logits, *map(tf.convert_to_tensor, slopes)])
        if compiled and kind != "two_tower":  # without repeated rows
            assert not any(isinstance(x, tf.IndexedSlices) for x in slopes[:2])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
