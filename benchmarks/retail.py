"""Settings of the models of chapter 21, each the best of its trials on held-out training data.

Two tasks on Online Retail: the next basket of a known customer, and the rest of a basket. No test
row takes part. Prints one table and, with ``--store``, writes it to ``results/retail.csv``.

Usage: retail.py [--store] [--trials N]
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
from machine import machine_line

from recsys_lib.data import clean_retail, load_frame, split_basket_completion, split_next_basket
from recsys_lib.models import EASE, IALS
from recsys_lib.training import tune

RESULTS = Path(__file__).parent / "results" / "retail.csv"
SPACE = {
    "embedding_dim": (48, 128),
    "epochs": (6, 20),
    "l2": (1e-4, 0.05),
    "unobserved_weight": (0.005, 0.5),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", action="store_true")
    parser.add_argument("--trials", type=int, default=40)
    options = parser.parse_args()
    lines, _ = clean_retail(load_frame())
    past, _ = split_basket_completion(lines)
    tasks = {
        "next basket": split_next_basket(lines).train,
        "rest of a basket": replace(past, timestamps=None),  # nothing in a basket is first
    }
    rows = []
    for task, train in tasks.items():
        for model, space, trials in (
            (IALS, SPACE, options.trials),
            (EASE, {"l2": (10.0, 3000.0)}, max(1, options.trials // 4)),
        ):
            begun = time.perf_counter()
            found = tune(model, train, space=space, trials=trials, budget_s=3600, progress=False)
            rows.append(
                {
                    "task": task,
                    "model": model.__name__,
                    "settings": json.dumps(found.settings),
                    "held_out_ndcg": round(found.ndcg, 5),
                    "held_out_ndcg_default": round(found.default_ndcg, 5),
                    "trials": len(found.trials),
                    "seconds": round(time.perf_counter() - begun),
                    "date": datetime.date.today().isoformat(),
                    "machine": machine_line(),
                }
            )
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    print(table.drop(columns="machine").to_string(index=False))
    if options.store:
        table.to_csv(RESULTS, index=False)


if __name__ == "__main__":
    main()
