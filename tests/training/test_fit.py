"""Runs as a whole: seeds, resume, early stopping, divergence, logs, and what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from recsys_lib.data import Interactions, Split
from recsys_lib.models import Popularity, RatingModelConfig, build_rating_model
from recsys_lib.training import KerasScorer, fit


def toy_data(num_rows: int = 300, seed: int = 0) -> Interactions:
    random = np.random.default_rng(seed)
    users, items = random.integers(20, size=num_rows), random.integers(15, size=num_rows)
    return Interactions(users, items, (users + items) % 5 + 1.0, num_users=20, num_items=15)


def toy_model(seed: int = 0):
    return build_rating_model(RatingModelConfig("matrix_factorization", 20, 15, 4, seed=seed))


def options(**changes):
    """A run of six epochs with everything that has a state."""
    plain = {
        "optimizer": keras.optimizers.Adam(
            keras.optimizers.schedules.ExponentialDecay(0.05, 9, 0.9)
        ),
        "epochs": 6,
        "batch_size": 64,
        "negatives_per_positive": 2,
        "l2": 0.01,
        "progress": False,
    }
    return plain | changes


def train(model, data=None, **changes):
    return fit(model, toy_data() if data is None else data, **options(**changes))


def assert_same_weights(first, second):
    """Models or lists of weights."""
    first, second = (getattr(x, "get_weights", lambda x=x: x)() for x in (first, second))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_seed_decides_everything():
    models = [toy_model() for _ in range(3)]
    runs = [train(model, seed=seed) for model, seed in zip(models, (1, 1, 2), strict=True)]
    assert_same_weights(models[0], models[1])
    assert runs[0].loss == runs[1].loss != runs[2].loss
    assert not np.array_equal(models[0].get_weights()[0], models[2].get_weights()[0])


def test_given_optimizer_is_not_changed():
    optimizer, models = keras.optimizers.Adam(0.05), [toy_model(), toy_model()]
    for model in models:
        train(model, optimizer=optimizer)
    assert not optimizer.built
    assert_same_weights(*models)


class Stop(Exception):
    pass


@pytest.mark.parametrize("stop_at", [1, 4])
def test_resume_is_exact(tmp_path, stop_at):
    held_out = toy_data(seed=1)
    more = {"validation": held_out, "metric": "rmse", "patience": 5, "objective": "squared_error"}
    whole, interrupted = toy_model(), toy_model()
    expected = train(whole, **more)

    def stop(epoch, logs):
        if epoch == stop_at:
            raise Stop

    more["checkpoint"] = tmp_path / "run"
    with pytest.raises(Stop):
        train(interrupted, **more, on_epoch_end=stop)
    again, seen = toy_model(seed=9), []  # its weights are replaced
    resumed = train(again, **more, on_epoch_end=lambda epoch, logs: seen.append(epoch))
    assert seen == list(range(stop_at + 1, 7))
    assert_same_weights(again, whole)
    assert (resumed.loss, resumed.validation) == (expected.loss, expected.validation)
    finished = toy_model(seed=9)
    assert train(finished, **more) == resumed
    assert_same_weights(finished, whole)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_more_epochs_go_on_from_the_last(tmp_path):
    whole, in_two_parts = toy_model(), toy_model()
    train(whole)
    for epochs in (2, 6):
        run = train(in_two_parts, epochs=epochs, checkpoint=tmp_path / "a.npz")
    assert run.epochs == 6
    assert_same_weights(whole, in_two_parts)


@pytest.mark.slow
def test_killed_process_resumes_exactly(tmp_path):
    script = Path(__file__).parent / "run_until_killed.py"
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    for line in process.stdout:  # one line per epoch; the process is somewhere in the sixth
        if line.startswith("epoch 5"):
            break
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL
    killed, whole = toy_model(), toy_model()
    rows, more = toy_data(60_000), {"epochs": 12, "optimizer": "adam"}
    resumed = train(killed, rows, **more, checkpoint=tmp_path / "run")
    train(whole, rows, **more)
    assert resumed.epochs == 12
    assert_same_weights(killed, whole)


NEGATIVES = np.array([np.roll(np.arange(15), n)[:11] for n in range(300)])


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("batch_size", {"batch_size": 32}),
        ("seed", {"seed": 4}),
        ("optimizer", {"optimizer": keras.optimizers.Adam(0.04)}),
        ("objective", {"objective": "bpr"}),
        ("epochs", {"epochs": 1}),
        ("interactions", {"data": toy_data(seed=5)}),
        ("validation", {"validation": Split(toy_data(), toy_data(), negatives=NEGATIVES[::-1])}),
        ("model", {"dim": 5}),
    ],
)
def test_checkpoint_of_another_run_is_refused(tmp_path, name, change):
    held_out = Split(toy_data(), toy_data(), negatives=NEGATIVES)
    given = options(epochs=2, checkpoint=tmp_path / "run", validation=held_out)
    fit(toy_model(), toy_data(), **given)
    given |= change
    data, dim = given.pop("data", toy_data()), given.pop("dim", 4)
    model = build_rating_model(RatingModelConfig("matrix_factorization", 20, 15, dim))
    before = model.get_weights()
    with pytest.raises(ValueError, match=f"{name} (was|is 1)"):
        fit(model, data, **given)
    assert_same_weights(model, before)
    fit(model, data, **given, resume=False)


def test_damaged_or_foreign_checkpoint_is_refused(tmp_path):
    path = tmp_path / "run"
    train(toy_model(), epochs=1, checkpoint=path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="damaged"):
        train(toy_model(), epochs=2, checkpoint=path)
    Popularity().fit(toy_data()).save(path)
    with pytest.raises(ValueError, match="holds a Popularity"):
        train(toy_model(), epochs=2, checkpoint=path)


def test_early_stopping_restores_the_best_weights():
    values = iter([0.1, 0.5, 0.4, 0.3, 0.9])
    kept = []

    def judge(model):
        kept.append(model.get_weights())
        return next(values)

    model = toy_model()
    run = train(model, validation=judge, patience=2)
    assert run.validation == (0.1, 0.5, 0.4, 0.3)
    assert run.stopped_early
    assert (run.epochs, run.best_epoch, run.metric) == (4, 2, "ndcg")
    assert_same_weights(model.get_weights(), kept[1])


def test_lower_is_better_for_errors_and_no_patience_keeps_the_last_weights():
    values = [0.5, 0.2, 0.4]
    kept = []

    def judge(model):
        kept.append(model.get_weights())
        return values[len(kept) - 1]

    model = toy_model()
    run = train(model, validation=judge, metric="rmse", epochs=3)
    assert (run.best_epoch, run.stopped_early, run.epochs) == (2, False, 3)
    np.testing.assert_array_equal(model.get_weights()[0], kept[-1][0])


def test_validation_uses_the_protocols():
    rows, test = toy_data().split_leave_one_out()
    negatives = np.array([np.setdiff1d(np.arange(15), [item])[:12] for item in test.item_ids])
    split = Split(rows, test, negatives=negatives)
    for validation in (split, test):
        run = train(toy_model(), rows, validation=validation, metric="hit_rate", epochs=1)
        assert 0 < run.validation[0] <= 1
    model = toy_model()
    run = train(model, rows, validation=test, objective="squared_error")
    errors = KerasScorer(model).score(test.user_ids, test.item_ids) - test.ratings
    assert run.metric == "rmse"
    assert run.validation[-1] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-5)


@pytest.mark.parametrize("good_epochs", [0, 2])
def test_divergence_gives_the_last_good_weights_back(good_epochs):
    model = toy_model()
    kept = {"weights": model.get_weights()}

    def keep(epoch, logs):
        kept["weights"] = model.get_weights()

    schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
        [5 * good_epochs - 1], [0.01, 1e30] if good_epochs else [1e30, 1e30]
    )
    with pytest.raises(FloatingPointError, match=rf"epoch {good_epochs + 1}.*learning rate 1e\+30"):
        sgd = keras.optimizers.SGD(schedule)
        train(model, objective="squared_error", optimizer=sgd, on_epoch_end=keep)
    assert_same_weights(model.get_weights(), kept["weights"])


def test_tensorboard_file_holds_the_scalars(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    run = train(toy_model(), epochs=3, log_dir=tmp_path / "logs", validation=lambda model: 0.25)
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    assert set(events.Tags()["tensors"]) == {"loss", "ndcg", "interactions_per_second"}
    logged = events.Tensors("loss")
    assert [event.step for event in logged] == [1, 2, 3]
    np.testing.assert_allclose(
        [float(make_ndarray(event.tensor_proto)) for event in logged], run.loss, rtol=1e-6
    )


def test_progress_bar_shows_epochs(capsys):
    train(toy_model(), epochs=2, progress=True)
    assert "2/2" in capsys.readouterr().err
    train(toy_model(), epochs=2)
    assert capsys.readouterr().err == ""


def test_use_ema_ends_with_the_averages_as_keras_fit_does(tmp_path):
    """Keras' own fit() on the same batches is the reference; a resumed run ends the same."""
    data, size = toy_data(), 300  # one batch an epoch, so that order plays no role

    def sgd(**averaging):  # for Adam, Keras' fit() handles repeated ids in another way
        return keras.optimizers.SGD(2.0, **averaging)

    averaged = {"use_ema": True, "ema_momentum": 0.8}

    run = {"objective": "squared_error", "batch_size": size, "l2": 0.0}
    plain, ours, theirs, resumed = (toy_model() for _ in range(4))
    train(plain, **run, optimizer=sgd())
    train(ours, **run, optimizer=sgd(**averaged))
    theirs.compile(sgd(**averaged), "mean_squared_error")
    inputs = [data.user_ids, data.item_ids]
    theirs.fit(inputs, data.ratings, batch_size=size, epochs=6, verbose=0)
    moved = 0.0
    for a, b, last in zip(*(m.get_weights() for m in (ours, theirs, plain)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        moved = max(moved, float(np.abs(a - last).max()))
    assert moved > 1e-2
    for epochs in (3, 6):
        more = {"epochs": epochs, "checkpoint": tmp_path / "run"}
        train(resumed, **run, optimizer=sgd(**averaged), **more)
    assert_same_weights(resumed, ours)


def test_use_ema_and_patience_exclude_each_other():
    model, optimizer = toy_model(), keras.optimizers.Adam(use_ema=True)
    before = model.get_weights()
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(use_ema=True))
    for given in (optimizer, scaled):
        with pytest.raises(ValueError, match=r"patience is 2.*use_ema"):
            train(model, optimizer=given, patience=2, validation=lambda m: 0.0, metric="loss")
    assert_same_weights(before, model)


EVENTS = Interactions([0, 1], [0, 1], num_users=20, num_items=15)
FEW = Split(EVENTS, EVENTS, negatives=[[1], [2]])


@pytest.mark.parametrize(
    ("error", "message", "change"),
    [
        (ValueError, "has no ratings", {"objective": "squared_error"}),
        (ValueError, "objective is 'mse'", {"objective": "mse"}),
        (ValueError, "epochs is 0", {"epochs": 0}),
        (TypeError, "epochs is 1.5", {"epochs": 1.5}),
        (ValueError, "batch_size is -1", {"batch_size": -1}),
        (ValueError, "negatives_per_positive is 0", {"negatives_per_positive": 0}),
        (ValueError, "l2 is nan", {"l2": float("nan")}),
        (TypeError, "l2 is 'a'", {"l2": "a"}),
        (ValueError, "seed is -1", {"seed": -1}),
        (ValueError, "patience is 2", {"patience": 2}),
        (ValueError, "optimizer is 'adma'", {"optimizer": "adma"}),
        (TypeError, "optimizer is of type float", {"optimizer": 0.1}),
        (TypeError, "validation is of type int", {"validation": 3}),
        (ValueError, "metric is 'auc'", {"validation": EVENTS, "metric": "auc"}),
        (ValueError, "no ratings", {"validation": EVENTS, "metric": "rmse"}),
        (ValueError, "without negatives", {"validation": Split(EVENTS, EVENTS)}),
        (ValueError, "ranks 2 candidates", {"validation": FEW}),
        (ValueError, "validation counts 2", {"validation": Interactions([0, 1], [0, 1])}),
        (FileNotFoundError, "existing folder", {"checkpoint": "/no/such/folder/a.npz"}),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_touched(error, message, change):
    model = toy_model()
    before = model.get_weights()
    with pytest.raises(error, match=message):
        train(model, EVENTS, **change)
    assert_same_weights(model, before)


def small_model(output, num_users: int = 20):
    inputs = [keras.Input((), dtype="int32", name=name) for name in ("user_ids", "item_ids")]
    rows = [
        keras.layers.Embedding(count, 2)(ids)
        for count, ids in zip((num_users, 15), inputs, strict=True)
    ]
    return keras.Model(inputs, output(*rows))


def test_models_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="for two pairs"):
        train(small_model(lambda u, i: keras.layers.Dot(1)([u, i])), EVENTS)
    too_small = small_model(lambda u, i: keras.ops.sum(u * i, axis=1), num_users=5)
    with pytest.raises(ValueError, match="cannot score user 19"):
        train(too_small, EVENTS)
    with pytest.raises(TypeError, match="expected a Keras model"):
        train(object(), EVENTS)
    with pytest.raises(TypeError, match="interactions is of type Split"):
        train(toy_model(), Split(EVENTS, EVENTS))
    users, items = (keras.Input((), dtype="int32", name=n) for n in ("user_ids", "item_ids"))
    swapped = keras.Model([items, users], toy_model()([users, items]))
    with pytest.raises(ValueError, match="expected users first"):
        train(swapped, EVENTS)
    nested = keras.Model([users, items], toy_model()([users, items]))
    with pytest.raises(ValueError, match="no Embedding layer"):
        train(nested, EVENTS)
    train(nested, EVENTS, l2=0.0, epochs=1)
