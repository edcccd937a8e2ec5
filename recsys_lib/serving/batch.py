"""The best items of all users, in shards that are each written once: a job that may be killed.

    python -m recsys_lib.serving.batch model-file out-folder --k 10 --workers 2

A shard is a range of users and one Parquet file with the columns ``user_id``, ``item_ids`` and
``scores`` (k of each a row, best first; -1 and -inf where nothing is left). It is written under a
temporary name and moved when it is whole, so a job that was killed leaves whole shards only, and
the same call goes on with those that are missing. ``_job.json`` says which job the folder holds,
``_SUCCESS`` that all of it is there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np

from recsys_lib.checks import Ids, check_choice, check_counts, check_k, check_number, check_type
from recsys_lib.compression import load_compressed
from recsys_lib.data import Interactions
from recsys_lib.files import replace_file
from recsys_lib.models.base import exclusion_matrix
from recsys_lib.models.factors import Factors, inner_product_vectors
from recsys_lib.models.least_squares import one_blas_thread
from recsys_lib.serving.retrieval import TopKIndex


@dataclass(frozen=True)
class _Job:
    """All that the answer depends on, and where it goes."""

    folder: Path
    model_file: Path
    facts: dict[str, Any]
    met: Any  # sparse matrix of what users have met

    def path(self, shard: int) -> Path:
        return self.folder / f"part-{shard:06d}.parquet"

    def users(self, shard: int) -> Ids:
        start, size = shard * self.facts["shard_size"], self.facts["shard_size"]
        return np.arange(start, min(start + size, self.facts["num_users"]))

    def label(self, shard: int, *columns: Any) -> str:
        return json.dumps([self.facts, shard, _sha256(*columns)])

    def is_whole(self, shard: int) -> bool:
        """Tell whether the file of a shard is there, of this job, and undamaged."""
        import pyarrow.parquet as pq

        try:
            table = pq.ParquetFile(self.path(shard)).read()
            users, *lists = (column.combine_chunks() for column in table.columns)
            values = [users.to_numpy(), *(column.flatten().to_numpy() for column in lists)]
            return table.schema.metadata[b"job"].decode() == self.label(shard, *values)
        except Exception:  # whatever damage makes a reader of Parquet raise
            return False


class ShardScorer:
    """The core of batch scoring: opens the model, takes shards, writes files; it knows no engine.

    Raises:
        ValueError: the model file is damaged, or no longer the one that the job began with.
    """

    def __init__(self, job: _Job) -> None:
        self.job, self.model = job, load_compressed(job.model_file)
        if _sha256(job.model_file.read_bytes()) != job.facts["model_sha256"]:
            raise ValueError(f"{job.model_file} has changed: expected the file of the job's begin")
        self.vectors = self.model.user_vectors, self.model.item_vectors
        if self.model.user_vectors is not None:
            self.vectors = inner_product_vectors(self.model) or self.vectors
        self.index = TopKIndex(self.vectors[1], "int8")
        self.index.search(self.vectors[1][:1], job.facts["k"])  # warm before a shard comes

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Find the lists of one shard, a row as Ray has them, and write its file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        (table, items), users = self.vectors, self.job.users(row["item"])
        rows = self.job.met[users]
        met, known = np.split(rows.indices, rows.indptr[1:-1]), np.diff(rows.indptr) > 0
        vectors, mean = np.zeros((len(users), items.shape[1]), np.float32), 0.0
        if table is not None:
            vectors, known[:] = table[users], True
        elif known.any():  # of users without a history nothing is known: an empty list
            mean = self.model.global_mean
            vectors[known] = self.model.fold_in([items for items in met if len(items)])
        found = self.index.search(vectors, self.job.facts["k"], exclude=met if rows.nnz else None)
        found.item_ids[~known], found.scores[~known] = -1, -np.inf
        values = found.item_ids, found.scores + np.float32(mean)
        lists = [pa.FixedSizeListArray.from_arrays(x.ravel(), x.shape[1]) for x in values]
        columns = {"user_id": pa.array(users), "item_ids": lists[0], "scores": lists[1]}
        written = pa.table(columns, metadata={"job": self.job.label(row["item"], users, *values)})
        replace_file(self.job.path(row["item"]), lambda new: pq.write_table(written, new))
        return row


def recommend_all(
    model_file: str | os.PathLike[str],
    out_folder: str | os.PathLike[str],
    *,
    k: int = 10,
    histories: Interactions | str | os.PathLike[str] | None = None,
    shard_size: int = 4096,
    workers: int = 2,
    engine: str = "processes",
    progress: bool = False,
) -> int:
    """Write the best k items of every user to a folder; go on where a killed job stopped.

    Each user is written exactly once, whatever was killed: a worker, whose shards are then done
    again, or the whole job. A shard that is damaged is written again.

    Args:
        model_file: of :func:`recsys_lib.compression.save_compressed`.
        out_folder: a new or empty folder, or that of the same job; its parent exists. Where
            several machines work, all of them see it, and the model file.
        k: length of the lists.
        histories: what users have met, which is never recommended; for a model of account "items"
            also what users are folded in from, and needed: a user without one gets an empty list.
            Interactions with the ids of the model, or a file of two columns of such whole numbers,
            user and item: Parquet, or CSV with a line of names.
        shard_size: users in a file; a worker that is killed loses as much work.
        workers: processes, each with its copy of the model; with 1, the calling process does the
            work.
        engine: "processes" on this machine; "ray" (Ray Data, ``recsys-lib[service]``) there or,
            where RAY_ADDRESS names one, on a cluster.
        progress: show a bar of users on stderr.

    Returns:
        Users written by this call; the others were there, and whole.

    Raises:
        TypeError: a number of the wrong kind, or histories that are neither.
        ValueError: a number out of range, an unknown engine, histories that do not fit the model
            or are missing, a damaged model file, or a folder of another job or of something else.
        FileNotFoundError: no such file, or the folder has no parent.
        ImportError: pyarrow or Ray is not installed.
        RuntimeError: all workers were killed before they had finished a shard.

    Example:
        >>> import tempfile
        >>> import pandas as pd
        >>> from recsys_lib.compression import save_compressed
        >>> model = Factors(np.float32([[1, 0], [0, 1], [1, 1]]), np.float32([[2, 1], [0, 1]]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     size = save_compressed(f"{folder}/model", model)
        ...     recommend_all(f"{folder}/model", f"{folder}/lists", k=2, workers=1)
        ...     pd.read_parquet(f"{folder}/lists")["item_ids"].map(np.ndarray.tolist).tolist()
        2
        [[2, 0], [1, 2]]
    """
    from tqdm.auto import tqdm

    run = _ENGINES[check_choice("engine", engine, tuple(_ENGINES))]
    workers = check_number("workers", workers, 1, integer=True)
    size = check_number("shard_size", shard_size, 1, integer=True)
    model_file = Path(model_file).resolve()
    digest, model = _sha256(model_file.read_bytes()), load_compressed(model_file)
    met = _read_histories(histories, model)
    num_users = met.shape[0]
    facts = {"k": check_k(k), "shard_size": size, "num_users": num_users}
    facts |= {"model_sha256": digest, "histories_sha256": _sha256(met.indptr, met.indices)}
    job = _Job(Path(out_folder).resolve(), model_file, facts, met)
    shards = range(-(-num_users // size))
    _claim_folder(job, {"_job.json", "_SUCCESS", *(job.path(shard).name for shard in shards)})
    missing = [shard for shard in shards if not job.is_whole(shard)]
    to_write = sum(len(job.users(shard)) for shard in missing)
    bar = tqdm(total=num_users, initial=num_users - to_write, unit="user", disable=not progress)
    if missing:
        for path in (job.folder / "_SUCCESS", *map(job.path, missing)):
            path.unlink(missing_ok=True)
        with bar:
            for shard in run(job, missing, min(workers, len(missing))):
                bar.update(len(job.users(shard)))
    (job.folder / "_SUCCESS").touch()
    return to_write


def _in_this_process(job: _Job, shards: list[int]) -> Iterator[int]:
    with one_blas_thread():
        yield from (row["item"] for row in map(ShardScorer(job), [{"item": n} for n in shards]))


def _work(job: _Job, shards: list[int]) -> None:
    """Do shards in a process of its own; end with the one that started it, which hears Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for _ in _in_this_process(job, shards):
        if not multiprocessing.parent_process().is_alive():  # type: ignore[union-attr]
            break


def _on_processes(job: _Job, shards: list[int], workers: int) -> Iterator[int]:
    """Yield the shards as their files appear. What killed processes had is done by new ones."""
    context, processes = multiprocessing.get_context("spawn"), []
    try:
        while shards and workers > 1:
            parts, before = [shards[n::workers] for n in range(workers)], len(shards)
            processes = [context.Process(target=_work, args=(job, part)) for part in parts]
            for process in processes:
                process.start()
            alive = processes
            while alive:
                wait([process.sentinel for process in alive], timeout=0.1)
                alive = [process for process in processes if process.is_alive()]
                written = {shard for shard in shards if job.path(shard).exists()}
                yield from written
                shards = [shard for shard in shards if shard not in written]
            if any((process.exitcode or 0) > 0 for process in processes):
                break  # an error: it is raised here, too
            if len(shards) == before:
                raise RuntimeError("all workers were killed: expected fewer, or more memory")
    finally:
        for process in [process for process in processes if process.pid]:
            process.kill()
            process.join()
    if shards:
        yield from _in_this_process(job, shards)


def _on_ray(job: _Job, shards: list[int], workers: int) -> Iterator[int]:
    """Yield the shards as actors of Ray Data finish them: one shard is one block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    import ray.data

    if started := not ray.is_initialized():
        cpus = None if "RAY_ADDRESS" in os.environ else workers
        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        ray.init(num_cpus=cpus, **quiet)
    try:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        blocks = ray.data.from_items(shards, override_num_blocks=len(shards))
        actors = ray.data.ActorPoolStrategy(size=workers)
        done = blocks.map(ShardScorer, fn_constructor_args=(job,), compute=actors)
        yield from (row["item"] for row in done.iter_rows())
    finally:
        if started:
            ray.shutdown()


_ENGINES = {"processes": _on_processes, "ray": _on_ray}


def _claim_folder(job: _Job, names: set[str]) -> None:
    """Make the folder of a job, or find that it is this job's."""
    job.folder.mkdir(exist_ok=True)
    manifest, facts = job.folder / "_job.json", json.dumps(job.facts)
    found = manifest.read_text(encoding="utf-8", errors="replace") if manifest.exists() else None
    if found not in (None, facts):
        raise ValueError(f"out_folder holds the job {found}: expected {facts}, or a new folder")
    names = names if found else set()
    if strange := {path.name for path in job.folder.glob("[!.]*")} - names:
        raise ValueError(f"out_folder holds {min(strange)}: expected an empty folder, or a job's")
    if found is None:
        replace_file(manifest, lambda new: new.write_text(facts, encoding="utf-8"))


def _read_histories(histories: Any, model: Factors) -> Any:
    """Return the sparse matrix of what users have met."""
    import pandas as pd

    users, items = model.num_users or 0, model.num_items or 0
    if histories is None and not users:
        raise ValueError("histories is None: expected them, as the model file holds items only")
    if isinstance(histories, str | os.PathLike):
        read = pd.read_parquet if str(histories).endswith(".parquet") else pd.read_csv
        (_, first), (_, second) = read(histories).items()
        histories = Interactions(first, second, num_users=users or first.max() + 1, num_items=items)
    if histories is not None:
        check_type("histories", histories, (Interactions,), ", or a file of pairs")
        users = users or histories.num_users
        check_counts("histories", histories, (users, items))
    met = exclusion_matrix(histories, np.arange(users), users, (users, items))
    met.sort_indices()
    return met


def _sha256(*parts: Any) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the best k items of every user to a folder; the same command goes on after a stop."""
    parser = argparse.ArgumentParser("recsys_lib.serving.batch", description=main.__doc__)
    parser.add_argument("model_file", help="of save_compressed")
    parser.add_argument("out_folder", help="new, or of the same job")
    parser.add_argument("--histories", help="CSV or Parquet: ids of user and item")
    parser.add_argument("--engine", default="processes", choices=tuple(_ENGINES))
    for name, default in {"--k": 10, "--shard-size": 4096, "--workers": 2}.items():
        parser.add_argument(name, type=int, default=default)
    try:
        print(recommend_all(**vars(parser.parse_args(arguments)), progress=True), "users written")
    except (Exception, KeyboardInterrupt) as error:
        parser.exit(2, f"{type(error).__name__}: {error}\nThe same command goes on from here.\n")


if __name__ == "__main__":
    main()
