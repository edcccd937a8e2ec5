"""Best items of one user out of many: TopKIndex and its peers, one thread each, in turns.

Vectors: those of an IALS model (d = 64) of ncf-ml-1m for n = 3,706, with users of that model.
Catalogues of a larger size are not to be had here, so larger tables are *enlarged* real ones, as in
chapter 16: each row is a real item, drawn at random, plus noise of half its length; the users stay.
How well approximate methods do depends on such structure: ``--kind clustered`` (a mixture of
separated normal clusters) flatters them and ``--kind normal`` has none. What exact methods find
depends on nothing.

"ratio" is the time of a search divided by the time of reading the float32 table once, which any
search over float32 must do; median over rounds, each family in a process of its own (thread pools
of several runtimes in one process disturb each other), and the 10th to 90th percentile. "recall" is
against the exact answer. Approximate indexes appear with their knob turned to several values.
Graphs are built up to ``--graph-limit`` items only: at a million that takes minutes.

Run: ``python benchmarks/retrieval.py``, about ten minutes; ``--sizes 3706 100000`` or ``--families
recsys_lib faiss`` for a part; ``--output FILE`` to store the tables. A family whose library is
absent is left out with a line. Stored: ``benchmarks/results/retrieval_*.txt``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine_line

from recsys_lib.data import DataError, load_split
from recsys_lib.models import IALS
from recsys_lib.serving import TopKIndex, hardware_line

Table = tuple[Any, Any]  # item vectors, user vectors

FAMILIES = (
    "numpy", "recsys_lib", "faiss", "hnswlib", "scann", "onnxruntime", "litert", "tensorflow",
)  # fmt: skip
SIZES = (3706, 41_000, 100_000, 1_000_000)
KINDS = ("enlarged", "clustered", "normal")  # of vectors above the size of the real catalogue
NUM_USERS, DIM = 64, 64
READ = "read the float32 table"
LIBRARIES = ("OMP", "OPENBLAS", "MKL", "NUMEXPR")
Recall = dict[str, dict[str, float]]
Times = dict[str, list[list[float]]]
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in LIBRARIES}


def real_vectors() -> Table | None:
    try:
        train = load_split("ncf-ml-1m").train
    except DataError as error:
        say(f"real vectors left out: {error}")
        return None
    model = IALS(embedding_dim=DIM, l2=0.007, unobserved_weight=0.3).fit(train)
    users = np.random.default_rng(0).choice(model.num_users, NUM_USERS, replace=False)
    return model.item_vectors, model.user_vectors[users]


def enlarged_vectors(real: Table, num_items: int) -> Table:
    """Repeat real items at random, each time with noise of half the item's length."""
    items, users = real
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, len(items), num_items)
    noise = rng.standard_normal((num_items, items.shape[1]), np.float32)
    half = np.linalg.norm(items, axis=1) / (2 * items.shape[1] ** 0.5)
    return items[chosen] + half[chosen, None].astype(np.float32) * noise, users


def synthetic_vectors(kind: str, num_items: int) -> Table:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(500, DIM)).astype(np.float32)

    def draw(count: int) -> Any:
        noise = rng.standard_normal((count, DIM), np.float32)
        if kind == "normal":
            return noise
        return centres[rng.integers(0, len(centres), count)] + np.float32(0.5) * noise

    return draw(num_items), draw(NUM_USERS)


def vectors_of(kind: str, size: int, real: Table | None) -> tuple[str, Table | None]:
    """Give a description and the vectors; None where they are not to be had."""
    if size == SIZES[0]:
        return "real (IALS of ncf-ml-1m)", real
    if kind == "enlarged":
        return "enlarged real (IALS of ncf-ml-1m)", real and enlarged_vectors(real, size)
    return f"synthetic, {kind}", synthetic_vectors(kind, size)


_said: list[str] = []


def say(text: str) -> None:
    """Print, and keep for ``--output``."""
    print(text, flush=True)
    _said.append(text)


