"""Runs as a whole: seeds, resume, early stopping, divergence, logs, and what is refused."""

import _thread
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from recsys_lib.data import Interactions, Split
from recsys_lib.models import Popularity
from recsys_lib.training import KerasScorer
from tests.training.toys import assert_same_weights, towers, toy_data, toy_model
from tests.training.toys import train as train_toys

SGD, Adam = keras.optimizers.SGD, keras.optimizers.Adam


def train(model, data=None, **changes):
    """A run of six epochs with everything that has a state."""
    schedule = keras.optimizers.schedules.ExponentialDecay(0.05, 9, 0.9)
    options = {"optimizer": Adam(schedule), "epochs": 6, "negatives_per_positive": 2, "l2": 0.01}
    return train_toys(model, data, **options | changes)


@pytest.mark.parametrize("stop_at", [1, 4])
@pytest.mark.slow
def test_resume_is_exact(tmp_path, stop_at):
    more = {"validation": toy_data(seed=1), "patience": 5, "objective": "squared_error"}
    whole, again, finished = (toy_model() for _ in range(3))
    expected = train(whole, **more)

    def stop(epoch, logs):
        if epoch == stop_at:
            raise InterruptedError

    more["checkpoint"] = tmp_path / "run"
    with pytest.raises(InterruptedError):
        train(toy_model(), **more, on_epoch_end=stop)
    seen = []
    resumed = train(again, **more, on_epoch_end=lambda epoch, logs: seen.append(epoch))
    assert seen == list(range(stop_at + 1, 7))
    assert_same_weights(again, whole)
    assert (resumed.loss, resumed.validation) == (expected.loss, expected.validation)
    assert train(finished, **more) == resumed
    assert_same_weights(finished, whole)
    assert train(finished, **more | {"seed": 1, "checkpoint": None}).loss != expected.loss
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def run_to_be_killed(model, checkpoint=None, **options):
    data = toy_data(20_000)
    return train(model, data, epochs=12, optimizer="adam", checkpoint=checkpoint, **options)


KILLED = """
import sys
from tests.training.test_fit import run_to_be_killed, toy_model
show = lambda epoch, logs: print(f"epoch {epoch}", flush=True)
run_to_be_killed(toy_model(), sys.argv[1], on_epoch_end=show)
"""


@pytest.mark.slow
def test_killed_process_resumes_exactly(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path / "run")]
    how = {"cwd": Path(__file__).parents[2], "env": os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **how)
    assert any(line.startswith("epoch 5") for line in process.stdout)  # it is in the sixth now
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL
    killed, whole, epochs = toy_model(), toy_model(), []
    run_to_be_killed(killed, tmp_path / "run", on_epoch_end=lambda *now: epochs.append(now[0]))
    assert len(epochs) < 8 and epochs[-1] == 12
    run_to_be_killed(whole)
    assert_same_weights(killed, whole)


def test_ctrl_c_is_heard_at_once_and_leaves_the_last_whole_epoch(tmp_path):
    kept, heard, model = {}, [], toy_model("mlp_ranker")

    def interrupt():
        heard.append(time.perf_counter())
        _thread.interrupt_main()

    def keep(epoch, logs):
        kept["weights"] = model.get_weights()
        threading.Timer(0.1, interrupt).start()

    run = {"batch_size": 16, "jit_compile": False, "checkpoint": tmp_path / "run"}
    with pytest.raises(KeyboardInterrupt):
        train(model, toy_data(40_000), on_epoch_end=keep, **run)
    assert time.perf_counter() - heard[0] < 2
    assert_same_weights(model, kept["weights"])


NEGATIVES = np.array([np.roll(np.arange(15), n)[:11] for n in range(300)])
SPLIT, OTHER_SPLIT = (Split(toy_data(), toy_data(), n) for n in (NEGATIVES, NEGATIVES[::-1]))


