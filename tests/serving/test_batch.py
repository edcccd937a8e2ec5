"""Batch scoring: each user exactly once, whatever is killed, damaged, or in the folder before."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from recsys_lib.compression import load_compressed, save_compressed
from recsys_lib.data import Interactions
from recsys_lib.models import Factors
from recsys_lib.models.factors import FoldIn
from recsys_lib.serving import batch
from recsys_lib.serving.batch import recommend_all

USERS, ITEMS = 50, 40
rng = np.random.default_rng(0)
# Small whole numbers: many scores are equal, and all sums are exact.
TABLES = {
    "item_vectors": rng.integers(-2, 3, (ITEMS, 6)).astype(np.float32),
    "user_vectors": rng.integers(-2, 3, (USERS, 6)).astype(np.float32),
}
MODELS = {
    "all users": Factors(**TABLES),
    "with biases": Factors(
        **TABLES,
        user_biases=rng.integers(-2, 3, USERS).astype(np.float32),
        item_biases=rng.integers(-2, 3, ITEMS).astype(np.float32),
        global_mean=3.5,
    ),
    "items only": Factors(TABLES["item_vectors"], fold_in=FoldIn(0.1, 0.1), global_mean=0.5),
}
# User 7 has met nothing, and user 3 all items but one.
PAIRS = [(u, i) for u in range(USERS) for i in range(ITEMS) if (u * i) % 5 == 1 and u != 7]
PAIRS += [(3, i) for i in range(1, ITEMS)]
MET = Interactions(*zip(*PAIRS, strict=True), num_users=USERS, num_items=ITEMS)


@pytest.fixture
def model_file(tmp_path):
    save_compressed(tmp_path / "model", MODELS["all users"])
    return tmp_path / "model"


def read(folder):
    """The rows of a folder, after the check that each user is there once, in order."""
    frame = pd.read_parquet(folder)
    assert frame["user_id"].tolist() == list(range(USERS))
    return np.stack(frame["item_ids"]), np.stack(frame["scores"])


def assert_same(folder, other):
    for mine, yours in zip(read(folder), read(other), strict=True):
        np.testing.assert_array_equal(mine, yours)


def assert_none_left(marker, seconds=20):
    """See that no process of this machine has the marker in its environment, or soon none."""
    end = time.monotonic() + seconds
    while [p for p in psutil.process_iter(["environ"]) if marker in str(p.info["environ"])]:
        assert time.monotonic() < end
        time.sleep(0.1)


def start(*arguments, marker):
    """Run the command in a group of processes of its own, with a marker that all of it inherits."""
    command = [sys.executable, "-m", "recsys_lib.serving.batch", *map(str, arguments)]
    how = {"env": os.environ | {"RECSYS_TEST_MARKER": marker}, "start_new_session": True}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, **how)


def wait_for_parts(folder, count=1, seconds=60):
    end = time.monotonic() + seconds
    while len(list(folder.glob("*.parquet"))) < count:
        assert time.monotonic() < end, "no shard was written"
        time.sleep(0.005)


# Without histories, a model of items only knows nobody: see test_bad_arguments.
@pytest.mark.parametrize(
    ("name", "has_met"), [*((name, True) for name in MODELS), *((n, False) for n in [*MODELS][:2])]
)
def test_lists_are_those_of_the_model(tmp_path, name, has_met):
    met = MET if has_met else None
    account = "items" if "only" in name else "self-contained"
    save_compressed(tmp_path / "m", MODELS[name], account=account)
    model, lists = load_compressed(tmp_path / "m"), MET.items_by_user()
    known = [user for user in range(USERS) if len(lists[user])]
    for k in (1, 7, ITEMS + 3):
        out, options = tmp_path / f"{k}", {"k": k, "shard_size": 8, "workers": 1}
        assert recommend_all(tmp_path / "m", out, histories=met, **options) == USERS
        ids, scores = read(out)
        if name == "items only":
            expected, raw = np.full((USERS, k), -1), np.zeros((USERS, ITEMS), np.float32)
            expected[known] = model.recommend(histories=[lists[user] for user in known], k=k)
            raw[known] = model.score_histories([lists[user] for user in known])
            assert (ids[7] == -1).all()
        else:
            expected = model.recommend(range(USERS), k=k, exclude=met)
            raw = model.score_all_items(range(USERS))
        np.testing.assert_array_equal(ids, expected)
        own = np.where(ids >= 0, np.take_along_axis(raw, np.maximum(ids, 0), axis=1), -np.inf)
        np.testing.assert_allclose(scores, own, rtol=1e-5, atol=1e-5)
        assert (out / "_SUCCESS").exists() and len(list(out.glob("*.parquet"))) == -(-USERS // 8)


def test_a_job_that_stopped_goes_on_with_what_is_missing(tmp_path, model_file, monkeypatch):
    options = {"k": 5, "shard_size": 4, "workers": 1, "histories": MET}
    assert recommend_all(model_file, tmp_path / "whole", **options) == USERS
    original, calls = batch.ShardScorer.__call__, []

    def stopped(self, row):
        calls.append(row["item"])
        if len(calls) == 6:
            raise KeyboardInterrupt
        return original(self, row)

    monkeypatch.setattr(batch.ShardScorer, "__call__", stopped)
    with pytest.raises(KeyboardInterrupt):
        recommend_all(model_file, tmp_path / "out", **options)
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    done = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.parquet")}
    assert len(done) == 5
    assert recommend_all(model_file, tmp_path / "out", **options) == USERS - 5 * 4
    assert recommend_all(model_file, tmp_path / "out", **options) == 0
    assert_same(tmp_path / "out", tmp_path / "whole")
    for name, at in done.items():
        assert (tmp_path / "out" / name).stat().st_mtime_ns == at


def test_a_damaged_shard_is_written_again(tmp_path, model_file):
    options, out = {"k": 3, "shard_size": 10, "workers": 1}, tmp_path / "out"
    recommend_all(model_file, tmp_path / "whole", **options)
    recommend_all(model_file, out, **options)
    path, other = (out / f"part-00000{number}.parquet" for number in (1, 2))
    whole = path.read_bytes()
    damaged = [whole[: len(whole) // 2], b"", other.read_bytes(), b"PAR1 hello PAR1"]
    for place in np.linspace(0, len(whole) - 1, 25).astype(int):  # a flipped bit
        damaged.append(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
    for number, content in enumerate(damaged):
        path.write_bytes(content)
        written = recommend_all(model_file, out, **options)
        assert_same(out, tmp_path / "whole")
        # What does not change the rows, such as the name of the program that wrote them, may stay.
        assert written in ((10,) if number < 4 else (0, 10)), number


@pytest.mark.parametrize(
    "change",
    [{"k": 4}, {"shard_size": 11}, {"histories": MET}, {"model": "with biases"}],
    ids=lambda change: next(iter(change)),
)
def test_the_folder_of_another_job_is_refused(tmp_path, model_file, change):
    options = {"k": 3, "shard_size": 10, "workers": 1}
    recommend_all(model_file, tmp_path / "out", **options)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    if "model" in change:
        save_compressed(model_file, MODELS[change.pop("model")])
    with pytest.raises(ValueError, match="out_folder"):
        recommend_all(model_file, tmp_path / "out", **options | change)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_the_folder_of_something_else_is_refused(tmp_path, model_file):
    for name in ("strange", "garbled"):
        recommend_all(model_file, tmp_path / name, workers=1)
    (tmp_path / "mine").mkdir()
    names = "mine/part-000000.parquet", "strange/part-000009.parquet", "garbled/_job.json"
    for path in (tmp_path / name for name in names):
        path.write_bytes(b"\xff{")
        with pytest.raises(ValueError, match="out_folder"):
            recommend_all(model_file, path.parent, workers=1)
        assert path.read_bytes() == b"\xff{"
    for folder, error in ((path, FileExistsError), (tmp_path / "no" / "out", FileNotFoundError)):
        with pytest.raises(error, match=folder.parent.name):
            recommend_all(model_file, folder, workers=1)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        *(({"k": k}, "k") for k in (0, 2.5)),
        ({"shard_size": 0}, "shard_size"),
        *(({"workers": workers}, "workers") for workers in (0, None)),
        ({"engine": "spark"}, "engine"),
        *(({"histories": met}, "histories") for met in ([[1]], Interactions([0], [1]))),
        ({"model_file": "items"}, "histories"),
    ],
)
def test_bad_arguments(tmp_path, model_file, options, name):
    save_compressed(tmp_path / "items", MODELS["items only"], account="items")
    model_file = tmp_path / options.pop("model_file", "model")
    with pytest.raises((TypeError, ValueError), match=name):
        recommend_all(model_file, tmp_path / "out", **{"workers": 1} | options)
    assert not (tmp_path / "out").exists()


def after_claim(monkeypatch, action):
    """Have something done when the job has taken its folder."""
    original = batch._claim_folder
    both = lambda job, names: (original(job, names), action(job))  # noqa: E731
    monkeypatch.setattr(batch, "_claim_folder", both)


def test_a_model_that_is_replaced_during_the_job_is_noticed(tmp_path, model_file, monkeypatch):
    """Otherwise some shards would come from one version and some from another."""
    after_claim(monkeypatch, lambda job: save_compressed(model_file, MODELS["with biases"]))
    with pytest.raises(ValueError, match="model"):
        recommend_all(model_file, tmp_path / "out", workers=1)
    assert not list((tmp_path / "out").glob("*.parquet"))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_histories_from_a_file(tmp_path, model_file, suffix):
    frame = pd.DataFrame({"user": MET.user_ids, "item": MET.item_ids})
    path = tmp_path / f"met.{suffix}"
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    options = {"k": 4, "workers": 1}
    recommend_all(model_file, tmp_path / "a", histories=MET, **options)
    arguments = ["--histories", str(path), "--k=4", "--workers=1"]
    batch.main([str(model_file), str(tmp_path / "b"), *arguments])
    assert_same(tmp_path / "a", tmp_path / "b")
    frame["item"] = frame["item"].astype(float) + 0.5
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    with pytest.raises(TypeError, match="item_ids"):
        recommend_all(model_file, tmp_path / "c", histories=path, **options)


def test_the_command_names_what_is_wrong(tmp_path, model_file, capsys):
    with pytest.raises(SystemExit) as stop:
        batch.main([str(model_file), str(tmp_path / "out"), "--k", "0"])
    assert stop.value.code == 2 and "k is 0" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "Ctrl-C"])
def test_a_stopped_job_goes_on_and_leaves_no_process(tmp_path, model_file, how):
    marker, out = uuid.uuid4().hex, tmp_path / "out"
    options = [model_file, out, "--k", 5, "--shard-size", 1]
    recommend_all(model_file, tmp_path / "whole", k=5, shard_size=1, workers=1)
    with start(*options, marker=marker) as job:
        wait_for_parts(out)
        if how == "killed":
            job.kill()
        else:
            os.killpg(job.pid, signal.SIGINT)  # as a terminal does
        _, printed = job.communicate(timeout=60)
    assert job.returncode == (-signal.SIGKILL if how == "killed" else 2)
    assert how == "killed" or printed.rstrip().endswith("from here.")
    assert "Traceback" not in printed
    assert_none_left(marker)
    assert not (out / "_SUCCESS").exists()
    before = len(list(out.glob("*.parquet")))
    assert 0 < before < USERS
    with start(*options, marker=marker) as job:
        printed, _ = job.communicate(timeout=120)
    assert job.returncode == 0 and int(printed.split()[0]) == USERS - before
    assert_same(out, tmp_path / "whole")
    assert_none_left(marker)


@pytest.mark.slow
def test_what_a_killed_worker_had_is_done_again(tmp_path, model_file):
    options = {"k": 5, "shard_size": 1}
    recommend_all(model_file, tmp_path / "whole", workers=1, **options)
    killed = []

    def kill():
        wait_for_parts(tmp_path / "out", 3)
        victim = multiprocessing.active_children()[0]
        os.kill(victim.pid, signal.SIGKILL)
        killed.append(victim.pid)

    thread = threading.Thread(target=kill)
    thread.start()
    assert recommend_all(model_file, tmp_path / "out", workers=2, **options) == USERS
    thread.join()
    assert killed and not multiprocessing.active_children()
    assert_same(tmp_path / "out", tmp_path / "whole")


@pytest.mark.slow
def test_an_error_of_a_worker_is_raised_here(tmp_path, model_file, monkeypatch, capfd):
    after_claim(monkeypatch, lambda job: job.path(3).mkdir())  # a file cannot take its place
    monkeypatch.setattr(batch._Job, "is_whole", lambda job, shard: False)
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: None)
    monkeypatch.setattr(Path, "exists", Path.is_file)
    with pytest.raises(OSError, match="part-000003"):
        recommend_all(model_file, tmp_path / "out", shard_size=10)
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_processes_and_ray_give_what_one_process_gives(tmp_path, model_file):
    pytest.importorskip("ray")
    marker = uuid.uuid4().hex
    met = tmp_path / "met.parquet"
    pd.DataFrame({"user": MET.user_ids, "item": MET.item_ids}).to_parquet(met)
    options = ["--k", 5, "--shard-size", 7, "--histories", met]
    recommend_all(model_file, tmp_path / "one", k=5, shard_size=7, histories=met, workers=1)
    for engine in ("processes", "ray"):
        folder = tmp_path / engine
        arguments = [model_file, folder, "--engine", engine, "--workers", 2, *options]
        with start(*arguments, marker=marker) as job:
            try:
                printed, errors = job.communicate(timeout=150)
            finally:
                job.kill()
        assert job.returncode == 0, errors
        assert printed.startswith(f"{USERS} users")
        assert_same(folder, tmp_path / "one")
        assert_none_left(marker, 60)
    same = [(tmp_path / engine / "_job.json").read_bytes() for engine in ("one", "ray")]
    assert same[0] == same[1]
