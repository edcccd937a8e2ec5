"""A search and a rate-distortion training at 30,000 users and 40,000 items: time and peak memory.

Nothing of the size is real: tastes of 32 topics times a power law of popularity, 30 items a user,
one of them held out. So the figures are those of time and memory, and not of quality. Each part
runs in a process of its own, since what is asked for is the peak of a process. It includes the
imports, the data and the model.

``python benchmarks/large_search.py`` writes ``benchmarks/results/large_search.csv``.
"""

from __future__ import annotations

import argparse
import datetime
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from machine import machine_line

from recsys_lib.compression.quantization import RateDistortion, quantize
from recsys_lib.data import Interactions, Split
from recsys_lib.models import IALS
from recsys_lib.recipe import search_recipe

RESULTS = Path(__file__).parent / "results" / "large_search.csv"
PARTS = ("fit alone", "search, self-contained", "search, items", "rate-distortion")


def make_data(num_users: int, num_items: int, met: int = 30, topics: int = 32) -> Split:
    """Draw items for users, 500 users at a time (Gumbel top-k), and hold one of each out."""
    rng = np.random.default_rng(0)
    items = rng.normal(size=(num_items, topics)).astype(np.float32)
    popularity = -0.8 * np.log1p(rng.permutation(num_items)).astype(np.float32)
    chosen = []
    for first in range(0, num_users, 500):
        tastes = rng.normal(size=(min(500, num_users - first), topics)).astype(np.float32)
        scores = 0.8 * tastes @ items.T + popularity
        scores += rng.gumbel(size=scores.shape).astype(np.float32)
        chosen.append(np.argpartition(-scores, met, axis=1)[:, :met].copy())
    ids = np.repeat(np.arange(num_users), met)
    data = Interactions(ids, np.concatenate(chosen).ravel(), num_users=num_users,
                        num_items=num_items, name="made up", is_synthetic=True)  # fmt: skip
    return Split(*data.split_leave_one_out(), name="made up")


def measure(part: str, num_users: int, num_items: int, dim: int) -> dict[str, Any]:
    """Run one part in this process."""
    split = make_data(num_users, num_items)
    model = IALS(embedding_dim=dim, epochs=6, unobserved_weight=0.01).fit(split.train)
    begun, found = time.perf_counter(), ""
    if part.startswith("search"):
        account = "items" if part.endswith("items") else "self-contained"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = search_recipe(model, split, timer=None, account=account, progress=False)
        found = repr(result)
    elif part == "rate-distortion":
        found = repr(quantize(model, RateDistortion(), train=split.train).report)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"part": part, "users": num_users, "items": num_items, "dim": dim,
            "seconds": round(time.perf_counter() - begun), "peak_mb": round(kilobytes / 1024),
            "found": found}  # fmt: skip


def main() -> None:
    """Measure the parts one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--users", type=int, default=30_000)
    parser.add_argument("--items", type=int, default=40_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--part", choices=PARTS)
    options = parser.parse_args()
    if options.part is None:
        for part in PARTS:
            subprocess.run([sys.executable, *sys.argv, "--part", part], check=True)
        return
    found = measure(options.part, options.users, options.items, options.dim)
    print(found, flush=True)
    row = found | {"date": datetime.date.today().isoformat(), "machine": machine_line()}
    frame = pd.DataFrame([row])
    if RESULTS.exists():
        old = pd.read_csv(RESULTS, keep_default_na=False)
        key = ["part", "users", "items", "dim"]
        same = (old[key] == [row[name] for name in key]).all(axis=1)
        frame = pd.concat([old[~same], frame])
    frame.to_csv(RESULTS, index=False)


if __name__ == "__main__":
    main()
