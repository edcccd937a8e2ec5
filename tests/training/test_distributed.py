"""Several processes train one model: the same weights as one, also when one is killed."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recsys_lib.files import is_running
from recsys_lib.models import RatingModelConfig, build_rating_model, load_model
from recsys_lib.training.distributed import DistributedOptions, main, train_distributed
from tests.training.toys import toy_data, train

ROOT = Path(__file__).parents[2]
SIZES = USERS, ITEMS = 60, 40
CONFIG = RatingModelConfig("matrix_factorization", USERS, ITEMS, 8, seed=3)
DATA = toy_data(1001, sizes=SIZES)  # the last batch of 100 has one row, which one worker gets


def fitted(config, data, learning_rate, optimizer, weights=None, **options):
    """Return the weights and the losses of fit() in this process."""
    import keras

    model = build_rating_model(config)
    model.set_weights(weights or model.get_weights())
    own = keras.optimizers.get(optimizer)
    own.learning_rate = learning_rate
    history = train(model, data, optimizer=own, jit_compile=False, **options)
    return model.get_weights(), history.loss


def assert_close(ours, theirs):
    """Sums in another order: each differs by some units in the last place, 6e-8 of its terms."""
    for own, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(own, other, rtol=0, atol=2e-5 * np.abs(other).max())


class Killer:
    """Kills one process of the first start when there is a backup; knows all processes."""

    def __init__(self, backup, name):
        self.backup, self.name, self.processes = backup, name, []

    def __call__(self, text):
        found = dict(re.findall(r"(\S+) is process (\d+)", text))
        if found and not self.processes:
            threading.Thread(target=self.kill, args=(int(found[self.name]),)).start()
        self.processes += found.values()

    def kill(self, process):
        end = time.monotonic() + 120
        while not self.backup.exists() and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(process, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.alone
def test_two_workers_give_the_weights_of_fit():
    config = replace(CONFIG, kind="two_tower", hidden_units=(8, 4))
    options = {"objective": "squared_error", "optimizer": "adagrad"}
    options |= {"learning_rate": 0.05, "epochs": 3, "batch_size": 100}
    run = train_distributed(config, DATA, workers=2, say=None, **options)
    weights, losses = fitted(config, DATA, **options)
    assert_close(run.weights, weights)
    assert run.history.loss == pytest.approx(losses, rel=1e-5)
    assert run.restarts == 0 and len(run.history.seconds) == 3


@pytest.mark.slow
@pytest.mark.alone
def test_a_worker_is_killed_and_the_weights_are_the_same(tmp_path):
    data = toy_data(2000, sizes=SIZES)
    options = {"optimizer": "adam", "learning_rate": 0.01, "epochs": 3, "batch_size": 40}
    options |= {"workers": 4, "backup_every": 7, "l2": 0.1, "negatives_per_positive": 2}
    whole = train_distributed(CONFIG, data, say=None, **options)
    killer = Killer(tmp_path / "backup", "worker-2")
    killed = train_distributed(CONFIG, data, backup=killer.backup, say=killer, **options)
    assert killed.restarts == 1 and len(killer.processes) == 8
    assert not any(map(is_running, killer.processes))
    for own, other in zip(killed.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(own, other)
    assert killed.history.loss == pytest.approx(whole.history.loss, rel=1e-12)
    del options["workers"], options["backup_every"]
    assert_close(whole.weights, fitted(CONFIG, data, **options)[0])
    # With nothing left to do, the backup is the result.
    with pytest.raises(ValueError, match="another run: seed was 0, now it is 1"):
        train_distributed(CONFIG, data, backup=killer.backup, say=None, **options, seed=1)


@pytest.mark.slow
@pytest.mark.alone
def test_tables_on_servers_are_those_of_fit_also_when_one_is_killed(tmp_path, monkeypatch):
    import tensorflow as tf

    monkeypatch.setenv("TF_NUM_INTEROP_THREADS", "1")  # TensorFlow's members alone would hang
    config, data = replace(CONFIG, kind="dot_product"), toy_data(1000, sizes=SIZES)
    options = {"optimizer": "sgd", "learning_rate": 0.5, "epochs": 3, "batch_size": 20, "l2": 0.01}
    killer = Killer(tmp_path / "backup", "ps-1")
    more = {"backup": killer.backup, "say": killer, "backup_every": 7} | options
    run = train_distributed(config, data, workers=1, servers=2, **more)
    assert run.restarts == 1 and not any(map(is_running, killer.processes))
    steps = {int(path.stem.rpartition("-")[2]) for path in tmp_path.glob("backup-*.*")}
    assert steps == {147, 150}  # of the last two backups
    start = []
    for side, rows in enumerate((USERS, ITEMS)):  # in 16 parts, each from its own first row on
        parts = [
            tf.random.stateless_normal([len(p), 8], [6 + side, p[0]], stddev=config.init_std)
            for p in np.array_split(np.arange(rows), 16)
        ]
        start.append(np.concatenate(parts))
    weights, losses = fitted(config, data, weights=start, **options)
    used = (np.unique(data.user_ids), np.unique(data.item_ids))
    assert_close(run.weights, [w[ids] for w, ids in zip(weights, used, strict=True)])
    assert run.history.loss == pytest.approx(losses, rel=1e-5)


@pytest.mark.slow
def test_a_member_of_a_cluster_starts_nothing(tmp_path):
    data = toy_data(200, sizes=SIZES)
    data.to_frame()[["user", "item"]].to_csv(tmp_path / "log.csv", index=False)
    config = '{"cluster": {"worker": ["127.0.0.1:0"]}, "task": {"type": "worker", "index": 0}}'
    names = [f"--{name}={tmp_path / name}" for name in ("backup", "output")]
    command = [sys.executable, "-m", "recsys_lib.training.distributed", *names]
    command += [f"--data={tmp_path / 'log.csv'}", "--embedding-dim=4", "--epochs=2", "--workers=9"]
    environment = os.environ | {"TF_CONFIG": config, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    model = load_model(tmp_path / "output")
    assert model.recommend([0], k=3).shape == (1, 3)


WRONG = {"workers": 0, "optimizer": "fast", "objective": "hinge", "learning_rate": 0}
WRONG |= {"epochs": 0, "backup_every": 0, "l2": -1}
OPTIONS = [
    ({"workers": 5, "batch_size": 4}, "workers is 5: expected an integer from 1 to 4"),
    ({"servers": 2, "optimizer": "adam"}, "optimizer is 'adam': expected one of sgd"),
    *(({name: value}, f"{name} is {value!r}") for name, value in WRONG.items()),
]


@pytest.mark.parametrize("options, message", OPTIONS)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        DistributedOptions(**options)


LARGER, UNRATED = replace(CONFIG, num_users=USERS + 1), replace(DATA, ratings=None)
JOBS = [
    ({"backup": "none/backup"}, FileNotFoundError, "backup"),
    ({"config": LARGER}, ValueError, "interactions counts"),
    ({"interactions": UNRATED, "objective": "squared_error"}, ValueError, "has no ratings"),
    ({"servers": 1, "optimizer": "sgd"}, ValueError, r"config\.kind"),
    ({"backup": "bad"}, ValueError, "bad is no file of recsys_lib"),
]


@pytest.mark.parametrize("job, error, message", JOBS)
def test_jobs_are_checked_before_anything_starts(tmp_path, monkeypatch, job, error, message):
    monkeypatch.chdir(tmp_path)
    Path("bad").write_bytes(b"no backup")
    with pytest.raises(error, match=message):
        train_distributed(**{"config": CONFIG, "interactions": DATA, "say": None} | job)


COMMANDS = [
    ("--data=none.csv --backup=b", 64, "none.csv"),
    ("--data=ncf-ml-1m --backup=b --workers=4 --batch-size=3", 64, "workers is 4"),
    ("--data=ncf-ml-1m --backup=b --servers=1 --optimizer=sgd --output=x", 64, "output is x"),
    ("--data=ncf-ml-1m", 2, "--backup"),
    ("--help", 0, "TF_CONFIG"),
]


@pytest.mark.parametrize("arguments, status, message", COMMANDS)
def test_the_command_says_what_is_wrong(monkeypatch, capsys, arguments, status, message):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    try:
        assert main(arguments.split()) == status
    except SystemExit as end:
        assert end.code == status
    told = capsys.readouterr()
    assert message in told.err + told.out
