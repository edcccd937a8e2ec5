"""Running averages of weights: against the recursion, against Keras, and what they do."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from recsys_lib.compression import named_weights
from recsys_lib.compression.distillation.ema import (
    WeightAverage,
    WeightAveraging,
    train_with_average,
)
from recsys_lib.compression.distillation.mean_teacher import (
    Consistency,
    MeanTeacher,
    ramp,
    train_mean_teacher,
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
    assert average.num_updates == len(average.seen) == 3 * 8
    by_hand = None
    for number, weights in enumerate(average.seen, start=1):
        share = min(decay, 1 - 1 / number) if warm_up else (decay if number > 1 else 0)
        if by_hand is None:
            by_hand = [np.zeros(w.shape) for w in weights]
        by_hand = [share * a + (1 - share) * w for a, w in zip(by_hand, weights, strict=True)]
    for found, expected in zip(average.model.get_weights(), by_hand, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_while_warming_up_it_is_the_plain_mean():
    model = build_rating_model(CONFIG)
    average = Recording(model, WeightAveraging(0.999))
    fit(model, DATA, extra_loss=average, jit_compile=False, **OPTIONS)
    for found, seen in zip(
        average.model.get_weights(), zip(*average.seen, strict=True), strict=True
    ):
        np.testing.assert_allclose(found, np.mean(seen, axis=0), rtol=1e-4, atol=1e-6)


def test_without_warm_up_it_is_what_keras_computes():
    """Keras keeps such an average too, in the optimizer."""
    from recsys_lib.training.loop import compile_epoch
    from recsys_lib.training.sampling import epoch_order

    model = build_rating_model(CONFIG)
    average = WeightAverage(model, WeightAveraging(0.9, warm_up=False))
    optimizer = keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9)
    optimizer.build(model.trainable_variables)
    run = compile_epoch(
        model,
        optimizer,
        DATA,
        objective="bpr",
        batch_size=128,
        negatives_per_positive=4,
        l2=0.0,
        seed=0,
        extra_loss=average,
    )
    for epoch in range(3):
        run(epoch_order(len(DATA), 0, epoch), epoch)
    raw = [w.copy() for w in model.get_weights()]
    optimizer.finalize_variable_values(model.trainable_variables)
    moved = 0.0
    for ours, theirs, last in zip(
        average.model.get_weights(), model.get_weights(), raw, strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
        moved = max(moved, np.abs(theirs - last).max())
    assert moved > 1e-3


@pytest.mark.parametrize("jit_compile", [False, True])
def test_watching_changes_nothing_to_the_bit(jit_compile):
    plain = build_rating_model(CONFIG)
    fit(plain, DATA, jit_compile=jit_compile, **OPTIONS)
    watched = train_with_average(CONFIG, DATA, jit_compile=jit_compile, **OPTIONS)
    for a, b in zip(plain.get_weights(), watched.last.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    distance = [
        np.abs(a - b).max()
        for a, b in zip(watched.model.get_weights(), watched.last.get_weights(), strict=True)
    ]
    assert max(distance) > 1e-4


def test_the_average_is_calmer_than_the_weights():
    """With a large learning rate the weights jump from update to update; their average does not."""
    course = {"raw": [], "average": []}
    model = build_rating_model(CONFIG)
    average = WeightAverage(model, WeightAveraging(0.95))
    scorers = {"raw": KerasScorer(model), "average": KerasScorer(average.model)}
    users, items = RANDOM.integers(0, 50, 500), RANDOM.integers(0, 60, 500)
    fit(
        model,
        DATA,
        optimizer=keras.optimizers.Adam(0.1),
        extra_loss=average,
        on_epoch_end=lambda *_: [
            course[name].append(scorer.score(users, items)) for name, scorer in scorers.items()
        ],
        **(OPTIONS | {"epochs": 30}),
    )
    jumps = {name: np.abs(np.diff(np.array(c[10:]), axis=0)).mean() for name, c in course.items()}
    assert jumps["average"] < 0.7 * jumps["raw"]


def test_validation_judges_the_average_and_patience_keeps_its_best():
    judged = []

    def judge(model):
        judged.append(model.get_weights())
        return float(-abs(len(judged) - 2))  # the second epoch is the best

    result = train_with_average(
        CONFIG, DATA, validation=judge, metric="quality", patience=2, **(OPTIONS | {"epochs": 9})
    )
    assert result.history.best_epoch == 2 and len(judged) == 4
    for best, kept in zip(judged[1], result.model.get_weights(), strict=True):
        np.testing.assert_array_equal(best, kept)


@pytest.mark.parametrize("train", [train_with_average, train_mean_teacher])
def test_a_run_that_is_resumed_gives_the_same_average(train, tmp_path):
    whole = train(CONFIG, DATA, **OPTIONS)
    path = tmp_path / "run.npz"
    train(CONFIG, DATA, checkpoint=path, **(OPTIONS | {"epochs": 1}))
    resumed = train(CONFIG, DATA, checkpoint=path, **OPTIONS)
    for a, b in zip(whole.model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("train", [train_with_average, train_mean_teacher])
def test_students_stay_as_they_are_and_kinds_are_kept(train):
    student = build_rating_model(CONFIG)
    before = [w.copy() for w in student.get_weights()]
    result = train(student, DATA, **OPTIONS)
    for old, new in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert result.model.name == result.last.name == "matrix_factorization"

    recommender = KerasRecommender(CONFIG, **OPTIONS).fit(DATA)
    result = train(recommender, DATA, **OPTIONS)
    assert isinstance(result.model, KerasRecommender)
    assert result.model.recommend([0], k=3).shape == (1, 3)
    with pytest.raises(ValueError, match="extra_loss"):
        train(student, DATA, extra_loss=lambda batch: 0.0, **OPTIONS)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_decay_is_in_range(decay):
    with pytest.raises(ValueError, match="decay"):
        WeightAveraging(decay)


def test_a_mean_teacher_without_weight_is_a_plain_average():
    plain = train_with_average(CONFIG, DATA, **OPTIONS)
    teacher = train_mean_teacher(CONFIG, DATA, MeanTeacher(weight=0.0), **OPTIONS)
    for a, b in zip(plain.model.get_weights(), teacher.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


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
        result = train_mean_teacher(
            CONFIG, DATA, config, optimizer=keras.optimizers.SGD(0.5), **OPTIONS
        )
        scorers = [KerasScorer(m) for m in (result.model, result.last)]
        a, b = (s.score(DATA.user_ids, DATA.item_ids) for s in scorers)
        distance[weight] = np.abs(a - b).mean()
    assert distance[20.0] < 0.8 * distance[0.0]


def test_ramp_by_hand():
    assert float(ramp(0.0, 100)) == pytest.approx(np.exp(-5))
    assert float(ramp(50.0, 100)) == pytest.approx(np.exp(-5 / 4))
    assert float(ramp(100.0, 100)) == float(ramp(1e6, 100)) == float(ramp(0.0, 0)) == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"weight": -1.0}, ValueError),
        ({"loss": "mse"}, ValueError),
        ({"temperature": 0.0}, ValueError),
        ({"num_unlabeled": -1}, ValueError),
        ({"ramp_up": 1.5}, TypeError),
        ({"averaging": 0.9}, TypeError),
    ],
)
def test_settings_are_checked(options, error):
    with pytest.raises(error, match=next(iter(options))):
        MeanTeacher(**options)


def test_the_twin_of_one_item_cannot_be_compared_listwise():
    rated = Interactions([0, 1], [0, 1], ratings=[1.0, 2.0])
    config = RatingModelConfig("dot_product", 2, 2, 4)
    with pytest.raises(ValueError, match="at least two candidates"):
        train_mean_teacher(
            config, rated, MeanTeacher(num_unlabeled=0), objective="squared_error", progress=False
        )
    assert named_weights(build_rating_model(config))
