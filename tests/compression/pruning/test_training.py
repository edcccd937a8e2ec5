"""Schedules as TFMOT has them, and masks that hold in training and leave nothing behind."""

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_lib.compression import named_weights
from recsys_lib.compression.pruning import WeightPruning, fit_pruned, magnitude_mask
from recsys_lib.compression.pruning.training import PolynomialSchedule
from recsys_lib.compression.tfmot import load_tfmot
from recsys_lib.data import Interactions
from recsys_lib.models import IALS, RatingModelConfig, build_rating_model
from recsys_lib.training import KerasRecommender, fit

IDS = np.random.default_rng(0).integers(0, [30, 20], (400, 2)).T
DATA = Interactions(*IDS, num_users=30, num_items=20)
CONFIG = RatingModelConfig("mlp_ranker", 30, 20, embedding_dim=8, hidden_units=(16, 8))
KERNEL = "dense_0/kernel"
QUICK = {"batch_size": 64, "progress": False}


def ranker():
    return build_rating_model(CONFIG)


def zeros_of(model):
    return {name: values == 0 for name, values in named_weights(model).items() if values.ndim > 1}


OPTIMIZERS = {
    "sgd": lambda o: o.SGD(0.1),
    "momentum": lambda o: o.SGD(0.1, momentum=0.9, nesterov=True),
    "adam": lambda o: o.Adam(0.01),
    "adamw": lambda o: o.AdamW(0.01, weight_decay=0.1),
    "adagrad": lambda o: o.Adagrad(0.1),
    "rmsprop": lambda o: o.RMSprop(0.01, momentum=0.5),
    "lion": lambda o: o.Lion(0.001),
    "ftrl": lambda o: o.Ftrl(0.1),
    "ema": lambda o: o.Adam(0.01, use_ema=True, ema_overwrite_frequency=3),
    "accumulated": lambda o: o.Adam(0.01, gradient_accumulation_steps=2),
    "clipped": lambda o: o.Adamax(0.01, clipnorm=0.1),
}


def optimizer(name):
    from keras import optimizers

    return OPTIMIZERS[name](optimizers)


def slow(*cases):
    return [pytest.param(*case, marks=pytest.mark.slow) for case in cases]


FREQUENT = ("momentum", "adamw", "ema")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [*FREQUENT, *slow(*([name] for name in sorted(OPTIMIZERS.keys() - FREQUENT)))]
)
def test_masks_hold_through_any_optimizer(name):
    model = ranker()
    options = {"optimizer": optimizer(name), "epochs": 3, **QUICK}
    pruned = fit_pruned(model, DATA, WeightPruning(0.75), **options)
    before, after = named_weights(model), named_weights(pruned.model)
    for weight, mask in pruned.masks.items():
        # Pruned before the first epoch, so the masks are those of the weights at the start.
        np.testing.assert_array_equal(mask, magnitude_mask(before[weight], 0.75))
        assert not after[weight][~mask].any()
        assert (after[weight][mask] != before[weight][mask]).any()  # and it did train
    assert pruned.sparsities == pytest.approx((0.75,) * 3, abs=0.01)


@pytest.mark.parametrize("jit_compile", [False, *slow([True])])
def test_sparsity_follows_the_schedule_in_each_epoch(jit_compile):
    seen, schedule = [], PolynomialSchedule(end_step=3, begin_step=1, initial_sparsity=0.25)
    options = {"metric": "score", "jit_compile": jit_compile, **QUICK}
    options["validation"] = lambda model: seen.append(zeros_of(model)[KERNEL].mean()) or 0.0
    config = WeightPruning({KERNEL: 0.9})
    pruned = fit_pruned(ranker(), DATA, config, schedule=schedule, epochs=5, **options)
    expected = [schedule(epoch, 0.9) for epoch in range(5)]
    assert expected[0] == 0 and expected[-2:] == [0.9, 0.9]
    for found in (seen, pruned.sparsities):
        assert found == pytest.approx(expected, abs=1 / 256)  # after the updates of each epoch
    assert zeros_of(pruned.model)[KERNEL].mean() == pytest.approx(0.9, abs=1 / 256)
    assert pruned.history.validation == (0.0,) * 5


