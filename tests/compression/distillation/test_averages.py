"""Running averages of weights: against the recursion, against Keras, and what they do."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import rel_entr, softmax

from recsys_lib.compression import distillation as kd
from recsys_lib.compression.distillation import MeanTeacher, WeightAveraging, train_with_average
from recsys_lib.data import Interactions
from recsys_lib.models import RatingModelConfig, build_rating_model
from recsys_lib.training import KerasScorer, fit
from recsys_lib.training.loop import Batch

RANDOM = np.random.default_rng(0)
GROUP = RANDOM.integers(0, 3, 50)
ROWS = np.repeat(np.arange(50), 20)
DATA = Interactions(ROWS, RANDOM.integers(0, 20, 1000) + 20 * GROUP[ROWS], num_items=60)
CONFIG = RatingModelConfig("matrix_factorization", 50, 60, 4)
OPTIONS = {"epochs": 3, "batch_size": 128, "progress": False}


def assert_same(first, second, rtol=0.0, atol=0.0):
    weights = [one if isinstance(one, list) else one.get_weights() for one in (first, second)]
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def mean_teacher(config=None, train=DATA, **options):
    student = build_rating_model(CONFIG)
    cost = kd.Consistency(student, config or MeanTeacher(), 60)
    fit(student, train, extra_loss=cost, **(OPTIONS | options))
    return cost.model, student


class Recording(kd.WeightAverage):
    """Also writes the weights after each update into a list."""

    def after_update(self):
        values = [tf.convert_to_tensor(v) for v in self.trained.variables]  # read in the graph
        tf.py_function(lambda *now: self.seen.append([v.numpy() for v in now]), values, [])
        super().after_update()


@pytest.mark.slow
@pytest.mark.parametrize(("decay", "warm_up"), [(0.0, True), (0.7, False), (0.99, True)])
def test_the_average_is_the_recursion(decay, warm_up):
    model = build_rating_model(CONFIG)
    average = Recording(model, WeightAveraging(decay, warm_up=warm_up))
    average.trained, average.seen = model, []
    fit(model, DATA, extra_loss=average, jit_compile=False, **OPTIONS)
    assert len(average.seen) == 3 * 8
    by_hand = average.seen[0]
    for number, weights in enumerate(average.seen[1:], start=2):
        share = min(decay, 1 - 1 / number) if warm_up else decay
        by_hand = [share * a + (1 - share) * w for a, w in zip(by_hand, weights, strict=True)]
    assert_same(average.model, by_hand, rtol=1e-4, atol=1e-6)


def test_without_warm_up_it_is_what_keras_computes():
    model = build_rating_model(CONFIG)
    average = kd.WeightAverage(model, WeightAveraging(0.9, warm_up=False))
    optimizer = keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9)
    fit(model, DATA, optimizer=optimizer, extra_loss=average, **OPTIONS)  # ends with the averages
    assert_same(average.model, model, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_watching_changes_nothing_to_the_bit():
    plain = build_rating_model(CONFIG)
    fit(plain, DATA, jit_compile=True, **OPTIONS)
    watched = train_with_average(CONFIG, DATA, jit_compile=True, **OPTIONS)
    assert_same(plain, watched.last)
    assert np.abs(watched.model.get_weights()[0] - plain.get_weights()[0]).max() > 1e-4


def test_validation_judges_the_average_and_patience_keeps_its_best():
    judged = []

    def judge(model):
        judged.append(model.get_weights())
        return -abs(len(judged) - 2.0)  # the second epoch is the best

    options = OPTIONS | {"epochs": 9, "validation": judge, "metric": "quality"}
    result = train_with_average(CONFIG, DATA, **options, lower_is_better=False, patience=2)
    assert result.history.best_epoch == 2 and len(judged) == 4
    assert_same(judged[1], result.model)


@pytest.mark.slow
@pytest.mark.parametrize("consistent", [False, True])
def test_a_run_that_is_resumed_gives_the_same_average(consistent, tmp_path):
    def train(**options):
        options = OPTIONS | {"epochs": 2} | options
        if consistent:
            return mean_teacher(**options)[0]
        return train_with_average(CONFIG, DATA, **options).model

    path = tmp_path / "run.npz"
    train(epochs=1, checkpoint=path)
    assert_same(train(), train(checkpoint=path))


@pytest.mark.parametrize("loss", ["binary", "listwise", "regression"])
def test_consistency_by_hand(loss):
    student, average = build_rating_model(CONFIG), WeightAveraging(0.9)
    config = MeanTeacher(average, weight=2.0, loss=loss, num_unlabeled=0, ramp_up=0, temperature=2)
    cost = kd.Consistency(student, config, 60, seed=0)
    random = np.random.default_rng(3)
    cost.model.set_weights([random.normal(size=w.shape) for w in cost.model.get_weights()])
    users, items = np.int32([3, 7]), np.int32([[1, 2, 3], [4, 5, 6]])
    pairs = np.repeat(users, 3), items.ravel()
    t, s = (KerasScorer(m).score(*pairs).reshape(2, 3) for m in (cost.model, student))
    by_hand = {
        "binary": lambda: 4 * np.mean(np.logaddexp(0, s / 2) - s / 2 / (1 + np.exp(-t / 2))),
        "listwise": lambda: 4 * np.mean(rel_entr(softmax(t / 2, 1), softmax(s / 2, 1)).sum(axis=1)),
        "regression": lambda: np.mean((t - s) ** 2),
    }[loss]()
    batch = Batch(tf.constant(users), tf.constant(items), tf.constant(s), tf.constant(0, tf.int64))
    assert float(cost(batch)) == pytest.approx(2 * by_hand, rel=1e-4)


@pytest.mark.slow
def test_the_student_stays_nearer_to_the_average_that_it_is_drawn_towards():
    distance = {}
    for weight in (0.0, 20.0):
        config = MeanTeacher(WeightAveraging(0.9), weight=weight, loss="regression", ramp_up=0)
        models = mean_teacher(config, optimizer=keras.optimizers.SGD(0.5))
        a, b = (KerasScorer(m).score(DATA.user_ids, DATA.item_ids) for m in models)
        distance[weight] = np.abs(a - b).mean()
    assert distance[20.0] < 0.8 * distance[0.0]


def test_the_cost_grows_from_almost_nothing_to_its_full_size():
    config = MeanTeacher(num_unlabeled=0, loss="regression", ramp_up=100)
    cost = kd.Consistency(build_rating_model(CONFIG), config, 60)
    ids, logits = (tf.constant([0]), tf.constant([[1]])), tf.constant([[5.0]])
    at = [float(cost(Batch(*ids, logits, tf.constant(n, tf.int64)))) for n in (0, 50, 100, 10**6)]
    np.testing.assert_allclose(np.array(at) / at[-1], [np.exp(-5), np.exp(-5 / 4), 1, 1], rtol=1e-5)


def test_refuses(refuses):
    config, rated = MeanTeacher(num_unlabeled=0), Interactions([0, 1], [0, 1], [1.0, 2.0])
    extra = OPTIONS | {"extra_loss": lambda batch: 0.0}
    refuses(
        ("extra_loss", lambda: train_with_average(CONFIG, DATA, **extra)),
        ("two candidates", lambda: mean_teacher(config, rated, objective="squared_error")),
    )
