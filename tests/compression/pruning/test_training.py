"""Schedules as TFMOT has them, and masks that hold in training and leave nothing behind."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_lib.compression import named_weights
from recsys_lib.compression.pruning import (
    PolynomialSchedule,
    WeightPruning,
    fit_pruned,
    magnitude_mask,
)
from recsys_lib.data import Interactions
from recsys_lib.models import IALS, RatingModelConfig, build_rating_model
from recsys_lib.training import KerasRecommender, fit

RANDOM = np.random.default_rng(0)
DATA = Interactions(RANDOM.integers(0, 30, 400), RANDOM.integers(0, 20, 400), num_users=30,
                    num_items=20)  # fmt: skip
CONFIG = RatingModelConfig("mlp_ranker", 30, 20, embedding_dim=8, hidden_units=(16, 8))
KERNEL = "dense_0/kernel"
QUICK: dict[str, Any] = {"batch_size": 64, "progress": False}


def ranker() -> Any:
    return build_rating_model(CONFIG)


def zeros_of(model: Any) -> dict[str, np.ndarray]:
    return {name: values == 0 for name, values in named_weights(model).items() if values.ndim > 1}


def optimizers() -> dict[str, Any]:
    import keras

    o = keras.optimizers
    return {
        "sgd": o.SGD(0.1),
        "momentum": o.SGD(0.1, momentum=0.9, nesterov=True),
        "adam": o.Adam(0.01),
        "adamw": o.AdamW(0.01, weight_decay=0.1),
        "adagrad": o.Adagrad(0.1),
        "rmsprop": o.RMSprop(0.01, momentum=0.5),
        "lion": o.Lion(0.001),
        "ftrl": o.Ftrl(0.1),
        "ema": o.Adam(0.01, use_ema=True, ema_overwrite_frequency=3),
        "accumulated": o.Adam(0.01, gradient_accumulation_steps=2),
        "clipped": o.Adamax(0.01, clipnorm=0.1),
    }


@pytest.mark.parametrize("name", list(optimizers()))
def test_masks_hold_through_any_optimizer(name: str) -> None:
    model = ranker()
    before = named_weights(model)
    config = WeightPruning(0.75)
    pruned = fit_pruned(model, DATA, config, optimizer=optimizers()[name], epochs=3, **QUICK)
    after = named_weights(pruned.model)
    for weight, mask in pruned.masks.items():
        # Pruned before the first epoch, so the masks are those of the weights at the start.
        np.testing.assert_array_equal(mask, magnitude_mask(before[weight], 0.75))
        assert not after[weight][~mask].any()
        assert (after[weight][mask] != before[weight][mask]).any()  # and it did train
    assert pruned.sparsities == pytest.approx((0.75,) * 3, abs=0.01)


def test_without_the_constraint_momentum_brings_the_weights_back() -> None:
    """What the constraint is for: the same training on weights that were only set to zero."""
    model = ranker()
    kernel = model.get_layer("dense_0").kernel
    mask = magnitude_mask(kernel.numpy(), 0.75)
    kernel.assign(kernel * mask)
    fit(model, DATA, epochs=1, **QUICK)
    assert (kernel.numpy()[~mask] != 0).mean() > 0.9


@pytest.mark.parametrize("jit_compile", [False, True])
def test_sparsity_follows_the_schedule_in_each_epoch(jit_compile: bool) -> None:
    seen: list[float] = []
    schedule = PolynomialSchedule(end_step=3, begin_step=1, initial_sparsity=0.25)
    pruned = fit_pruned(
        ranker(),
        DATA,
        WeightPruning({KERNEL: 0.9}),
        schedule=schedule,
        validation=lambda model: seen.append(float(np.mean(_kernel(model) == 0))) or 0.0,
        metric="score",
        epochs=5,
        jit_compile=jit_compile,
        **QUICK,
    )
    expected = [schedule(epoch, 0.9) for epoch in range(5)]
    assert expected[0] == 0 and expected[-2:] == [0.9, 0.9]
    assert seen == pytest.approx(expected, abs=1 / 256)  # after the updates of each epoch
    assert pruned.sparsities == pytest.approx(expected, abs=1 / 256)
    assert zeros_of(pruned.model)[KERNEL].mean() == pytest.approx(0.9, abs=1 / 256)
    assert pruned.history.validation == (0.0,) * 5


def _kernel(model: Any) -> np.ndarray:
    return model.get_layer("dense_0").kernel.numpy()


STEPS = 7  # updates an epoch: 400 interactions in batches of 64


def test_a_draw_at_the_end_of_each_epoch_is_the_schedule_of_epochs() -> None:
    """Two implementations of the same thing: between the calls of the graph, and inside it."""
    config, options = WeightPruning(0.9), {"epochs": 4, "jit_compile": False, **QUICK}
    between = fit_pruned(ranker(), DATA, config, schedule=PolynomialSchedule(3), **options)
    inside = fit_pruned(
        ranker(), DATA, config, schedule=PolynomialSchedule(3 * STEPS), frequency=STEPS, **options
    )
    for name, values in named_weights(between.model).items():
        np.testing.assert_allclose(named_weights(inside.model)[name], values, atol=1e-6)
    for name, mask in between.masks.items():
        np.testing.assert_array_equal(inside.masks[name], mask)


@pytest.mark.parametrize("name", ["adam", "accumulated", "ema", "momentum"])
@pytest.mark.parametrize("budget", ["layer", "global"])
def test_masks_are_drawn_in_the_midst_of_epochs(
    budget: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule, config = (
        PolynomialSchedule(16, initial_sparsity=0.2),
        WeightPruning(0.8, budget=budget),
    )
    drawn: list[float] = []
    weights_then: list[np.ndarray] = []
    draw = WeightPruning.masks

    def noted(self: WeightPruning, weights: Any, now: Any) -> Any:
        drawn.append(now[KERNEL])
        weights_then.append(weights[KERNEL])
        return draw(self, weights, now)

    monkeypatch.setattr(WeightPruning, "masks", noted)
    pruned = fit_pruned(
        ranker(), DATA, config, schedule=schedule, frequency=4, epochs=3,
        optimizer=optimizers()[name], **QUICK,
    )  # fmt: skip
    assert drawn == pytest.approx([schedule(step, 0.8) for step in (0, 4, 8, 12, 16)])
    # What a draw sees are the weights of that update, with the masks of the draws before.
    for (low, earlier), later in zip(
        itertools.pairwise(weights_then[:-1]), weights_then[2:], strict=True
    ):
        assert (earlier != low).any()
        assert not ((later != 0) & (earlier == 0)).any()
    zeros = np.concatenate([zeros_of(pruned.model)[name].ravel() for name in pruned.masks])
    assert zeros.mean() == pytest.approx(0.8, abs=0.01)
    # 7, 14 and 21 updates: after the draws at 4, 12 and 16.
    expected = [schedule(step, 0.8) for step in (4, 12, 16)]
    assert pruned.sparsities == pytest.approx(expected, abs=0.01)
    assert all(variable.constraint is None for variable in pruned.model.weights)


def test_divergence_is_reported_as_without_draws() -> None:
    with pytest.raises(FloatingPointError, match="became"):
        fit_pruned(
            ranker(), DATA, WeightPruning(0.5), schedule=PolynomialSchedule(4), frequency=1,
            optimizer=optimizers()["sgd"].__class__(1e30), epochs=3, **QUICK,
        )  # fmt: skip


@pytest.mark.parametrize(
    "config",
    [
        WeightPruning(0.5, "n_of_m", names=(KERNEL,)),
        WeightPruning(0.5, "block", names=(KERNEL,), block_size=(2, 4)),
        WeightPruning(0.5, "row", names=("item_embedding/embeddings",)),
        WeightPruning(0.7, budget="global"),
    ],
    ids=["n_of_m", "block", "row", "global"],
)
def test_patterns_and_budgets_hold_in_training(config: WeightPruning) -> None:
    pruned = fit_pruned(ranker(), DATA, config, schedule=PolynomialSchedule(2), epochs=3, **QUICK)
    zeros = zeros_of(pruned.model)
    total = np.concatenate([zeros[name].ravel() for name in pruned.masks])
    assert total.mean() == pytest.approx(config.sparsity, abs=0.01)
    if config.granularity == "n_of_m":
        assert (zeros[KERNEL].reshape(-1, 4, 16).sum(axis=1) == 2).all()
    if config.granularity == "block":
        assert set(zeros[KERNEL].reshape(8, 2, 4, 4).mean(axis=(1, 3)).ravel()) == {0, 1}
    if config.granularity == "row":
        assert set(zeros["item_embedding/embeddings"].mean(axis=1)) == {0, 1}


def test_the_given_model_stays_and_the_result_is_free_of_constraints(tmp_path: Path) -> None:
    import keras

    model = ranker()
    before = model.get_weights()
    pruned = fit_pruned(model, DATA, WeightPruning(0.5), epochs=1, **QUICK)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    for some in (model, pruned.model):
        assert all(variable.constraint is None for variable in some.weights)
    pruned.model.save(tmp_path / "pruned.keras")
    loaded = keras.models.load_model(tmp_path / "pruned.keras")
    clone = keras.models.clone_model(pruned.model)
    clone.set_weights(pruned.model.get_weights())
    pairs = [np.arange(20), np.arange(20)]
    for copy in (loaded, clone):
        np.testing.assert_array_equal(copy(pairs), pruned.model(pairs))
    # Trained further, it is an ordinary model again.
    fit(pruned.model, DATA, epochs=1, **QUICK)
    assert zeros_of(pruned.model)[KERNEL].mean() < 0.1


def test_a_constraint_that_was_there_still_acts() -> None:
    import keras

    inputs = [keras.Input((), dtype="int32"), keras.Input((), dtype="int32")]
    tables = [keras.layers.Embedding(n, 8) for n in (30, 20)]
    joined = keras.layers.Concatenate()(
        [table(ids) for table, ids in zip(tables, inputs, strict=True)]
    )
    score = keras.layers.Dense(1, kernel_constraint="non_neg", name="score")(joined)
    model = keras.Model(inputs, keras.layers.Reshape(())(score))
    pruned = fit_pruned(
        model, DATA, WeightPruning({"score/kernel": 0.5}), epochs=2, optimizer="sgd", **QUICK
    )
    kernel = named_weights(pruned.model)["score/kernel"]
    assert (kernel >= 0).all()
    assert (kernel == 0).sum() >= 8


def test_no_sparsity_is_plain_training() -> None:
    model = ranker()
    pruned = fit_pruned(model, DATA, WeightPruning(0.0), epochs=2, **QUICK)
    fit(model, DATA, epochs=2, **QUICK)
    for name, values in named_weights(model).items():
        np.testing.assert_allclose(values, named_weights(pruned.model)[name], atol=1e-6)


def test_a_recommender_comes_back_as_one_with_its_own_options() -> None:
    model = KerasRecommender(CONFIG, epochs=3, objective="bpr", **QUICK).fit(DATA)
    before = named_weights(model)
    pruned = fit_pruned(model, DATA, WeightPruning(0.8))
    assert len(pruned.history.loss) == 3
    assert isinstance(pruned.model, KerasRecommender)
    np.testing.assert_array_equal(
        pruned.score_all_items([1, 2]), pruned.model.score_all_items([1, 2])
    )
    assert pruned.report.sparsity > 0.7
    assert pruned.nbytes < pruned.report.bytes_before / 3
    for name, values in before.items():
        np.testing.assert_array_equal(values, named_weights(model)[name])
    ended: list[int] = []
    options = {"epochs": 1, "on_epoch_end": lambda epoch, logs: ended.append(epoch)}
    short = fit_pruned(model, DATA, WeightPruning(0.8), **options)
    assert len(short.history.loss) == 1 and ended == [1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 2}, "patience is given"),
        ({"checkpoint": "x"}, "checkpoint is given"),
        ({"schedule": PolynomialSchedule(4), "epochs": 4}, "reaches sparsity 0.4922 at the last"),
        ({"schedule": PolynomialSchedule(3), "epochs": 2}, "an end_step of at most 1 or more"),
        ({"frequency": 0}, "frequency is 0"),
        ({"frequency": 5, "jit_compile": True}, "jit_compile is True"),
        (
            {"schedule": PolynomialSchedule(13), "epochs": 2, "batch_size": 64, "frequency": 5},
            "sparsity 0.4939 at the last draw of masks, step 10",
        ),
        ({"epochs": 0}, "epochs"),
        ({"objective": "hinge"}, "objective is 'hinge'"),
    ],
)
def test_errors_of_options(options: dict[str, Any], message: str) -> None:
    model = ranker()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        fit_pruned(model, DATA, WeightPruning(0.5), progress=False, **options)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_errors_of_models() -> None:
    import tf_keras

    twin = build_rating_model(CONFIG, keras=tf_keras)
    frozen = ranker()
    frozen.get_layer("dense_0").trainable = False
    for error, message, model, config in (
        (TypeError, "expected a Keras 3 model", twin, WeightPruning()),
        (TypeError, "expected a Keras 3 model", IALS(epochs=1).fit(DATA), WeightPruning()),
        (ValueError, "dense_0/kernel is not trainable", frozen, WeightPruning()),
        (ValueError, "names names 'x'", ranker(), WeightPruning(names=("x",))),
        (TypeError, "expected WeightPruning", ranker(), 0.5),
    ):
        with pytest.raises(error, match=message):
            fit_pruned(model, DATA, config, **QUICK)  # type: ignore[arg-type]


TFMOT = """
import json, sys
import tensorflow as tf
from tensorflow_model_optimization.sparsity import keras as sparsity
jobs = json.load(sys.stdin)
results = []
for kind, options, steps in jobs:
    schedule = getattr(sparsity, kind)(**options)
    pairs = [schedule(tf.constant(step)) for step in steps]
    results.append([[float(sparsity) for _, sparsity in pairs], [bool(now) for now, _ in pairs]])