def test_a_draw_at_the_end_of_each_epoch_is_the_schedule_of_epochs():
    """Two implementations of the same thing: between the calls of the graph, and inside it."""
    options = {"epochs": 3, "jit_compile": False, **QUICK}
    between, inside = (  # 7 updates an epoch: 400 interactions in batches of 64
        fit_pruned(ranker(), DATA, WeightPruning(0.9), schedule=PolynomialSchedule(end), **how)
        for end, how in ((2, options), (14, options | {"frequency": 7}))
    )
    for name, values in named_weights(between.model).items():
        np.testing.assert_allclose(named_weights(inside.model)[name], values, atol=1e-6)
    np.testing.assert_equal(inside.masks, between.masks)


BUDGETS = [("global", "adam"), *slow(*(("layer", n) for n in ("accumulated", "ema", "momentum")))]


@pytest.mark.parametrize(("budget", "name"), BUDGETS)
def test_masks_are_drawn_in_the_midst_of_epochs(budget, name, monkeypatch):
    schedule, draw = PolynomialSchedule(16, initial_sparsity=0.2), WeightPruning.masks
    drawn, weights_then = [], []

    def noted(self, weights, now):
        drawn.append(now[KERNEL])
        weights_then.append(weights[KERNEL])
        return draw(self, weights, now)

    monkeypatch.setattr(WeightPruning, "masks", noted)
    options = {"frequency": 4, "epochs": 3, "optimizer": optimizer(name), **QUICK}
    config = WeightPruning(0.8, budget=budget)
    pruned = fit_pruned(ranker(), DATA, config, schedule=schedule, **options)
    assert drawn == pytest.approx([schedule(step, 0.8) for step in (0, 4, 8, 12, 16)])
    # What a draw sees are the weights of that update, with the masks of the draws before.
    for number, later in enumerate(weights_then[2:]):
        first, earlier = weights_then[number : number + 2]
        assert (earlier != first).any()
        assert not ((later != 0) & (earlier == 0)).any()
    zeros = np.concatenate([zeros_of(pruned.model)[name].ravel() for name in pruned.masks])
    assert zeros.mean() == pytest.approx(0.8, abs=0.01)
    expected = [schedule(step, 0.8) for step in (4, 12, 16)]  # the last before 7, 14 and 21
    assert pruned.sparsities == pytest.approx(expected, abs=0.01)
    assert all(variable.constraint is None for variable in pruned.model.weights)


@pytest.mark.slow
def test_the_given_model_stays_and_the_result_is_free_of_constraints(tmp_path):
    import keras

    model = ranker()
    before = model.get_weights()
    pruned = fit_pruned(model, DATA, WeightPruning(0.5), epochs=1, **QUICK)
    np.testing.assert_equal(model.get_weights(), before)
    for some in (model, pruned.model):
        assert all(variable.constraint is None for variable in some.weights)
    pruned.model.save(tmp_path / "pruned.keras")
    loaded = keras.models.load_model(tmp_path / "pruned.keras")
    pairs = [np.arange(20), np.arange(20)]
    np.testing.assert_array_equal(loaded(pairs), pruned.model(pairs))
    fit(pruned.model, DATA, epochs=1, **QUICK)  # trained further, it is an ordinary model again
    assert zeros_of(pruned.model)[KERNEL].mean() < 0.1
    same = fit_pruned(model, DATA, WeightPruning(0.0), epochs=1, **QUICK)  # is plain training
    fit(model, DATA, epochs=1, **QUICK)
    for name, values in named_weights(model).items():
        np.testing.assert_allclose(values, named_weights(same.model)[name], atol=1e-6)


def test_a_constraint_that_was_there_still_acts():
    import keras

    inputs = [keras.Input((), dtype="int32") for _ in range(2)]
    rows = [keras.layers.Embedding(30, 8)(ids) for ids in inputs]
    dense = keras.layers.Dense(1, kernel_constraint="non_neg", name="score")
    score = dense(keras.layers.Concatenate()(rows))
    model = keras.Model(inputs, keras.layers.Reshape(())(score))
    config = WeightPruning({"score/kernel": 0.5})
    pruned = fit_pruned(model, DATA, config, epochs=2, optimizer="sgd", **QUICK)
    kernel = named_weights(pruned.model)["score/kernel"]
    assert (kernel >= 0).all() and (kernel == 0).sum() >= 8


