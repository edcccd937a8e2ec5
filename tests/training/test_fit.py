"""Runs as a whole: seeds, resume, early stopping, divergence, logs, and what is refused."""

import _thread
import os
import signal
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest

from recsys_lib.data import Interactions, Split
from recsys_lib.models import Popularity, RatingModelConfig, build_rating_model
from recsys_lib.training import KerasScorer, fit


def toy_data(num_rows=300, seed=0):
    random = np.random.default_rng(seed)
    users, items = random.integers(20, size=num_rows), random.integers(15, size=num_rows)
    return Interactions(users, items, (users + items) % 5 + 1.0, num_users=20, num_items=15)


def toy_model(kind="matrix_factorization", **changes):
    return build_rating_model(RatingModelConfig(kind, 20, 15, **{"embedding_dim": 4} | changes))


def train(model, data=None, **changes):
    """A run of six epochs with everything that has a state."""
    schedule = keras.optimizers.schedules.ExponentialDecay(0.05, 9, 0.9)
    options = {"optimizer": keras.optimizers.Adam(schedule), "epochs": 6, "batch_size": 64}
    options |= {"negatives_per_positive": 2, "l2": 0.01, "progress": False}
    return fit(model, toy_data() if data is None else data, **options | changes)


def assert_same_weights(first, second):
    """Models or lists of weights."""
    first, second = (getattr(x, "get_weights", lambda x=x: x)() for x in (first, second))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_seed_decides_everything_and_the_given_optimizer_stays():
    models, optimizer = [toy_model() for _ in range(3)], keras.optimizers.Adam(0.05)
    runs = [train(m, seed=s, optimizer=optimizer) for m, s in zip(models, (1, 1, 2), strict=True)]
    assert_same_weights(models[0], models[1])
    assert runs[0].loss == runs[1].loss != runs[2].loss
    assert not np.array_equal(models[0].get_weights()[0], models[2].get_weights()[0])
    assert not optimizer.built


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
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


KILLED = {"epochs": 12, "optimizer": "adam"}


@pytest.mark.slow
def test_killed_process_resumes_exactly(tmp_path):
    command = [sys.executable, __file__, str(tmp_path / "run")]  # see the last lines of this file
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=quiet)
    assert any(line.startswith("epoch 5") for line in process.stdout)  # it is in the sixth now
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL
    killed, whole, rows = toy_model(), toy_model(), toy_data(60_000)
    assert train(killed, rows, **KILLED, checkpoint=tmp_path / "run").epochs == 12
    train(whole, rows, **KILLED)
    assert_same_weights(killed, whole)


def test_ctrl_c_is_heard_at_once_and_leaves_the_last_whole_epoch(tmp_path):
    rows, kept, heard = toy_data(40_000), {}, []
    model = toy_model("mlp_ranker")

    def interrupt():
        heard.append(time.perf_counter())
        _thread.interrupt_main()

    def keep(epoch, logs):
        kept["weights"] = model.get_weights()
        threading.Timer(0.1, interrupt).start()

    run = {"batch_size": 16, "jit_compile": False, "checkpoint": tmp_path / "run"}
    with pytest.raises(KeyboardInterrupt):
        train(model, rows, on_epoch_end=keep, **run)
    assert time.perf_counter() - heard[0] < 2
    assert_same_weights(model, kept["weights"])


NEGATIVES = np.array([np.roll(np.arange(15), n)[:11] for n in range(300)])
SPLIT = Split(toy_data(), toy_data(), negatives=NEGATIVES)
OTHER_SPLIT = Split(toy_data(), toy_data(), negatives=NEGATIVES[::-1])
CHANGES = {"batch_size": 32, "seed": 4, "objective": "bpr", "epochs": 1}