print("VALUES" + json.dumps(results))
"""


@pytest.mark.slow
def test_values_are_those_of_tfmot() -> None:
    steps = list(range(2, 14))  # from the first step: before it TFMOT prunes nothing either
    jobs, ours = [], []
    for initial, final, begin, end, power in [
        (0.0, 0.9, 0, 10, 3),
        (0.5, 0.8, 2, 6, 3),
        (0.2, 0.95, 1, 12, 1),
        (0.0, 0.5, 0, 1, 2),
    ]:
        options = {"initial_sparsity": initial, "final_sparsity": final, "power": power}
        jobs.append(("PolynomialDecay", options | {"begin_step": begin, "end_step": end}, steps))
        schedule = PolynomialSchedule(end, begin, initial, power)
        ours.append([schedule(step, final) for step in steps])
    every_four = {"initial_sparsity": 0.2, "final_sparsity": 0.8, "begin_step": 0, "end_step": 16}
    jobs.append(("PolynomialDecay", every_four | {"frequency": 4}, list(range(22))))
    done = subprocess.run(
        [sys.executable, "-c", TFMOT], input=json.dumps(jobs), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(done.stdout.split("VALUES")[1])
    *schedules, (sparsities, now) = theirs
    for mine, (other, _) in zip(ours, schedules, strict=True):
        assert mine == pytest.approx(other, abs=1e-6)
    # The steps at which fit_pruned(frequency=4) draws masks, in test_training.py.
    drawn = [step for step, due in enumerate(now) if due]
    assert drawn == [0, 4, 8, 12, 16]
    expected = [PolynomialSchedule(16, initial_sparsity=0.2)(step, 0.8) for step in drawn]
    assert expected == pytest.approx([sparsities[step] for step in drawn], abs=1e-6)


def test_equation_1_by_hand() -> None:
    # s_f + (s_i - s_f) (1 - (t - t_0) / (n dt))^3 with s_i = .2, s_f = .8, t_0 = 10, n dt = 100
    schedule = PolynomialSchedule(end_step=110, begin_step=10, initial_sparsity=0.2)
    assert schedule(9, 0.8) == 0.0
    assert schedule(10, 0.8) == pytest.approx(0.2)
    assert schedule(60, 0.8) == pytest.approx(0.8 - 0.6 / 8)
    assert schedule(110, 0.8) == schedule(10_000, 0.8) == 0.8


@given(
    final=st.floats(0, 0.999),
    initial=st.floats(0, 0.999),
    begin=st.integers(0, 20),
    length=st.integers(1, 20),
    power=st.floats(0.25, 6),
)
def test_sparsity_never_falls_and_ends_where_it_should(
    final: float, initial: float, begin: int, length: int, power: float
) -> None:
    schedule = PolynomialSchedule(begin + length, begin, initial, power)
    course = [schedule(step, final) for step in range(begin + length + 3)]
    assert all(low <= high + 1e-12 for low, high in itertools.pairwise(course))
    assert all(0 <= value <= final for value in course)
    assert course[-1] == course[begin + length] == final
    assert not any(course[:begin])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"end_step": 0}, "end_step is 0"),
        ({"end_step": 2, "begin_step": 2}, "end_step is 2"),
        ({"end_step": 2, "begin_step": -1}, "begin_step is -1"),
        ({"end_step": 2, "initial_sparsity": 1.0}, "initial_sparsity is 1.0"),
        ({"end_step": 2, "power": 0}, "power is 0"),
    ],
)
def test_errors_of_schedules(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PolynomialSchedule(**options)
    with pytest.raises(ValueError, match=r"final_sparsity is 1\.0"):
        PolynomialSchedule(3)(0, 1.0)
