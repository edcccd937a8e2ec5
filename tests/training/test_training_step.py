"""One update against arithmetic by hand, and every objective on a toy."""

import keras
import numpy as np
import pytest

from recsys_lib import objectives
from recsys_lib.data import Interactions
from recsys_lib.models import RatingModelConfig, build_rating_model
from recsys_lib.training import fit, loop
from recsys_lib.training.forward import make_forward
from recsys_lib.training.sampling import epoch_order, uniform_negatives

# User 0 and item 1 occur twice in one batch: their gradients have to be added up.
TOY = Interactions([0, 0, 1], [1, 2, 1], ratings=[4, 2, 5], num_users=2, num_items=4)
RATE, L2 = 0.1, 0.3


def toy_model(kind="dot_product", **options):
    return build_rating_model(RatingModelConfig(kind, 2, 4, 3, init_std=0.5, **options))


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


@pytest.mark.parametrize("kind", ["dot_product", "matrix_factorization", "two_tower", "neumf"])
def test_forward_equals_the_model(kind):
    model = toy_model(kind, global_bias=0.5)
    model.set_weights([w + 0.1 for w in model.get_weights()])
    users, items = np.array([0, 1, 1]), np.array([[0, 3], [1, 1], [2, 0]])
    for columns in (items, items[:, :1]):
        pairs = [np.repeat(users, columns.shape[1]), columns.ravel()]
        got = make_forward(model)(users, columns)
        np.testing.assert_allclose(got, model(pairs).numpy().reshape(columns.shape), rtol=1e-5)


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


WAYS = [*((name, "dense") for name in ("sgd", "adagrad", "adam")), ("adam", "xla")]


@pytest.mark.parametrize(("optimizer", "way"), WAYS)
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