@pytest.mark.slow
def test_checkpoint_of_another_run_is_refused_before_a_weight_is_touched(tmp_path):
    path, decay = tmp_path / "run", Adam(0.05)
    decay.exclude_from_weight_decay(var_names=["emb"])
    more = {"epochs": 2, "checkpoint": path, "validation": SPLIT}
    train(toy_model("mlp_ranker"), **more)
    for name, change, config in [
        ("batch_size", {"batch_size": 32}, {}),
        ("seed", {"seed": 4}, {}),
        ("objective", {"objective": "bpr"}, {}),
        ("epochs", {"epochs": 1}, {}),
        ("optimizer", {"optimizer": Adam(0.04)}, {}),
        ("(optimizer|weight_decay)", {"optimizer": decay}, {}),
        ("interactions", {"data": toy_data(seed=5)}, {}),
        ("validation", {"validation": OTHER_SPLIT}, {}),
        ("model", {}, {"embedding_dim": 5}),
        ("model_config", {}, {"activation": "tanh"}),
        ("model_config", {}, {"seed": 1}),
        ("model", {"frozen": True}, {}),
    ]:
        model = toy_model("mlp_ranker", **config)
        model.get_layer("user_embedding").trainable = not change.pop("frozen", False)
        before = model.get_weights()
        with pytest.raises(ValueError, match=f"{name} (was|is 1)"):
            train(model, **more | change)
        assert_same_weights(model, before)
    path.write_bytes(path.read_bytes()[:-200])
    for word in ("damaged", "holds a Popularity"):
        with pytest.raises(ValueError, match=word):
            train(model, **more)
        Popularity().fit(toy_data()).save(path)
    train(model, **more, resume=False)


def difference(users, items):
    return -keras.ops.sum(users * items, axis=1)


def test_automatic_names_do_not_matter_to_a_checkpoint_but_calls_do(tmp_path):
    run = {"checkpoint": tmp_path / "run", "l2": 0.0}
    train(towers(), epochs=1, **run)
    with pytest.raises(ValueError, match="model_config was"):
        train(towers(output=difference), epochs=3, **run)
    assert train(towers(), epochs=3, **run).epochs == 3


STOPS = [("ndcg", 2, {"patience": 2}), ("loss", 1, {"patience": 2}), ("val_loss", None, {})]
STOPS += [("RMSE", 1, {"patience": 2, "lower_is_better": True}), ("validation", None, {})]


@pytest.mark.slow
@pytest.mark.parametrize(("metric", "best", "more"), STOPS)
def test_early_stopping_restores_the_best_weights(metric, best, more):
    values, kept, model = [0.1, 0.5, 0.4, 0.3, 0.9, 0.8], [], toy_model()

    def judge(model):
        kept.append(model.get_weights())
        return values[len(kept) - 1]

    named = {} if metric == "validation" else {"metric": metric}  # which is the name by default
    run = train(model, validation=judge, **named, **more)
    assert (run.best_epoch, run.metric) == (best, metric)
    assert run.epochs == (best + 2 if best else 6) and run.stopped_early == bool(best)
    assert_same_weights(model, kept[best - 1 if best else -1])


@pytest.mark.slow
def test_validation_uses_the_protocols():
    rows, test = toy_data().split_leave_one_out()
    negatives = np.array([np.setdiff1d(np.arange(15), [item])[:12] for item in test.item_ids])
    for validation in (Split(rows, test, negatives=negatives), test):
        run = train(toy_model(), rows, validation=validation, metric="hit_rate", epochs=1)
        assert 0 < run.validation[0] <= 1
    model = toy_model()
    run = train(model, rows, validation=test, objective="squared_error", epochs=2)
    errors = KerasScorer(model).score(test.user_ids, test.item_ids) - test.ratings
    assert run.metric == "rmse"
    assert run.validation[-1] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-5)


@pytest.mark.parametrize("good_epochs", [0, 2])
def test_divergence_gives_the_last_good_weights_back(good_epochs):
    model = toy_model()
    kept, rates = {"weights": model.get_weights()}, [0.01 if good_epochs else 1e30, 1e30]
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([5 * good_epochs - 1], rates)
    more = {"objective": "squared_error", "optimizer": SGD(schedule)}
    with pytest.raises(FloatingPointError, match=rf"epoch {good_epochs + 1}.*learning rate 1e\+30"):
        train(model, on_epoch_end=lambda *_: kept.update(weights=model.get_weights()), **more)
    assert_same_weights(model, kept["weights"])