@pytest.mark.slow
def test_a_recommender_is_trained_with_its_own_options():
    model, ended = KerasRecommender(CONFIG, epochs=2, objective="bpr", **QUICK).fit(DATA), []
    pruned = fit_pruned(model, DATA, WeightPruning(0.75, "n_of_m"))
    assert (zeros_of(pruned.model)[KERNEL].reshape(-1, 4, 16).sum(axis=1) == 3).all()
    assert len(pruned.history.loss) == 2 and pruned.report.sparsity > 0.7
    assert pruned.nbytes < pruned.report.bytes_before / 2
    options = {"epochs": 1, "on_epoch_end": lambda epoch, logs: ended.append(epoch)}
    fit_pruned(model, DATA, WeightPruning(0.8), **options)
    assert ended == [1]


def test_refuses_and_leaves_the_model(refuses):
    import tf_keras

    twin, frozen, model = build_rating_model(CONFIG, keras=tf_keras), ranker(), ranker()
    frozen.get_layer("dense_0").trainable = False
    before, schedule = model.get_weights(), PolynomialSchedule
    huge = {"frequency": 1, "optimizer": optimizer("sgd").__class__(1e30)}
    late = {"schedule": schedule(13), "epochs": 2, "frequency": 5}
    start = functools.partial(fit_pruned, interactions=DATA, config=WeightPruning(0.5), **QUICK)
    refuses(
        ("patience", lambda: start(model, patience=2)),
        ("schedule ends at 0.4922", lambda: start(model, schedule=schedule(4), epochs=4)),
        ("frequency is 0", lambda: start(model, frequency=0)),
        ("jit_compile", lambda: start(model, frequency=5, jit_compile=True)),
        (r"schedule ends at 0.4939 \(step 10\)", lambda: start(model, **late)),
        ("became", lambda: start(model, schedule=schedule(4), epochs=2, **huge)),
        ("objective", lambda: start(model, objective="hinge")),
        ("model is .* Keras 3", lambda: start(twin)),
        ("model is .* Keras 3", lambda: start(IALS(epochs=1).fit(DATA))),
        ("dense_0/kernel is not trainable", lambda: start(frozen)),
        ("WeightPruning", lambda: start(model, config=0.5)),
        ("end_step", lambda: schedule(2, begin_step=2)),
        ("final_sparsity", lambda: schedule(3)(0, 1.0)),
    )
    np.testing.assert_equal(model.get_weights(), before)


CASES = [(0.0, 0.9, 0, 10, 3), (0.5, 0.8, 2, 6, 3), (0.2, 0.95, 1, 12, 1), (0.0, 0.5, 0, 1, 2)]


@pytest.mark.parametrize(("initial", "final", "begin", "end", "power"), CASES)
def test_values_are_those_of_tfmot(initial, final, begin, end, power):
    decay = load_tfmot().sparsity.keras.PolynomialDecay
    ours, theirs = (
        PolynomialSchedule(end, begin, initial, power),
        decay(initial, final, begin, end, power),
    )
    steps = range(2, 14)  # from the first step: before it TFMOT prunes nothing either
    expected = [float(theirs(step)[1]) for step in steps]
    assert [ours(step, final) for step in steps] == pytest.approx(expected, abs=1e-6)
    theirs, ours = decay(0.2, 0.8, 0, 16, frequency=4), PolynomialSchedule(16, initial_sparsity=0.2)
    drawn = [step for step in range(22) if theirs(step)[0]]
    assert drawn == [0, 4, 8, 12, 16]  # as fit_pruned(frequency=4), above
    expected = [float(theirs(step)[1]) for step in drawn]
    assert [ours(step, 0.8) for step in drawn] == pytest.approx(expected, abs=1e-6)


@given(*[st.floats(0, 0.999)] * 2, st.integers(0, 20), st.integers(1, 20), st.floats(0.25, 6))
def test_sparsity_never_falls_and_ends_where_it_should(final, initial, begin, length, power):
    schedule = PolynomialSchedule(begin + length, begin, initial, power)
    course = [schedule(step, final) for step in range(begin + length + 3)]
    assert all(low <= high + 1e-12 for low, high in itertools.pairwise(course))
    assert all(0 <= value <= final for value in course)
    assert course[-1] == course[begin + length] == final
    assert not any(course[:begin])
