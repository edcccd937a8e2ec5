"""Defaults against tuned settings on seven data sets; the tuned ones are for chapters to read.

For each data set: popularity; IALS, EASE and a KerasRecommender (matrix_factorization) as they
come; the same after :func:`recsys_lib.training.tune` on held-out *training* data. Each is measured
once on the test part, all items ranked but those of the training part. Tuned means: 40 trials for
IALS over weight, l2, dimensions and sweeps; 10 for EASE over l2; a few for the Keras model (column
"trials"). EASE is tuned up to 10,000 items and fitted up to 20,000: its time grows with the cube.

Splits: as published (ncf-ml-1m, adressa-macr, citeulike-derrd); the last item of each user by time
(ml-100k, ml-latest-small, online-retail); a fifth of the rows at random (lastfm-hetrec2011-2k, no
times there).

``python benchmarks/defaults.py`` adds rows to ``benchmarks/results/defaults.csv``, or replaces
them; ``--data`` and ``--model`` measure some of them.
"""

from __future__ import annotations

import argparse
import datetime
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pandas as pd
from machine import machine_line

from recsys_lib.data import DATASETS, Split, load_dataset, load_split
from recsys_lib.evaluation import evaluate_full_ranking
from recsys_lib.models import EASE, IALS, Popularity, RatingModelConfig, Recommender
from recsys_lib.training import KerasRecommender, tune

RESULTS = Path(__file__).parent / "results" / "defaults.csv"
NAMES = (
    *("ncf-ml-1m", "ml-100k", "ml-latest-small", "online-retail"),
    *("adressa-macr", "lastfm-hetrec2011-2k", "citeulike-derrd"),
)
TRIALS = {"IALS": 40, "EASE": 10, "KerasRecommender": 4}
BUDGET_S = 240.0  # of the Keras model: what has begun is finished
MOST_ITEMS_FOR_EASE = {"default": 20_000, "tuned": 10_000}


def split_of(name: str) -> Split:
    """Return the split of a data set that these rows are about."""
    if DATASETS[name].num_splits and name != "ml-100k":
        return load_split(name, progress=False)
    data = load_dataset(name, progress=False)
    if data.timestamps is None:
        return Split(*data.split_random(0.2, seed=0), name=name)
    return Split(*data.split_leave_one_out(), name=name)


def measure(
    name: str, split: Split, kinds: list[str], tuned: bool = True
) -> Iterator[dict[str, Any]]:
    """Fit, tune and judge; one row for each model."""
    config = RatingModelConfig("matrix_factorization", split.num_users, split.num_items)
    makers: dict[str, Callable[[], Any]] = {
        "Popularity": Popularity,
        "IALS": IALS,
        "EASE": EASE,
        "KerasRecommender": lambda: KerasRecommender(config, progress=False),
    }
    for kind in kinds:
        started = time.perf_counter()
        if kind == "EASE" and split.num_items > MOST_ITEMS_FOR_EASE["default"]:
            continue
        model = makers[kind]().fit(split.train)
        row = {"data": name, "model": kind}
        yield row | {"settings": "default"} | used(model) | judged(model, split, started)
        if (
            not tuned
            or kind == "Popularity"
            or (kind == "EASE" and split.num_items > MOST_ITEMS_FOR_EASE["tuned"])
        ):
            continue
        started = time.perf_counter()
        start: Any = makers[kind]() if kind == "KerasRecommender" else makers[kind]
        found = tune(
            start,
            split.train,
            trials=TRIALS[kind],
            budget_s=BUDGET_S if kind == "KerasRecommender" else None,
            most_users=2000,
            progress=False,
        )
        held = {
            "held_out_ndcg": round(found.ndcg, 5),
            "held_out_ndcg_default": round(found.default_ndcg, 5),
            "held_out_ndcg_popularity": round(found.popularity_ndcg, 5),
            "trials": len(found.trials),
        }
        chosen = used(found.model) | {
            key: float(f"{value:.4g}") for key, value in found.settings.items()
        }
        yield row | {"settings": "tuned"} | chosen | held | judged(found.model, split, started)


def used(model: Recommender) -> dict[str, Any]:
    """Return the settings of a fitted model as numbers."""
    if isinstance(model, IALS):
        how = model.how_to_fold_in
        assert how is not None
        weights = {"l2": how.l2, "unobserved_weight": how.unobserved_weight}
        weights = {key: float(f"{value:.4g}") for key, value in weights.items()}
        return weights | {"embedding_dim": model.embedding_dim, "epochs": model.epochs}
    if isinstance(model, KerasRecommender):
        assert model.history is not None
        return {"embedding_dim": model.config.embedding_dim, "epochs": model.history.best_epoch}
    return {"l2": model.l2} if isinstance(model, EASE) else {}


def judged(model: Recommender, split: Split, started: float) -> dict[str, Any]:
    """Return quality on the test part; seconds are those of fit, or of the whole search."""
    seconds = time.perf_counter() - started
    ndcg = evaluate_full_ranking(model, split.train, split.test, k=10).ndcg
    recall = evaluate_full_ranking(model, split.train, split.test, k=20).recall
    return {"ndcg": round(ndcg, 5), "recall_20": round(recall, 5), "seconds": round(seconds, 1)}


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", nargs="*", default=NAMES, choices=NAMES)
    kinds = ["Popularity", "IALS", "EASE", "KerasRecommender"]
    parser.add_argument("--model", nargs="*", default=kinds, choices=kinds)
    parser.add_argument("--settings", nargs="*", default=("default", "tuned"))
    options = parser.parse_args()
    warnings.simplefilter("always", UserWarning)
    for name in options.data:
        for row in measure(name, split_of(name), options.model, "tuned" in options.settings):
            print(row, flush=True)
            noted = {"date": datetime.date.today().isoformat(), "machine": machine_line()}
            frame = pd.DataFrame([row | noted])
            if RESULTS.exists():
                old = pd.read_csv(RESULTS)
                keys = ["data", "model", "settings"]
                same = (old[keys] == [row[key] for key in keys]).all(axis=1)
                frame = pd.concat([old[~same], frame], ignore_index=True)
            order = frame["data"].map(NAMES.index) * 100 + frame["model"].map(kinds.index) * 10
            order += frame["settings"] == "tuned"
            frame.iloc[order.argsort(kind="stable")].to_csv(RESULTS, index=False)


if __name__ == "__main__":
    main()