def test_progress_bar_and_tensorboard_file_show_the_epochs(tmp_path, capsys):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    more = {"epochs": 2, "log_dir": tmp_path, "validation": lambda model: 0.25}
    for quiet in (False, True):
        run = train(toy_model(), **more, progress=not quiet)
        assert ("2/2" in (printed := capsys.readouterr().err)) != quiet and bool(printed) != quiet
        more["log_dir"] = None
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert set(events.Tags()["tensors"]) == {"loss", "validation", "interactions_per_second"}
    logged = [(e.step, float(make_ndarray(e.tensor_proto))) for e in events.Tensors("loss")]
    assert logged == [(n + 1, pytest.approx(loss, rel=1e-6)) for n, loss in enumerate(run.loss)]


@pytest.mark.slow
def test_averages_of_weights_go_on_where_they_were(tmp_path):
    """That they are those of Keras is in test_what_keras_honours."""

    def run(epochs, averages=True, **more):
        model = toy_model()
        train(model, epochs=epochs, optimizer=SGD(2.0, use_ema=averages), **more)
        return model

    whole, path = run(6), tmp_path / "run"
    run(3, checkpoint=path)
    assert_same_weights(run(6, checkpoint=path), whole)
    assert np.abs(whole.get_weights()[0] - run(6, averages=False).get_weights()[0]).max() > 1e-2
    scaled = keras.optimizers.LossScaleOptimizer(SGD(use_ema=True))
    with pytest.raises(ValueError, match=r"patience is 2.*use_ema"):
        train(whole, optimizer=scaled, patience=2, validation=lambda m: 0.0, metric="loss")


USERS, ITEMS = (keras.Input((), dtype="int32", name=n) for n in ("user_ids", "item_ids"))
EVENTS = Interactions([0, 1], [0, 1], num_users=20, num_items=15)
FEW = Split(EVENTS, EVENTS, negatives=[[1], [2]])
MODELS = [
    (towers(output=lambda users, items: keras.layers.Dot(1)([users, items])), "for two pairs"),
    (towers(5), "cannot score user 19"),
    (keras.Model([USERS, ITEMS], toy_model()([USERS, ITEMS])), "l2: no input feeds"),
    (keras.Model([ITEMS, USERS], toy_model()([USERS, ITEMS])), "expected users first"),
    (object(), "model is"),
]
USED = SGD()
USED.build([keras.Variable(0.0)])
WRONG = {"epochs": 1.5, "batch_size": -1, "negatives_per_positive": 0, "l2": float("nan")}
WRONG |= {"seed": -1, "patience": 2, "objective": "mse", "validation": 3, "optimizer": 0.1}
REFUSED = [
    *((f"{name} is", {name: value}) for name, value in WRONG.items()),
    *(
        ("lower_is", {"patience": 2, "validation": len, "metric": name})
        for name in ("mse", "RMSE", "val_loss", None)
    ),
    ("has no ratings", {"objective": "squared_error"}),
    ("adma", {"optimizer": "adma"}),
    ("optimizer has been used", {"optimizer": USED}),
    ("metric is", {"validation": EVENTS, "metric": "auc"}),
    ("no ratings", {"validation": EVENTS, "metric": "rmse"}),
    ("without negatives", {"validation": Split(EVENTS, EVENTS)}),
    ("ranks 2 candidates", {"validation": FEW}),
    ("validation counts 2", {"validation": Interactions([0, 1], [0, 1])}),
    ("existing folder", {"checkpoint": "/no/such/folder/a.npz"}),
    ("interactions is", {"data": FEW}),
    *((word, {"model": model}) for model, word in MODELS),
]


@pytest.mark.parametrize("message, change", REFUSED)
def test_wrong_arguments_are_refused_before_anything_is_touched(message, change):
    change = {"model": toy_model(), "data": EVENTS} | change
    before = getattr(change["model"], "get_weights", list)()
    with pytest.raises((TypeError, ValueError, FileNotFoundError), match=message):
        train(**change)
    assert_same_weights(getattr(change["model"], "get_weights", list)(), before)
