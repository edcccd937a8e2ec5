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

from recsys_lib.data import Interactions
from recsys_lib.files import is_running
from recsys_lib.models import RatingModelConfig, build_rating_model, load_model
from recsys_lib.training import fit
from recsys_lib.training.distributed import DistributedOptions, main, train_distributed

ROOT = Path(__file__).parents[2]
USERS, ITEMS = 60, 40
CONFIG = RatingModelConfig("matrix_factorization", USERS, ITEMS, 8, seed=3)


def some_data(rows=1001, seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, USERS, rows), rng.integers(0, ITEMS, rows)
    return Interactions(
        *ids, rng.integers(1, 6, rows).astype(np.float32), num_users=USERS, num_items=ITEMS
    )


def fitted(config, data, learning_rate, weights=None, **options):
    """Return the weights and the losses of fit() in this process."""
    import keras

    model = build_rating_model(config)
    if weights is not None:
        model.set_weights(weights)
    optimizer = keras.optimizers.get(options.pop("optimizer"))
    optimizer.learning_rate = learning_rate
    history = fit(model, data, optimizer=optimizer, progress=False, jit_compile=False, **options)
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
    data = some_data()  # the last batch has one row, so one of the workers has none
    options = {"objective": "squared_error", "optimizer": "adagrad"}
    options |= {"learning_rate": 0.05, "epochs": 3, "batch_size": 100}
    run = train_distributed(config, data, workers=2, say=None, **options)
    weights, losses = fitted(config, data, **options)
    assert_close(run.weights, weights)
    assert run.history.loss == pytest.approx(losses, rel=1e-5)
    assert run.restarts == 0 and len(run.history.seconds) == 3


@pytest.mark.slow
@pytest.mark.alone
def test_a_worker_is_killed_and_the_weights_are_the_same(tmp_path):
    data = some_data(4000)
    options = {"optimizer": "adam", "learning_rate": 0.01, "epochs": 4, "batch_size": 40}
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
def test_tables_on_servers_are_those_of_fit_also_when_one_is_killed(tmp_path):
    import tensorflow as tf

    config, data = replace(CONFIG, kind="dot_product"), some_data(2000)
    options = {"optimizer": "sgd", "learning_rate": 0.5, "epochs": 3, "batch_size": 20, "l2": 0.01}
    killer = Killer(tmp_path / "backup", "ps-1")
    run = train_distributed(
        config, data, workers=1, servers=2, backup=killer.backup, say=killer, backup_every=7,
        **options,
    )  # fmt: skip
    assert run.restarts == 1 and not any(map(is_running, killer.processes))
    steps = {int(path.stem.rpartition("-")[2]) for path in tmp_path.glob("backup-*.*")}
    assert steps == {294, 300}  # of the last two backups
    start = []
    for side, rows in enumerate((USERS, ITEMS)):
        parts = np.array_split(np.arange(rows), 16)
        streams = [[2 * config.seed + side, part[0]] for part in parts]
        start.append(
            np.concatenate(
                [
                    tf.random.stateless_normal([len(part), 8], stream, stddev=config.init_std)
                    for part, stream in zip(parts, streams, strict=True)
                ]
            )
        )
    weights, losses = fitted(config, data, weights=start, **options)
    used = (np.unique(data.user_ids), np.unique(data.item_ids))
    assert_close(run.weights, [w[ids] for w, ids in zip(weights, used, strict=True)])
    assert run.history.loss == pytest.approx(losses, rel=1e-5)


@pytest.mark.slow
def test_a_member_of_a_cluster_starts_nothing(tmp_path):
    data = some_data(200)
    rows = zip(data.user_ids, data.item_ids, strict=True)
    lines = ["user,item", *(f"{user},{item}" for user, item in rows)]
    (tmp_path / "log.csv").write_text("\n".join(lines))
    config = '{"cluster": {"worker": ["127.0.0.1:0"]}, "task": {"type": "worker", "index": 0}}'
    names = [f"--{name}={tmp_path / name}" for name in ("backup", "output")]
    command = [sys.executable, "-m", "recsys_lib.training.distributed", *names]
    command += [f"--data={tmp_path / 'log.csv'}", "--embedding-dim=4", "--epochs=2", "--workers=9"]
    environment = os.environ | {"TF_CONFIG": config, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    model = load_model(tmp_path / "output")
    assert model.recommend([0], k=3).shape == (1, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 5, "batch_size": 4}, "workers is 5: expected an integer from 1 to 4"),
        ({"workers": 0}, "workers is 0"),
        ({"servers": 2, "optimizer": "adam"}, "optimizer is 'adam': expected one of sgd"),
        ({"optimizer": "fast"}, "optimizer is 'fast'"),
        ({"objective": "hinge"}, "objective is 'hinge'"),
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"backup_every": 0}, "backup_every is 0"),
        ({"l2": -1}, "l2 is -1"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        DistributedOptions(**options)


def train_nothing(config=CONFIG, data=None, **options):
    train_distributed(config, some_data() if data is None else data, say=None, **options)


def test_jobs_are_checked_before_anything_starts(tmp_path):
    data = some_data()
    with pytest.raises(FileNotFoundError, match="backup"):
        train_nothing(backup=tmp_path / "none" / "backup")
    with pytest.raises(ValueError, match="interactions counts"):
        train_nothing(replace(CONFIG, num_users=USERS + 1))
    with pytest.raises(ValueError, match="interactions has no ratings"):
        train_nothing(data=replace(data, ratings=None), objective="squared_error")
    with pytest.raises(ValueError, match=r"config\.kind"):
        train_nothing(servers=1, optimizer="sgd")
    (tmp_path / "backup").write_bytes(b"no backup")
    with pytest.raises(ValueError, match="backup is no file of recsys_lib"):
        train_nothing(backup=tmp_path / "backup")


def test_the_command_says_what_is_wrong(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    backup = f"--backup={tmp_path / 'backup'}"
    assert main([f"--data={tmp_path / 'none.csv'}", backup]) == 64
    assert "none.csv" in capsys.readouterr().err
    assert main(["--data=ncf-ml-1m", "--workers=4", "--batch-size=3", backup]) == 64
    assert "workers is 4" in capsys.readouterr().err
    assert main(["--data=ncf-ml-1m", "--servers=1", "--optimizer=sgd", "--output=x", backup]) == 64
    assert "output is x" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["--data=ncf-ml-1m"])
    assert "--backup" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    told = capsys.readouterr().out
    assert all(name in told for name in ("TF_CONFIG", "--workers", "--memory-bytes"))
