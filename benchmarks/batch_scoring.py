"""Users per second of batch scoring: a process pool against Ray Data, on the same job.

The job: the best ten of 100,000 items for each of 200,000 users, from one compressed file (4 bits a
number, d = 64), written as Parquet. Items and users are *enlarged* real ones: each is one of an
IALS model of ncf-ml-1m, drawn at random, plus noise of half its length.

Ways, in turns, each in a process of its own:

- "one process", "process pool": ``recommend_all`` with 1 and 2 workers;
- "Ray Data": the same with ``engine="ray"``, warmed actors and one shard a block;
- "Ray Data, a task a shard": no actors, so that each task opens the model and builds its index.

``users_per_s`` counts the whole command, with the start of Python and of Ray; ``warm_users_per_s``
only from the moment at which each worker has finished its first shard, which a long job tends to.
Folders of all ways are compared: the rows are the same. Ray's workers give way to other processes
unless told not to (``RAY_worker_niceness``); here they do not.

``python benchmarks/batch_scoring.py`` takes three to five minutes and writes
``benchmarks/results/batch_scoring.csv``.
"""

from __future__ import annotations

import argparse
import datetime
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from machine import machine_line

from recsys_lib.compression import save_compressed
from recsys_lib.compression.quantization import UniformQuantization, quantize
from recsys_lib.data import load_split
from recsys_lib.models import IALS, Factors
from recsys_lib.serving import batch

RESULTS = Path(__file__).parent / "results" / "batch_scoring.csv"
ITEMS, USERS, DIM, WORKERS = 100_000, 200_000, 64, 2
ONE, POOL, RAY, COLD = "one process", "process pool", "Ray Data", "Ray Data, a task a shard"


def _on_cold_tasks(job: Any, shards: list[int], workers: int) -> Iterator[int]:
    """What ``_on_ray`` would be without actors."""
    import ray
    import ray.data

    def score(row: dict[str, Any]) -> dict[str, Any]:
        return batch.ShardScorer(job)(row)

    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    blocks = ray.data.from_items(shards, override_num_blocks=len(shards))
    yield from (row["item"] for row in blocks.map(score).iter_rows())
    ray.shutdown()


def work(way: str, model: str, folder: str, shard_size: int) -> None:
    """Do the job one way, in this process."""
    if way == COLD:
        batch._ENGINES["ray"] = _on_cold_tasks
    engine, workers = "ray" if "Ray" in way else "processes", 1 if way == ONE else WORKERS
    options: Any = {"engine": engine, "workers": workers, "shard_size": shard_size}
    batch.recommend_all(model, folder, **options)


def measure(way: str, model: Path, folder: Path, shard_size: int) -> dict[str, Any]:
    """Let another process do the job; give its rates."""
    niceness = {"RAY_worker_niceness": "0"}
    start = time.time()
    command = [sys.executable, __file__, "--work", way, str(model), str(folder), str(shard_size)]
    subprocess.run(command, check=True, env=os.environ | niceness)
    seconds = time.time() - start
    parts = sorted(path.stat().st_mtime for path in folder.glob("*.parquet"))
    first = 1 if way == ONE else WORKERS
    warm = (len(parts) - first) * shard_size / (parts[-1] - parts[first - 1])
    row = {"way": way, "shard_size": shard_size, "seconds": round(seconds, 1)}
    return row | {"users_per_s": round(USERS / seconds), "warm_users_per_s": round(warm)}


def enlarged(vectors: Any, count: int, rng: np.random.Generator) -> Any:
    chosen = vectors[rng.integers(0, len(vectors), count)]
    lengths = np.linalg.norm(chosen, axis=1, keepdims=True)
    noise = rng.standard_normal(chosen.shape, np.float32) * (lengths / (2 * DIM**0.5))
    return (chosen + noise).astype(np.float32)


def make_model(path: Path) -> None:
    train = load_split("ncf-ml-1m", fallback="synthetic").train
    model = IALS(embedding_dim=DIM).fit(train)
    rng = np.random.default_rng(0)
    tables = enlarged(model.item_vectors, ITEMS, rng), enlarged(model.user_vectors, USERS, rng)
    save_compressed(path, quantize(Factors(*tables), UniformQuantization(4)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shard-size", type=int, default=4096)
    parser.add_argument("--other-sizes", type=int, nargs="*", default=[512, 16_384])
    parser.add_argument("--dry", action="store_true", help="do not store the table")
    options = parser.parse_args()
    if options.work:
        way, model_file, folder, shard_size = options.work
        work(way, model_file, folder, int(shard_size))
        return
    size = options.shard_size
    plan = [(way, size) for _ in range(options.rounds) for way in (POOL, RAY, ONE)]
    plan += [(way, other) for other in options.other_sizes for way in (POOL, RAY)] + [(COLD, size)]
    rows, lists = [], None
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder) / "model")
        for number, (way, shard_size) in enumerate(plan):
            out = Path(folder) / f"out-{number}"
            rows.append(measure(way, Path(folder) / "model", out, shard_size))
            print(*rows[-1].values(), sep="  ", flush=True)
            frame = pd.read_parquet(out)
            found = np.stack(frame["item_ids"].to_numpy())
            lists = found if lists is None else lists
            assert frame["user_id"].tolist() == list(range(USERS)), "each user exactly once"
            assert np.array_equal(found, lists), f"{way}: other lists"
    table = pd.DataFrame(rows).assign(users=USERS, items=ITEMS)
    table["date"] = datetime.datetime.now(datetime.UTC).date().isoformat()
    table["machine"] = machine_line()
    median = table[table["shard_size"] == size].groupby("way")[["users_per_s", "warm_users_per_s"]]
    print(median.median().to_string())
    print((median.median() / median.median().loc[POOL]).round(2).to_string())
    if not options.dry:
        table.to_csv(RESULTS, index=False)


if __name__ == "__main__":
    main()