class Family:
    """A process that holds the methods of one runtime."""

    def __init__(self, name: str) -> None:
        self.name = name
        script = Path(__file__).parent / "parts" / "retrieval_families.py"
        self.process = subprocess.Popen(
            [sys.executable, str(script), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | ONE_THREAD | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        )

    def ask(self, **order: Any) -> dict[str, Any]:
        """Give an order and wait for the answer."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        return json.loads(answer) if answer else {"error": "the process ended"}

    def close(self) -> None:
        """Let the process end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)


def build(families: list[Family], path: Path, graph_limit: int) -> tuple[list[Family], Recall]:
    """Let each family build its indexes; give those that can run, and recall by method and k."""
    recall: Recall = {}
    running = []
    for family in families:
        answer = family.ask(do="build", path=str(path), graph_limit=graph_limit)
        recall |= answer.get("recall", {})
        if "error" in answer:
            say(f"  {family.name} left out: {answer['error']}")
        if answer.get("build_s"):
            running.append(family)
    return running, recall


def measure(running: list[Family], k: int, rounds: int, calls: int) -> Times:
    """Let the families take turns; give microseconds of each method, (rounds, calls)."""
    times: Times = {}
    for turn in range(rounds):
        for family in running:
            answer = family.ask(do="time", k=k, calls=calls, first=turn * calls)
            for method, microseconds in answer.items():
                times.setdefault(method, []).append(microseconds)
    return times


def print_table(times: Times, recall: Recall, k: int) -> None:
    read = np.median(times[READ], axis=1)
    width = max(map(len, times))
    say(f"\n  {f'top-{k}':<{width}} {'ratio':>7} {'10 to 90 %':>13} {'recall':>7} "
        f"{'p50 us':>10} {'p99 us':>10}")  # fmt: skip
    ratio = {method: np.median(taken, axis=1) / read for method, taken in times.items()}
    order = sorted(times, key=lambda method: np.median(ratio[method]))
    for method in order:
        low, high = np.percentile(ratio[method], [10, 90])
        found = f"{recall[method][str(k)]:.3f}" if method in recall else ""
        p50, p99 = np.percentile(np.concatenate(times[method]), [50, 99])
        say(f"  {method:<{width}} {np.median(ratio[method]):7.3f} {f'{low:.3f}-{high:.3f}':>13} "
            f"{found:>7} {p50:10,.1f} {p99:10,.1f}")  # fmt: skip
    for least in (0.999, 0.95, 0.9):
        good = [method for method in order if recall.get(method, {}).get(str(k), 0) >= least]
        names = [f"{method} ({np.median(ratio[method]):.3f})" for method in good[:4]]
        say(f"  fastest with a recall of {least} or more: {', '.join(names)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--families", nargs="+", default=FAMILIES, choices=FAMILIES)
    parser.add_argument("--kind", default="enlarged", choices=KINDS)
    parser.add_argument("--k", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--calls", type=int, default=10, help="a round, of each method")
    parser.add_argument("--graph-limit", type=int, default=150_000, help="items in a graph")
    parser.add_argument("--output", type=Path, help="also write the tables to this file")
    options = parser.parse_args()
    say(f"Retrieval of the best items of one user, {datetime.now(UTC):%Y-%m-%d}")
    say(f"{hardware_line()}; {machine_line().partition('; ')[2]}")
    say(f"command    python benchmarks/retrieval.py {' '.join(sys.argv[1:])}")
    names = ["numpy", *(name for name in options.families if name != "numpy")]
    families = [Family(name) for name in names]
    real = real_vectors() if options.kind == "enlarged" or SIZES[0] in options.sizes else None
    try:
        for size in options.sizes:
            kind, vectors = vectors_of(options.kind, size, real)
            if vectors is None:
                continue
            items, users = vectors
            say(f"\nn = {len(items):,}, d = {DIM}, {kind} vectors, one user, one thread")
            exact = TopKIndex(items)
            answers = {f"top{k}": exact.search(users, k).item_ids for k in options.k}
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "vectors.npz"
                np.savez(path, items=items, users=users, **answers)
                running, recall = build(families, path, options.graph_limit)
            for k in options.k:
                print_table(measure(running, k, options.rounds, options.calls), recall, k)
    finally:
        for family in families:
            family.close()
    if options.output:
        options.output.write_text("\n".join([*_said, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
