"""Running averages of weights: against the recursion, against Keras, and what they do."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from recsys_lib.compression.distillation import (
    Consistency,
    MeanTeacher,
    WeightAverage,
    WeightAveraging,
    train_with_average,
)
from recsys_lib.data import Interactions
from recsys_lib.models import RatingModelConfig, build_rating_model
from recsys_lib.training import KerasRecommender, KerasScorer, fit
from recsys_lib.training.loop import Batch

RANDOM = np.random.default_rng(0)
GROUP = RANDOM.integers(0, 3, 50)
ROWS = np.repeat(np.arange(50), 20)
DATA = Interactions(ROWS, RANDOM.integers(0, 20, 1000) + 20 * GROUP[ROWS], num_items=60)
CONFIG = RatingModelConfig("matrix_factorization", 50, 60, 4)
OPTIONS = {"epochs": 3, "batch_size": 128, "progress": False}


def mean_teacher(config=None, **options):
    """Train from CONFIG; give average and student."""
    student = build_rating_model(CONFIG)
    cost = Consistency(student, config or MeanTeacher(), 60)
    fit(student, DATA, extra_loss=cost, **(OPTIONS | options))
    return cost.model, student


class Recording(WeightAverage):
    """Also writes the weights after each update into a list."""

    def __init__(self, model, config):
        super().__init__(model, config)
        self.trained, self.seen = model, []

    def after_update(self):
        values = [tf.convert_to_tensor(v) for v in self.trained.variables]  # read in the graph
        tf.py_function(lambda *now: self.seen.append([v.numpy() for v in now]), values, [])
        super().after_update()


@pytest.mark.parametrize("warm_up", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.7, 0.99])
def test_the_average_is_the_recursion(decay, warm_up):
    model = build_rating_model(CONFIG)
    average = Recording(model, WeightAveraging(decay, warm_up=warm_up))
    fit(model, DATA, extra_loss=average, jit_compile=False, **OPTIONS)
    assert len(average.seen) == 3 * 8
    by_hand = None
    for number, weights in enumerate(average.seen, start=1):
        share = min(decay, 1 - 1 / number) if warm_up else (decay if number > 1 else 0)
        if by_hand is None:
            by_hand = [np.zeros(w.shape) for w in weights]
        by_hand = [share * a + (1 - share) * w for a, w in zip(by_hand, weights, strict=True)]
    for found, expected in zip(average.model.get_weights(), by_hand, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_without_warm_up_it_is_what_keras_computes():
    """Keras keeps such an average too, in the optimizer."""
    model = build_rating_model(CONFIG)
    average = WeightAverage(model, WeightAveraging(0.9, warm_up=False))
    optimizer = keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9)
    fit(model, DATA, optimizer=optimizer, extra_loss=average, **OPTIONS)  # ends with the averages
    for ours, theirs in zip(average.model.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_watching_changes_nothing_to_the_bit(jit_compile):
    plain = build_rating_model(CONFIG)
    fit(plain, DATA, jit_compile=jit_compile, **OPTIONS)
    watched = train_with_average(CONFIG, DATA, jit_compile=jit_compile, **OPTIONS)
    for a, b in zip(plain.get_weights(), watched.last.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    pairs = zip(watched.model.get_weights(), watched.last.get_weights(), strict=True)
    assert max(np.abs(a - b).max() for a, b in pairs) > 1e-4


def test_validation_judges_the_average_and_patience_keeps_its_best():
    judged = []

    def judge(model):
        judged.append(model.get_weights())
        return float(-abs(len(judged) - 2))  # the second epoch is the best

    result = train_with_average(
        CONFIG,
        DATA,
        validation=judge,
        metric="quality",
        lower_is_better=False,
        patience=2,
        **(OPTIONS | {"epochs": 9}),
    )
    assert result.history.best_epoch == 2 and len(judged) == 4
    for best, kept in zip(judged[1], result.model.get_weights(), strict=True):
        np.testing.assert_array_equal(best, kept)


@pytest.mark.parametrize(
    "train",
    [
        lambda **options: train_with_average(CONFIG, DATA, **(OPTIONS | options)).model,
        lambda **options: mean_teacher(**options)[0],
    ],
    ids=["average", "mean teacher"],
)
def test_a_run_that_is_resumed_gives_the_same_average(train, tmp_path):
    whole, path = train(), tmp_path / "run.npz"
    train(checkpoint=path, epochs=1)
    resumed = train(checkpoint=path)
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_students_stay_as_they_are_and_kinds_are_kept():
    student = build_rating_model(CONFIG)
    before = [w.copy() for w in student.get_weights()]
    result = train_with_average(student, DATA, **OPTIONS)
    for old, new in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert result.model.name == result.last.name == "matrix_factorization"
    recommender = KerasRecommender(CONFIG, **OPTIONS).fit(DATA)
    result = train_with_average(recommender, DATA, **OPTIONS)
    assert isinstance(result.model, KerasRecommender)
    assert result.model.recommend([0], k=3).shape == (1, 3)
    with pytest.raises(ValueError, match="extra_loss"):
        train_with_average(student, DATA, extra_loss=lambda batch: 0.0, **OPTIONS)


@pytest.mark.parametrize("loss", ["binary", "listwise", "regression"])
def test_consistency_by_hand(loss):
    student, average = build_rating_model(CONFIG), WeightAveraging(0.9)
    config = MeanTeacher(average, weight=2.0, loss=loss, num_unlabeled=0, ramp_up=0, temperature=2)
    cost = Consistency(student, config, 60, seed=0)
    random = np.random.default_rng(3)
    cost.model.set_weights([random.normal(size=w.shape) for w in cost.model.get_weights()])
    users, items = np.int32([3, 7]), np.int32([[1, 2, 3], [4, 5, 6]])
    pairs = np.repeat(users, 3), items.ravel()
    t, s = (KerasScorer(m).score(*pairs).reshape(2, 3) for m in (cost.model, student))
    if loss == "regression":
        by_hand = np.mean((t - s) ** 2)
    elif loss == "binary":
        p, q = (1 / (1 + np.exp(-x / 2)) for x in (t, s))
        by_hand = -4 * np.mean(p * np.log(q) + (1 - p) * np.log(1 - q))
    else:
        p, q = (np.exp(x / 2) / np.exp(x / 2).sum(axis=1, keepdims=True) for x in (t, s))
        by_hand = 4 * np.mean(np.sum(p * np.log(p / q), axis=1))
    batch = Batch(tf.constant(users), tf.constant(items), tf.constant(s), tf.constant(0, tf.int64))
    assert float(cost(batch)) == pytest.approx(2 * by_hand, rel=1e-4)


def test_consistency_acts():
    """The student stays nearer to the average that it is drawn towards."""
    distance = {}
    for weight in (0.0, 20.0):
        config = MeanTeacher(WeightAveraging(0.9), weight=weight, loss="regression", ramp_up=0)
        models = mean_teacher(config, optimizer=keras.optimizers.SGD(0.5))
        scorers = [KerasScorer(m) for m in models]
        a, b = (s.score(DATA.user_ids, DATA.item_ids) for s in scorers)
        distance[weight] = np.abs(a - b).mean()
    assert distance[20.0] < 0.8 * distance[0.0]


def test_the_cost_grows_from_almost_nothing_to_its_full_size():
    student = build_rating_model(CONFIG)
    cost = Consistency(student, MeanTeacher(num_unlabeled=0, loss="regression", ramp_up=100), 60)
    ids, logits = (tf.constant([0]), tf.constant([[1]])), tf.constant([[5.0]])
    at = [float(cost(Batch(*ids, logits, tf.constant(n, tf.int64)))) for n in (0, 50, 100, 10**6)]
    shares = [np.exp(-5), np.exp(-5 / 4), 1, 1]
    np.testing.assert_allclose(np.array(at) / at[-1], shares, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "options", "error"),
    [
        (WeightAveraging, {"decay": 1.0}, ValueError),
        (WeightAveraging, {"decay": float("nan")}, ValueError),
        (WeightAveraging, {"warm_up": 1}, TypeError),
        (MeanTeacher, {"weight": -1.0}, ValueError),
        (MeanTeacher, {"loss": "mse"}, ValueError),
        (MeanTeacher, {"temperature": 0.0}, ValueError),
        (MeanTeacher, {"ramp_up": 1.5}, TypeError),
        (MeanTeacher, {"averaging": 0.9}, TypeError),
    ],
)
def test_settings_are_checked(settings, options, error):
    with pytest.raises(error, match=next(iter(options))):
        settings(**options)


def test_one_item_cannot_be_compared_listwise():
    rated = Interactions([0, 1], [0, 1], ratings=[1.0, 2.0])
    student = build_rating_model(RatingModelConfig("dot_product", 2, 2, 4))
    cost = Consistency(student, MeanTeacher(num_unlabeled=0), 2)
    with pytest.raises(ValueError, match="at least two candidates"):
        fit(student, rated, objective="squared_error", extra_loss=cost, progress=False)