@pytest.mark.slow
def test_checkpoint_of_another_run_is_refused_before_a_weight_is_touched(tmp_path):
    path, decay = tmp_path / "run", keras.optimizers.Adam(0.05)
    decay.exclude_from_weight_decay(var_names=["emb"])
    more = {"epochs": 2, "checkpoint": path, "validation": SPLIT}
    train(toy_model("mlp_ranker"), **more)
    for name, change, config in [
        *((name, {name: value}, {}) for name, value in CHANGES.items()),
        ("optimizer", {"optimizer": keras.optimizers.Adam(0.04)}, {}),
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


def test_automatic_names_do_not_matter_to_a_checkpoint_but_calls_do(tmp_path):
    def build(sign):
        return small_model(lambda u, i: sign * keras.ops.sum(u * i, axis=1))

    run = {"checkpoint": tmp_path / "run", "l2": 0.0}
    train(build(1), epochs=1, **run)
    with pytest.raises(ValueError, match="model_config was"):
        train(build(-1), epochs=3, **run)
    assert train(build(1), epochs=3, **run).epochs == 3


STOPS = [("ndcg", 2, {"patience": 2}), ("loss", 1, {"patience": 2}), ("val_loss", None, {})]
STOPS += [("RMSE", 1, {"patience": 2, "lower_is_better": True}), ("validation", None, {})]


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
    assert_same_weights(model.get_weights(), kept[best - 1 if best else -1])


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
    kept = {"weights": model.get_weights()}
    rates = [0.01 if good_epochs else 1e30, 1e30]
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([5 * good_epochs - 1], rates)
    more = {"objective": "squared_error", "optimizer": keras.optimizers.SGD(schedule)}
    with pytest.raises(FloatingPointError, match=rf"epoch {good_epochs + 1}.*learning rate 1e\+30"):
        train(model, on_epoch_end=lambda *_: kept.update(weights=model.get_weights()), **more)
    assert_same_weights(model.get_weights(), kept["weights"])


@pytest.mark.slow
def test_progress_bar_and_tensorboard_file_show_the_epochs(tmp_path, capsys):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    train(toy_model(), epochs=1)
    assert capsys.readouterr().err == ""
    more = {"progress": True, "log_dir": tmp_path, "validation": lambda model: 0.25}
    run = train(toy_model(), epochs=2, **more)
    assert "2/2" in capsys.readouterr().err
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert set(events.Tags()["tensors"]) == {"loss", "validation", "interactions_per_second"}
    logged = [(e.step, float(make_ndarray(e.tensor_proto))) for e in events.Tensors("loss")]
    assert logged == [(n + 1, pytest.approx(loss, rel=1e-6)) for n, loss in enumerate(run.loss)]


@pytest.mark.slow
def test_use_ema_ends_with_the_averages_as_keras_fit_does(tmp_path):
    """Keras' own fit() on the same batches is the reference; a resumed run ends the same."""

    def sgd(**averaging):  # for Adam, Keras' fit() handles repeated ids in another way
        return keras.optimizers.SGD(2.0, **averaging)

    data, averaged = toy_data(), {"use_ema": True, "ema_momentum": 0.8}
    run = {"objective": "squared_error", "batch_size": 300, "l2": 0.0}  # order plays no role
    plain, ours, theirs, resumed = (toy_model() for _ in range(4))
    train(plain, **run, optimizer=sgd())
    train(ours, **run, optimizer=sgd(**averaged))
    theirs.compile(sgd(**averaged), "mean_squared_error")
    inputs = [data.user_ids, data.item_ids]
    theirs.fit(inputs, data.ratings, batch_size=300, epochs=6, verbose=0)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert np.abs(ours.get_weights()[0] - plain.get_weights()[0]).max() > 1e-2
    for epochs in (3, 6):
        more = {"epochs": epochs, "checkpoint": tmp_path / "run"}
        train(resumed, **run, optimizer=sgd(**averaged), **more)
    assert_same_weights(resumed, ours)
    scaled = keras.optimizers.LossScaleOptimizer(sgd(**averaged))
    with pytest.raises(ValueError, match=r"patience is 2.*use_ema"):
        train(resumed, optimizer=scaled, patience=2, validation=lambda m: 0.0, metric="loss")


def small_model(output, num_users=20):
    inputs = [keras.Input((), dtype="int32", name=name) for name in ("user_ids", "item_ids")]
    counts = zip((num_users, 15), inputs, strict=True)
    start = {"embeddings_initializer": keras.initializers.RandomNormal(seed=0)}
    rows = [keras.layers.Embedding(count, 2, **start)(ids) for count, ids in counts]
    return keras.Model(inputs, output(*rows))


USERS, ITEMS = (keras.Input((), dtype="int32", name=n) for n in ("user_ids", "item_ids"))
EVENTS = Interactions([0, 1], [0, 1], num_users=20, num_items=15)
FEW = Split(EVENTS, EVENTS, negatives=[[1], [2]])
MODELS = [
    (small_model(lambda u, i: keras.layers.Dot(1)([u, i])), "for two pairs"),
    (small_model(lambda u, i: keras.ops.sum(u * i, axis=1), num_users=5), "cannot score user 19"),
    (keras.Model([USERS, ITEMS], toy_model()([USERS, ITEMS])), "l2: no input feeds"),
    (keras.Model([ITEMS, USERS], toy_model()([USERS, ITEMS])), "expected users first"),
    (object(), "model is"),
]
USED = keras.optimizers.SGD()
USED.build([keras.Variable(0.0)])
WRONG = {"epochs": 1.5, "batch_size": -1, "negatives_per_positive": 0, "l2": float("nan")}
WRONG |= {"seed": -1, "patience": 2, "objective": "mse", "validation": 3, "optimizer": 0.1}
METRICS = ("mse", "RMSE", "val_loss", None)


@pytest.mark.parametrize(
    ("message", "change"),
    [
        *((f"{name} is", {name: value}) for name, value in WRONG.items()),
        *(("lower_is", {"patience": 2, "validation": len, "metric": name}) for name in METRICS),
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
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_touched(message, change):
    change = {"model": toy_model(), "data": EVENTS} | change
    model = change["model"]
    before = getattr(model, "get_weights", list)()
    with pytest.raises((TypeError, ValueError, FileNotFoundError), match=message):
        train(**change)
    assert_same_weights(getattr(model, "get_weights", list)(), before)


if __name__ == "__main__":  # the run that test_killed_process_resumes_exactly ends with SIGKILL
    show = {"on_epoch_end": lambda epoch, logs: print(f"epoch {epoch}", flush=True)}
    train(toy_model(), toy_data(60_000), **KILLED, checkpoint=sys.argv[1], **show)
