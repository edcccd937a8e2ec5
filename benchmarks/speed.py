"""What makes a list of ten items come sooner, one change at a time; five data sets, three runs.

The tables are those of ``benchmarks/front.py``: iALS with 128 dimensions in float32, seed 0, and
every way returns the ten best of the whole catalogue for one user. Each way differs from the one
before it in one thing:

- "predict": ``keras.Model.predict`` of a dot-product model over all items;
- "product": the framework is gone: one matrix product in NumPy, and ``argpartition``;
- "search": the same tables in :class:`recsys_lib.serving.TopKIndex` ("int8"), which is exact.

The third ratio, of compressed tables to these in the same search, is in ``front.csv``. All ways
take turns, one thread of BLAS; a run is a process of its own, since a ratio moves more from process
to process than from round to round. "framework" is the ratio of the fastest calls, since `predict`
has threads of its own and a busy machine makes its median several times longer.

``python benchmarks/speed.py`` writes ``benchmarks/results/speed.csv``.
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd
from front import DATA, DIM, FOLDER, load, teacher_settings
from machine import machine_line
from threadpoolctl import threadpool_limits

from recsys_lib.models import IALS, RatingModelConfig, build_rating_model
from recsys_lib.serving import TopKIndex, compare_latency

RESULTS = FOLDER / "speed.csv"


def ten_best(scores: Any) -> Any:
    top = np.argpartition(scores, -10)[-10:]
    return top[np.argsort(-scores[top])]


def measure(name: str) -> dict[str, Any]:
    """Return medians and ratios; of the search with the 10th and 90th percentile over rounds."""
    split = load(name)
    model = IALS(DIM, **teacher_settings(name)[1], seed=0).fit(split.train)
    users, items = model.user_vectors, model.item_vectors
    config = RatingModelConfig("dot_product", len(users), len(items), DIM)
    keras_model = build_rating_model(config)
    keras_model.set_weights([users, items])
    index, everything, turn = TopKIndex(items, "int8"), np.arange(len(items)), iter(range(10**9))
    order = np.random.default_rng(0).permutation(len(users))

    def someone() -> int:
        return int(order[next(turn) % len(order)])

    def predict() -> Any:
        pairs = [np.full(len(items), someone()), everything]
        return ten_best(keras_model.predict(pairs, batch_size=1 << 15, verbose=0).ravel())

    ways = {
        "product": lambda: ten_best(items @ users[someone()]),
        "predict": predict,
        "search": lambda: index.search(users[someone()], k=10),
    }
    with threadpool_limits(1, user_api="blas"):
        quick = {way: ways[way] for way in ("product", "search")}
        fast = compare_latency(quick, baseline="search", rounds=30, calls_per_round=20)
        calls = {way: ways[way] for way in ("product", "predict")}
        slow = compare_latency(calls, baseline="product", rounds=10, calls_per_round=3)
    row: dict[str, Any] = {"data": name, "items": len(items)}
    best = {way: float(taken.times_us.min()) for way, taken in slow.latencies.items()}
    row |= {"framework": best["predict"] / best["product"], "predict_best_us": best["predict"]}
    low, high = fast.ratio_interval("product")
    row |= {"search": fast.ratio("product"), "search_low": low, "search_high": high}
    return row | {f"{way}_us": taken.p50_us for way, taken in fast.latencies.items()}


def main() -> int:
    """Run once with ``--run``, else three times, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=int)
    run = parser.parse_args().run
    if run is None:
        RESULTS.unlink(missing_ok=True)
        for number in range(3):
            subprocess.run([sys.executable, __file__, "--run", str(number)], check=True)
        return 0
    known = pd.read_csv(RESULTS) if RESULTS.exists() else pd.DataFrame()
    made = {"date": datetime.date.today().isoformat(), "machine": machine_line()}
    rows = pd.DataFrame([{"run": run, **measure(name), **made} for name in DATA]).round(3)
    pd.concat([known, rows]).to_csv(RESULTS, index=False)
    print(rows.drop(columns=["date", "machine"]).to_string(index=False))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
