"""Train one model with several processes: workers that add gradients up, or tables on servers.

From a shell, ``python -m recsys_lib.training.distributed --workers 4 --data ncf-ml-1m`` starts the
processes on this machine. In a cluster that sets ``TF_CONFIG`` the same command, given on each
machine, is one member and starts nothing; all must reach the same data and backup. TensorFlow's
ports ask for no password and listen on every network of a machine: keep them behind a firewall.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_choice, check_counts, check_type, store_numbers
from recsys_lib.data import DATASETS, Interactions, load_dataset, load_split, read_interactions
from recsys_lib.data.files import DataError
from recsys_lib.files import read_file, write_file
from recsys_lib.models import RatingModelConfig, build_rating_model
from recsys_lib.models.base import check_interactions
from recsys_lib.training import loop
from recsys_lib.training.checkpoint import TrainingState, fingerprint, load_checkpoint
from recsys_lib.training.history import History
from recsys_lib.training.launch import REFUSED, follow_launcher, run_members
from recsys_lib.training.members import be_member
from recsys_lib.training.recommender import KerasRecommender

_KIND, _NAME = "training job", "recsys_lib.training.distributed"
_OPTIMIZERS = ("adadelta", "adagrad", "adam", "adamw", "lamb", "lion", "nadam", "rmsprop", "sgd")


@dataclass(frozen=True)
class DistributedOptions:
    """How a model is trained by several processes.

    Args:
        workers: processes that compute gradients, at most one for each row of a batch.
        servers: 0 for data parallel training: each worker holds the model, their gradients are
            added up, and the result is that of one process. 1 or more: processes that hold the
            tables in parts; workers fetch rows, and do not wait for each other.
        objective: as in :func:`recsys_lib.training.fit`.
        optimizer: a name that Keras knows; with servers "sgd".
        learning_rate: above 0.
        epochs: passes over the data.
        batch_size: interactions in an update, of all workers together; with servers, of each.
        negatives_per_positive: items drawn for each interaction.
        l2: strength of the shrinkage, as in :func:`recsys_lib.training.fit`.
        seed: of order and draws.
        backup_every: updates from one backup to the next.
        memory_bytes: most resident memory that a process may take; 0 for no limit. Linux only.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range; more workers than rows in a batch; an optimizer
            other than "sgd" with servers.

    Example:
        >>> DistributedOptions(workers=4).batch_size
        8192
        >>> DistributedOptions(workers=4, batch_size=3)
        Traceback (most recent call last):
        ValueError: workers is 4: expected an integer from 1 to 3
    """

    workers: int = 2
    servers: int = 0
    objective: str = "sigmoid_cross_entropy"
    optimizer: str = "adam"
    learning_rate: float = 0.001
    epochs: int = 10
    batch_size: int = 8192
    negatives_per_positive: int = 4
    l2: float = 0.0
    seed: int = 0
    backup_every: int = 100
    memory_bytes: int = 0

    def __post_init__(self) -> None:
        check_choice("objective", self.objective, loop.OBJECTIVES)
        check_choice("optimizer", self.optimizer, ("sgd",) if self.servers else _OPTIMIZERS)
        counts = ("epochs", "batch_size", "negatives_per_positive", "backup_every")
        store_numbers(self, 1, *counts, integer=True)
        store_numbers(self, 1, "workers", high=self.batch_size, integer=True)
        store_numbers(self, 0, "servers", "seed", "memory_bytes", integer=True)
        store_numbers(self, 0, "l2")
        store_numbers(self, 0, "learning_rate", include_low=False)


class DistributedRun(NamedTuple):
    """What a run leaves.

    Args:
        weights: of the model, in the order of ``build_rating_model(config).get_weights()``. With
            servers, the rows of those users, then items, that occur in the data, by rising id.
        history: loss and seconds of each epoch.
        restarts: how often all processes were started again.
        peak_bytes: highest resident memory of each process, by name; empty if it is not known.
    """

    weights: list[NDArray[Any]]
    history: History
    restarts: int
    peak_bytes: dict[str, int]


@dataclass(frozen=True)
class Job:
    """All that a member has to know."""

    config: RatingModelConfig
    interactions: Interactions
    options: DistributedOptions
    backup: Path

    def __post_init__(self) -> None:
        check_type("config", self.config, (RatingModelConfig,))
        check_interactions(self.interactions)
        counts = (self.config.num_users, self.config.num_items)
        check_counts("interactions", self.interactions, counts)
        if self.options.servers:
            check_choice("config.kind", self.config.kind, ("dot_product",))
        if self.options.objective == "squared_error" and self.interactions.ratings is None:
            raise ValueError("interactions has no ratings: expected some for squared_error")
        if not self.backup.absolute().parent.is_dir():
            raise FileNotFoundError(f"backup is {self.backup}: expected an existing folder")
        if self.backup.exists():
            self.state()

    def facts(self) -> dict[str, Any]:
        """Return what must agree when a run goes on; the number of workers may change."""
        free = {"workers": 0, "memory_bytes": 0, "backup_every": 0}
        known = {"model": repr(self.config), "data": fingerprint(self.interactions)}
        return asdict(self.options) | free | known

    def state(self) -> TrainingState:
        """Return the last backup, if it is whole and of this job."""
        return load_checkpoint(self.backup, self.facts())


def _write(job: Job, path: Path) -> None:
    data, parts = job.interactions, {"config": asdict(job.config), "options": asdict(job.options)}
    arrays = {"user_ids": data.user_ids, "item_ids": data.item_ids}
    if data.ratings is not None:
        arrays["ratings"] = data.ratings.astype(np.float32)
    write_file(path, _KIND, parts | {"backup": str(job.backup.absolute())}, arrays)


def _read(path: str) -> Job:
    _, parts, arrays = read_file(path, [_KIND])
    units = {"hidden_units": tuple(parts["config"]["hidden_units"])}
    config = RatingModelConfig(**parts["config"] | units)
    columns = (arrays["user_ids"], arrays["item_ids"], arrays.get("ratings"))
    data = Interactions(*columns, num_users=config.num_users, num_items=config.num_items)
    return Job(config, data, DistributedOptions(**parts["options"]), Path(parts["backup"]))


def train_distributed(
    config: RatingModelConfig,
    interactions: Interactions,
    *,
    backup: str | os.PathLike[str] | None = None,
    say: Callable[[str], None] | None = print,
    **options: Any,
) -> DistributedRun:
    """Train a rating model with several processes of this machine.

    The model starts as :func:`recsys_lib.models.build_rating_model` builds it, visits the rows in
    the order and draws the negatives that :func:`recsys_lib.training.fit` does, for any number of
    workers: worker ``w`` of ``W`` computes the gradient of rows ``w, w + W, ...`` of each batch,
    the gradients are added up (a ring all-reduce of TensorFlow's MultiWorkerMirroredStrategy), and
    each worker makes the same update. So the weights are those of ``fit``, up to the rounding of
    sums in another order. Gradients of tables travel whole.

    With servers, only for a dot_product, tables start from other random numbers, row by row, and
    no process holds more than its parts of them (TensorFlow's ParameterServerStrategy). With one
    worker the updates are made in order; several make each of theirs on rows that others may have
    changed meanwhile, and no two runs are equal.

    If a process dies, all are started again, up to three times, and go on from the last backup.

    Args:
        config: of the model.
        interactions: what to train on.
        backup: a file to go on from, and to go on with later; with servers, the first part of the
            names of several. None keeps it until the end of the run.
        say: is told of processes, deaths and restarts; None tells nobody.
        **options: of :class:`DistributedOptions`.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range, or ``backup`` is damaged or of another job.
        FileNotFoundError: the folder of ``backup`` does not exist.
        MemoryError: a process took more than ``memory_bytes``.
        RuntimeError: processes died more often than three times.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kept = folder / "backup" if backup is None else Path(backup)
        job = Job(config, interactions, DistributedOptions(**options), kept)
        _write(job, folder / "job")
        servers, workers = job.options.servers, job.options.workers
        cluster = {"chief": min(1, servers), "worker": workers, "ps": servers}
        command = [sys.executable, "-m", _NAME, "--job", str(folder / "job")]
        limit = job.options.memory_bytes
        restarts, peaks = run_members(command, cluster, folder, memory_bytes=limit, say=say)
        state = job.state()
    return DistributedRun(state.model, state.history, restarts, peaks)


def _asked(given: dict[str, Any]) -> Job:
    """Return the job of a command line; TF_CONFIG says how many processes there are."""
    options = {field.name: given[field.name] for field in fields(DistributedOptions)}
    cluster = json.loads(os.environ.get("TF_CONFIG", "{}")).get("cluster")
    if cluster:
        options["servers"] = len(cluster.pop("ps", ()))
        options["workers"] = sum(map(len, cluster.values())) - bool(options["servers"])
    checked, output = DistributedOptions(**options), given["output"]
    if output and (checked.servers or not Path(output).absolute().parent.is_dir()):
        what = "none with servers, whose tables stay beside the backup; else an existing folder"
        raise ValueError(f"output is {output}: expected {what}")
    if given["data"] not in DATASETS:
        data = read_interactions(given["data"])[0]
    elif DATASETS[given["data"]].num_splits == 1:
        data = load_split(given["data"]).train
    else:
        data = load_dataset(given["data"])
    sizes = (data.num_users, data.num_items, given["embedding_dim"])
    config = RatingModelConfig(given["kind"], *sizes, seed=given["seed"])
    return Job(config, data, checked, Path(given["backup"]))


def _save(job: Job, path: str) -> None:
    """Write the trained model as a file that load_model reads."""
    model, recommender = build_rating_model(job.config), KerasRecommender(job.config)
    model.set_weights(job.state().model)
    recommender.num_users, recommender.num_items = job.config.num_users, job.config.num_items
    recommender._use(job.config, model)
    recommender.save(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    details = str(DistributedOptions.__doc__)
    parser = argparse.ArgumentParser(f"python -m {_NAME}", description=__doc__, epilog=details)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument(
        "--data", help="name of a data set, or a file of two columns, user and item"
    )
    parser.add_argument("--backup", help="file to go on from, and to go on with later")
    parser.add_argument("--output", help="file for the model, which load_model reads")
    parser.add_argument("--kind", default="dot_product", help="of model: see RatingModelConfig")
    parser.add_argument("--embedding-dim", type=int, default=32, help="length of the embeddings")
    for field in fields(DistributedOptions):
        option, kind = f"--{field.name.replace('_', '-')}", type(field.default)
        parser.add_argument(option, type=kind, default=field.default, help="%(default)s; see below")
    given = vars(parser.parse_args(arguments))
    if not (given["job"] or (given["data"] and given["backup"])):
        parser.error("expected --data and --backup")
    follow_launcher()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        job = _read(given["job"]) if given["job"] else _asked(given)
        if "TF_CONFIG" in os.environ:
            last = be_member(job)
        else:
            last = True
            train_distributed(
                job.config, job.interactions, backup=job.backup, **asdict(job.options)
            )
        if last and given["output"]:
            _save(job, given["output"])
    except (DataError, TypeError, ValueError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
