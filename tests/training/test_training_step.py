"""One update against arithmetic by hand, and losses beside the objective."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from recsys_lib import objectives
from recsys_lib.data import Interactions
from recsys_lib.models import RatingModelConfig, build_rating_model
from recsys_lib.training import fit, loop
from recsys_lib.training.sampling import epoch_order, uniform_negatives

# User 0 and item 1 occur twice in one batch: their gradients have to be added up.
TOY = Interactions([0, 0, 1], [1, 2, 1], ratings=[4, 2, 5], num_users=2, num_items=4)
RATE, L2 = 0.1, 0.3


def toy_model():
    return build_rating_model(RatingModelConfig("dot_product", 2, 4, 3, init_std=0.5))


def train(model, data=TOY, **options):
    """One epoch of plain gradient descent, unless said otherwise."""
    settings = {"optimizer": keras.optimizers.SGD(RATE), "epochs": 1, "progress": False}
    return fit(model, data, **settings | options)


@pytest.mark.parametrize("objective", loop.OBJECTIVES)
def test_step_by_hand(objective):
    model, many, seed = toy_model(), 3, 5
    tables = [w.astype(np.float64) for w in model.get_weights()]
    gradients, losses = [np.zeros_like(table) for table in tables], []
    order = epoch_order(len(TOY), seed, epoch=0)
    negatives = uniform_negatives(len(TOY), many, TOY.num_items, seed, step=0).numpy()
    for row, drawn in zip(order, negatives, strict=True):
        user, items = TOY.user_ids[row], [TOY.item_ids[row], *drawn]
        logits = tables[1][items] @ tables[0][user]
        if objective == "squared_error":
            items, error = items[:1], logits[:1] - TOY.ratings[row]
            slopes, loss = 2 * error, error[0] ** 2
        elif objective == "sigmoid_cross_entropy":
            slopes = 1 / (1 + np.exp(-logits)) - (np.arange(4) == 0)
            loss = np.log1p(np.exp(logits * [-1, 1, 1, 1])).sum()
        elif objective == "bpr":
            against = 1 / (1 + np.exp(logits[0] - logits[1:]))
            slopes, loss = [-against.sum(), *against], -np.log(1 - against).sum()
        else:
            share = np.exp(logits) / np.exp(logits).sum()
            slopes, loss = share - (np.arange(4) == 0), -np.log(share[0])
        losses.append(loss)
        for item, slope in zip(items, slopes, strict=True):
            gradients[0][user] += slope * tables[1][item] + L2 * tables[0][user]
            gradients[1][item] += slope * tables[0][user] + L2 * tables[1][item]
    expected = [t - RATE * g / len(TOY) for t, g in zip(tables, gradients, strict=True)]
    run = train(model, objective=objective, l2=L2, negatives_per_positive=many, seed=seed)
    for got, wanted in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    assert run.loss[0] == pytest.approx(np.mean(losses), rel=1e-5)


def test_adagrad_sees_the_sum_of_repeated_gradients():
    # Keras 3 optimizers square repeated rows one by one; the sum has to be squared instead.
    data = Interactions([0, 0], [0, 0], ratings=[1, 1])
    model = build_rating_model(RatingModelConfig("dot_product", 1, 1, embedding_dim=1))
    user, item = (float(w[0, 0]) for w in model.get_weights())
    gradient = -2 * (1 - user * item) * item  # the mean over two equal rows
    accumulator = 0.1 + gradient**2
    adagrad = keras.optimizers.Adagrad(0.5, initial_accumulator_value=0.1)
    train(model, data, objective="squared_error", optimizer=adagrad)
    expected = user - 0.5 * gradient / np.sqrt(accumulator + 1e-7)
    assert model.get_weights()[0][0, 0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_each_row_is_seen_once():
    # With rate 0 the epoch's loss is the objective's mean over all rows, whatever the batches.
    ratings = np.random.default_rng(0).normal(size=50)
    data, model = Interactions(np.arange(50) % 2, np.arange(50) % 4, ratings), toy_model()
    predicted = model([data.user_ids, data.item_ids])
    expected = np.mean(objectives.squared_error(data.ratings, predicted))
    for batch_size in (1, 7, 50, 64):
        still = {"optimizer": keras.optimizers.SGD(0.0), "objective": "squared_error"}
        loss = train(model, data, batch_size=batch_size, **still).loss[0]
        assert loss == pytest.approx(expected, rel=1e-5)


def test_negatives_are_uniform():
    drawn = uniform_negatives(1000, 20, num_items=10, seed=3, step=7).numpy()
    counts = np.bincount(drawn.ravel(), minlength=10)
    assert len(counts) == 10
    # 20,000 draws: the chi-squared statistic with 9 degrees of freedom is below 27.9 in 99.9 %.
    assert np.sum((counts - 2000) ** 2 / 2000) < 27.9
    other = uniform_negatives(1000, 20, num_items=10, seed=3, step=8).numpy()
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


RNG = np.random.default_rng(0)
COLUMNS = [RNG.integers(0, 9, 80), RNG.integers(0, 9, 80)]
DATA = Interactions(*COLUMNS, RNG.integers(1, 6, 80), num_users=9, num_items=9)
CONFIG = RatingModelConfig("dot_product", 9, 9, 3, init_std=0.5)


def trained(extra_loss=None, **options):
    model = build_rating_model(CONFIG)
    settings = {"objective": "bpr", "batch_size": 32, "epochs": 2} | options
    history = train(model, DATA, extra_loss=extra_loss, **settings)
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

    options = {"epochs": 1, "batch_size": 80, "objective_weight": 0.0, "jit_compile": jit_compile}
    weights, history = trained(half_the_squares, **options)
    start = build_rating_model(CONFIG)
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


@pytest.mark.slow
def test_its_own_variables_are_trained_and_part_of_checkpoints(tmp_path):
    whole, layer, path = Anchor(), Anchor(), tmp_path / "run"
    wanted, _ = trained(whole, epochs=4)  # 80 rows in batches of 32: 3 updates an epoch
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


class Push(keras.layers.Layer):
    def call(self, x):
        self.add_loss(3 * keras.ops.mean(x**2))
        return x


class Halving(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.1 / (1 + keras.ops.cast(step, "float32"))


def excluding(rate):
    optimizer = keras.optimizers.SGD(rate, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["embeddings"])
    return optimizer


def build(shared=False, dot=True, push=False, kind=None, **options):
    if kind is not None:
        return build_rating_model(RatingModelConfig(kind, 9, 9, 4, init_std=0.5, global_bias=0.5))
    keras.utils.set_random_seed(1)
    inputs = [keras.Input((), dtype="int32", name=name) for name in ("user_ids", "item_ids")]
    tables = [keras.layers.Embedding(9, 4, **options) for _ in inputs]
    rows = [table(x) for table, x in zip(tables[:1] * 2 if shared else tables, inputs, strict=True)]
    rows[0] = Push()(rows[0]) if push else rows[0]
    rows[0] = keras.layers.Dense(4, kernel_regularizer="l2")(rows[0])
    out = keras.layers.Dot(1)(rows) if dot else keras.ops.sum(rows[0] * rows[1], 1, keepdims=True)
    return keras.Model(inputs, keras.layers.Reshape(())(out))


SGD, KINDS = keras.optimizers.SGD, ("dot_product", "matrix_factorization", "two_tower", "neumf")
BROUGHT = [
    ({"embeddings_regularizer": keras.regularizers.L2(0.5)}, SGD),
    ({"embeddings_regularizer": "l1", "shared": True}, SGD),
    *(({"activity_regularizer": "l2"}, SGD), ({"push": True}, SGD), ({}, excluding)),
    *(({}, lambda rate: SGD(lambda: rate)), ({}, lambda rate: SGD(Halving()))),
]
WAYS = [(row | {"dot": dot}, optimizer) for row, optimizer in BROUGHT for dot in (True, False)]


@pytest.mark.parametrize(("options", "optimizer"), [*WAYS, *(({"kind": k}, SGD) for k in KINDS)])
def test_fit_equals_that_of_keras(options, optimizer):
    ours, theirs, start = (build(**options) for _ in range(3))
    run = {"epochs": 4, "batch_size": 80}  # one batch, so that order plays no role
    train(ours, DATA, objective="squared_error", optimizer=optimizer(0.1), **run)
    theirs.compile(optimizer(0.1), "mse")
    theirs.fit([DATA.user_ids, DATA.item_ids], DATA.ratings, verbose=0, **run)
    moved = zip(ours.get_weights(), theirs.get_weights(), start.get_weights(), strict=True)
    for a, b, before in moved:
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        assert np.abs(a - before).max() > 1e-4


def test_l2_counts_a_shared_table_for_users_and_items():
    model = build(shared=True)
    table = model.get_weights()[0].astype(np.float64)
    for layer in model.layers[3:]:
        layer.trainable = False
    only_l2 = {"objective_weight": 0.0, "extra_loss": lambda batch: 0.0, "l2": L2}
    train(model, DATA, objective="squared_error", **only_l2)
    times = np.bincount(DATA.user_ids, minlength=9) + np.bincount(DATA.item_ids, minlength=9)
    expected = table * (1 - RATE * L2 * times[:, None] / 80)
    np.testing.assert_allclose(model.get_weights()[0], expected, rtol=1e-4)


def test_a_fitted_model_can_be_saved_by_keras(tmp_path):
    model = build_rating_model(RatingModelConfig("matrix_factorization", 9, 9, 4))
    train(model, DATA)
    model.save(tmp_path / "model.keras")
    again, pairs = keras.models.load_model(tmp_path / "model.keras"), [DATA.user_ids, DATA.item_ids]
    np.testing.assert_array_equal(again(pairs), model(pairs))
