"""What quantization costs and buys on ncf-ml-1m: iALS tables, and a ranker in int8.

"tables": iALS with 192 dimensions, both tables in 8, 4, 3 and 2 bits with a scale for each row
(range of the row, "minmax", or the range of least squared error, "mse"), and the item table alone
in 4 bits with the users folded in from it, judged by the users of the test. "validation": the same
for a model that has not seen the last training item of each user either, judged by that item
against 99 negatives drawn at random. "ranker": a NeuMF with hidden layers 256-128-64, trained
for two epochs, as LiteRT file in float32, full int8 (equal scores count against it, or are put in a
random order of the items, the same for all users), and int8 up to the last product, and as
CandidateScorer in float32 and int8; times are for 1,000 candidates of one user, one thread, each
family in turns with its own float32.

``python benchmarks/quantization.py --part tables --seed 0`` (parts tables, validation, ranker;
seeds 0, 1, 2; a minute each on two quiet cores) adds rows to
``benchmarks/results/quantization.csv``, or replaces them, and prints means and standard errors over
the seeds that are there; ``--summary`` only prints.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pandas as pd
from machine import machine_line
from threadpoolctl import threadpool_limits

from recsys_lib.compression.quantization import UniformQuantization, quantize
from recsys_lib.data import Split, load_split, sample_negatives
from recsys_lib.evaluation import evaluate_leave_one_out
from recsys_lib.models import IALS, RatingModelConfig, build_rating_model
from recsys_lib.notebook import quiet
from recsys_lib.serving import CandidateScorer, compare_latency, export_litert, load_scorer
from recsys_lib.training import KerasScorer, fit

RESULTS = Path(__file__).parent / "results" / "quantization.csv"
CANDIDATES = 1000


def row(way: str, model: Any, split: Split, base: float, **others: float) -> dict[str, Any]:
    """Evaluate a model and compare its NDCG@10 with that of the float one."""
    ndcg = evaluate_leave_one_out(model, split, k=10).ndcg
    found = {
        "way": way,
        "ndcg": round(ndcg, 5),
        "change_percent": round(100 * (ndcg / base - 1), 3),
    }
    found |= {name: round(value, 3) for name, value in others.items()}
    print(found, flush=True)
    return found


def measure_tables(split: Split, seed: int) -> list[dict[str, Any]]:
    """Quantize the tables of iALS."""
    model = IALS(embedding_dim=192, seed=seed, l2=0.007, unobserved_weight=0.3).fit(split.train)
    base = evaluate_leave_one_out(model, split, k=10).ndcg
    rows = [row("float32", model, split, base, times_smaller=1)]
    for bits in (8, 4, 3, 2):
        for search in ("minmax", "mse"):
            small = quantize(model, UniformQuantization(bits, scale_search=search))
            rows.append(
                row(f"{bits} bits, {search}", small, split, base, times_smaller=small.report.ratio)
            )
    small = quantize(model, {"item_vectors": UniformQuantization(4, scale_search="mse")})
    matrix, served = split.train.to_csr(), copy.copy(small.model)
    with threadpool_limits(1):
        served.user_vectors = served.fold_in(np.split(matrix.indices, matrix.indptr[1:-1]))
    smaller = small.report.bytes_before / small.tensors["item_vectors"].nbytes
    rows.append(row("4 bits, items only", served, split, base, times_smaller=smaller))
    return rows


def measure_validation(split: Split, seed: int) -> list[dict[str, Any]]:
    """Quantize the tables of a model that has not seen each user's last training item."""
    train, held = split.train.split_leave_one_out(seed=seed)
    return measure_tables(Split(train, held, sample_negatives(train, held, seed=seed)), seed)


class FloatEnd:
    """A LiteRT file of all layers but the last, and the last in NumPy."""

    def __init__(self, path: Path, layer: Any) -> None:
        self.body = load_scorer(path, num_threads=1)
        self.kernel, self.bias = layer.get_weights()

    def score(self, users: Any, items: Any) -> Any:
        """Score pairs (n,), (n,) to (n,)."""
        return (self.body.score(users, items) @ self.kernel)[:, 0] + self.bias


