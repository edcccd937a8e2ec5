"""Best items of one user out of many: TopKIndex and its peers, one thread each, in turns.

Vectors: those of an IALS model (d = 64) of ncf-ml-1m for n = 3,706, and above that a mixture of
normal clusters, which is synthetic: real catalogues of that size are not to be had here. How well
approximate methods do depends on such structure (``--kind normal`` has none); what exact ones find
does not.

"ratio" is the time of a search divided by the time of reading the float32 table once, which any
search over float32 must do; median over rounds, each family in a process of its own (thread pools
of several runtimes in one process disturb each other), and the 10th to 90th percentile. "recall" is
against the exact answer. Graph indexes are built up to 150,000 items only.

Run: ``python benchmarks/retrieval.py``, about ten minutes; ``--sizes 3706 100000`` or ``--families
recsys_lib faiss`` for a part. A family whose library is absent is left out with a line.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from recsys_lib.data import DataError, load_dataset
from recsys_lib.models import IALS
from recsys_lib.serving import TopKIndex, hardware_line

FAMILIES = (
    "numpy", "recsys_lib", "faiss", "hnswlib", "scann", "onnxruntime", "litert", "tensorflow",
)  # fmt: skip
SIZES = (3706, 41_000, 100_000, 1_000_000)
NUM_USERS, DIM = 64, 64
READ = "read the float32 table"
LIBRARIES = ("OMP", "OPENBLAS", "MKL", "NUMEXPR")
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in LIBRARIES}


def real_vectors() -> tuple[Any, Any] | None:
    try:
        train = load_dataset("ncf-ml-1m").train
    except DataError as error:
        print(f"n = 3,706 left out: {error}")
        return None
    model = IALS(embedding_dim=DIM).fit(train)
    users = np.random.default_rng(0).choice(model.num_users, NUM_USERS, replace=False)
    return model.item_vectors, model.user_vectors[users]


def synthetic_vectors(kind: str, num_items: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(500, DIM)).astype(np.float32)

    def draw(count: int) -> Any:
        noise = rng.standard_normal((count, DIM), np.float32)
        if kind == "normal":
            return noise
        return centres[rng.integers(0, len(centres), count)] + np.float32(0.5) * noise

    return draw(num_items), draw(NUM_USERS)


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


def measure(families: list[Family], path: Path, ks: list[int], rounds: int, calls: int) -> None:
    recall: dict[str, dict[str, float]] = {}
    running = []
    for family in families:
        answer = family.ask(do="build", path=str(path))
        recall |= answer.get("recall", {})
        if "error" in answer:
            print(f"  {family.name} left out: {answer['error']}")
        if answer.get("build_s"):
            running.append(family)
    for k in ks:
        times: dict[str, list[list[float]]] = {}
        for turn in range(rounds):
            for family in running:
                answer = family.ask(do="time", k=k, calls=calls, first=turn * calls)
                for method, microseconds in answer.items():
                    times.setdefault(method, []).append(microseconds)
        print_table(times, recall, k)


def print_table(
    times: dict[str, list[list[float]]], recall: dict[str, dict[str, float]], k: int
) -> None:
    read = np.median(times[READ], axis=1)
    width = max(map(len, times))
    print(f"\n  {f'top-{k}':<{width}} {'ratio':>7} {'10 to 90 %':>13} {'recall':>7} "
          f"{'p50 us':>10} {'p99 us':>10}")  # fmt: skip
    rows = sorted(times.items(), key=lambda row: np.median(np.median(row[1], axis=1) / read))
    for method, taken in rows:
        ratios = np.median(taken, axis=1) / read
        low, high = np.percentile(ratios, [10, 90])
        found = f"{recall[method][str(k)]:.3f}" if method in recall else ""
        p50, p99 = np.percentile(np.concatenate(taken), [50, 99])
        print(f"  {method:<{width}} {np.median(ratios):7.3f} {f'{low:.3f}-{high:.3f}':>13} "
              f"{found:>7} {p50:10,.1f} {p99:10,.1f}")  # fmt: skip
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--families", nargs="+", default=FAMILIES, choices=FAMILIES)
    parser.add_argument("--kind", default="clustered", choices=("clustered", "normal"))
    parser.add_argument("--k", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--calls", type=int, default=10, help="a round, of each method")
    options = parser.parse_args()
    print(hardware_line())
    names = ["numpy", *(name for name in options.families if name != "numpy")]
    families = [Family(name) for name in names]
    try:
        for size in options.sizes:
            vectors = real_vectors() if size == SIZES[0] else synthetic_vectors(options.kind, size)
            if vectors is None:
                continue
            items, users = vectors
            kind = "real (IALS of ncf-ml-1m)" if size == SIZES[0] else f"synthetic, {options.kind}"
            print(f"\nn = {len(items):,}, d = {DIM}, {kind} vectors, one user, one thread")
            exact = TopKIndex(items)
            answers = {f"top{k}": exact.search(users, k).item_ids for k in options.k}
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "vectors.npz"
                np.savez(path, items=items, users=users, **answers)
                measure(families, path, options.k, options.rounds, options.calls)
    finally:
        for family in families:
            family.close()


if __name__ == "__main__":
    main()