class TieOrder:
    """A LiteRT file in int8 whose equal scores are put in a random order of the items.

    What is added is less than half a step of the output, so no two different scores change places.
    """

    def __init__(self, path: Path, num_items: int) -> None:
        self.whole = load_scorer(path, num_threads=1)
        items = np.arange(num_items)
        scores = [self.whole.score(np.full(num_items, user), items) for user in range(20)]
        step = np.diff(np.unique(np.concatenate(scores))).min()
        self.order = step * np.random.default_rng(0).uniform(-0.4, 0.4, num_items)

    def score(self, users: Any, items: Any) -> Any:
        """Score pairs (n,), (n,) to (n,)."""
        return self.whole.score(users, items) + self.order[items]


def measure_ranker(split: Split, seed: int) -> list[dict[str, Any]]:
    """Train a ranker and serve it in float32 and in int8."""
    train = split.train
    model = build_rating_model(
        RatingModelConfig("neumf", train.num_users, train.num_items, 32, (256, 128, 64),
                          init_std=0.05, seed=seed)
    )  # fmt: skip
    fit(model, train, epochs=2, optimizer=keras.optimizers.Adam(0.004), batch_size=4096,
        negatives_per_positive=2, seed=seed, progress=False)  # fmt: skip
    base = evaluate_leave_one_out(KerasScorer(model), split, k=10).ndcg
    last = model.get_layer("score")
    with quiet(), tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("float", "int8", "body")]
        export_litert(model, paths[0])
        export_litert(model, paths[1], "int8", train)
        export_litert(keras.Model(model.inputs, last.input), paths[2], "int8", train)
        sizes = [path.stat().st_size for path in (paths[0], paths[1], paths[1], paths[2])]
        families: list[dict[str, Any]] = [
            {
                "LiteRT float32": load_scorer(paths[0], num_threads=1),
                "LiteRT int8": load_scorer(paths[1], num_threads=1),
                "LiteRT int8, ties in random order": TieOrder(paths[1], train.num_items),
                "LiteRT int8, float end": FloatEnd(paths[2], last),
            },
            {
                "CandidateScorer float32": CandidateScorer(model),
                "CandidateScorer int8": CandidateScorer(model, precision="int8"),
            },
        ]
    items = np.random.default_rng(0).integers(0, train.num_items, CANDIDATES)
    users = np.full(CANDIDATES, 7)
    rows = []
    for family in families:
        with threadpool_limits(1), quiet():
            calls = {
                name: (lambda s=scorer: s.score_candidates(7, items))
                if isinstance(scorer, CandidateScorer)
                else (lambda s=scorer: s.score(users, items))
                for name, scorer in family.items()
            }
            times = compare_latency(calls, rounds=30, calls_per_round=5)
        print(times, flush=True)
        for position, (name, scorer) in enumerate(family.items()):
            nbytes = [s.nbytes for s in family.values() if isinstance(s, CandidateScorer)] or sizes
            low, high = times.ratio_interval(name)
            rows.append(
                row(name, scorer, split, base, times_smaller=nbytes[0] / nbytes[position],
                    times_faster=1 / times.ratio(name), from_=1 / high, to=1 / low,
                    p50_us=times.latencies[name].p50_us, p99_us=times.latencies[name].p99_us)
            )  # fmt: skip
    return rows


PARTS = {"tables": measure_tables, "validation": measure_validation, "ranker": measure_ranker}


def main() -> None:
    """Measure one part with one seed, or print the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=list(PARTS), default="tables")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--summary", action="store_true")
    options = parser.parse_args()
    stored = pd.read_csv(RESULTS) if RESULTS.exists() else pd.DataFrame()
    if not options.summary:
        rows = pd.DataFrame(PARTS[options.part](load_split("ncf-ml-1m"), options.seed))
        rows.insert(0, "part", options.part)
        rows.insert(1, "seed", options.seed)
        rows["date"], rows["machine"] = datetime.date.today().isoformat(), machine_line()
        rows["command"] = (
            f"python benchmarks/quantization.py --part {options.part} --seed {options.seed}"
        )
        stored = pd.read_csv(RESULTS) if RESULTS.exists() else pd.DataFrame()
        if len(stored):
            stored = stored[(stored.part != options.part) | (stored.seed != options.seed)]
        stored = pd.concat([stored, rows]).sort_values(["part", "seed"], kind="stable")
        stored.to_csv(RESULTS, index=False)
    names = [n for n in ("change_percent", "times_smaller", "times_faster") if n in stored]
    print(stored.groupby(["part", "way"], sort=False)[names].agg(["mean", "sem", "count"]).round(2))


if __name__ == "__main__":
    main()
