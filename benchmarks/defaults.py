"""Defaults against tuned settings on seven data sets; the tuned ones are for chapters to read.

For each data set: popularity; IALS, EASE and a KerasRecommender (matrix_factorization) as they
come; the same after :func:`recsys_lib.training.tune` on held-out *training* data. Each is measured
once on the test part, all items ranked but those of the training part; the Keras model is the mean
of three seeds ("seeds"), with one search. Tuned means: 40 trials for
IALS over weight, l2, dimensions and sweeps; 10 for EASE over l2; 40 for the Keras model over l2,
dimensions, learning rate and negatives, some of them given up halfway ("given_up": they were below
the median of the others after as many epochs). A smaller number in the column "trials" is that of a
search that was cut short, and no row means that none was made. The Keras model's search sees the
rows of some users, drawn at random, where there are more than 400,000 ("search_rows"); what it
found is fitted to all.

EASE is tuned up to 10,000 items and fitted up to 20,000 (citeulike-derrd has 25,182), since its
time grows with the cube. Seconds of the Keras model's defaults are those of a quiet machine, all
others were measured beside other work: most of the 185 s that a default fit was once noted with on
ml-latest-small, which takes 7 s, were waiting.

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
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd
from machine import machine_line

from recsys_lib.data import DATASETS, Interactions, Split, load_dataset, load_split
from recsys_lib.evaluation import evaluate_full_ranking
from recsys_lib.models import EASE, IALS, Popularity, RatingModelConfig, Recommender
from recsys_lib.training import KerasRecommender, tune
from recsys_lib.training.tune import with_settings

RESULTS = Path(__file__).parent / "results" / "defaults.csv"
NAMES = (
    *("ncf-ml-1m", "ml-100k", "ml-latest-small", "online-retail"),
    *("adressa-macr", "lastfm-hetrec2011-2k", "citeulike-derrd"),
)
TRIALS = {"IALS": 40, "EASE": 10, "KerasRecommender": 40}
MORE_SEEDS = (1, 2)  # after that of the defaults, 0
MOST_ROWS = 400_000  # that the search for a Keras model sees: those of some users
MOST_ITEMS_FOR_EASE = {"default": 20_000, "tuned": 10_000}


def split_of(name: str) -> Split:
    """Return the split of a data set that these rows are about."""
    if DATASETS[name].num_splits and name != "ml-100k":
        return load_split(name, progress=False)
    data = load_dataset(name, progress=False)
    if data.timestamps is None:
        return Split(*data.split_random(0.2, seed=0), name=name)
    return Split(*data.split_leave_one_out(), name=name)


def some_users(data: Interactions, most_rows: int) -> Interactions:
    """Return the rows of as many users, drawn at random, as have at most so many rows."""
    if len(data) <= most_rows:
        return data
    users = np.random.default_rng(0).permutation(data.num_users)
    rows = np.cumsum(np.bincount(data.user_ids, minlength=data.num_users)[users])
    return data.take(np.isin(data.user_ids, users[rows <= most_rows]))


def measure(
    name: str, split: Split, kinds: list[str], settings: Collection[str], notes: Path | None = None
) -> Iterator[dict[str, Any]]:
    """Fit, tune and judge; one row for each model."""
    config = RatingModelConfig("matrix_factorization", split.num_users, split.num_items)
    makers: dict[str, Callable[..., Any]] = {
        "Popularity": Popularity,
        "IALS": IALS,
        "EASE": EASE,
        "KerasRecommender": lambda **seed: KerasRecommender(
            replace(config, **seed), progress=False, **seed
        ),
    }
    for kind in kinds:
        started = time.perf_counter()
        if kind == "EASE" and split.num_items > MOST_ITEMS_FOR_EASE["default"]:
            continue
        keras = kind == "KerasRecommender"
        others = [makers[kind](seed=seed) for seed in MORE_SEEDS] if keras else []
        row = {"data": name, "model": kind} | ({"seeds": 1 + len(others)} if keras else {})
        if "default" in settings:
            model = makers[kind]().fit(split.train)
            seconds = time.perf_counter() - started
            models = [model, *(other.fit(split.train) for other in others)]
            yield row | {"settings": "default"} | used(model) | judged(models, split, seconds)
        if (
            "tuned" not in settings
            or kind == "Popularity"
            or (kind == "EASE" and split.num_items > MOST_ITEMS_FOR_EASE["tuned"])
        ):
            continue
        started = time.perf_counter()
        start: Any = makers[kind]() if keras else makers[kind]
        seen = some_users(split.train, MOST_ROWS) if keras else split.train
        path = None if notes is None else notes / f"{name} {kind}"
        found = tune(start, seen, trials=TRIALS[kind], most_users=2000, path=path, progress=False)
        model = found.model
        if seen is not split.train:
            model = with_settings(start, found.settings).fit(split.train)
        seconds = time.perf_counter() - started
        models = [model, *(with_settings(x, found.settings).fit(split.train) for x in others)]
        held = {
            "held_out_ndcg": round(found.ndcg, 5),
            "held_out_ndcg_default": round(found.default_ndcg, 5),
            "held_out_ndcg_popularity": round(found.popularity_ndcg, 5),
            "trials": len(found.trials),
            "given_up": int(found.trials["ndcg"].isna().sum()),
            "search_rows": len(seen),
        }
        chosen = used(model) | {key: float(f"{value:.4g}") for key, value in found.settings.items()}
        yield row | {"settings": "tuned"} | chosen | held | judged(models, split, seconds)


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


def judged(models: list[Recommender], split: Split, seconds: float) -> dict[str, Any]:
    """Return the mean quality on the test part, and the time of one fit or of the whole search."""
    on = split.train, split.test
    ndcg = np.mean([evaluate_full_ranking(model, *on, k=10).ndcg for model in models])
    recall = np.mean([evaluate_full_ranking(model, *on, k=20).recall for model in models])
    return {"ndcg": round(ndcg, 5), "recall_20": round(recall, 5), "seconds": round(seconds, 1)}


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", nargs="*", default=NAMES, choices=NAMES)
    kinds = ["Popularity", "IALS", "EASE", "KerasRecommender"]
    parser.add_argument("--model", nargs="*", default=kinds, choices=kinds)
    parser.add_argument("--settings", nargs="*", default=("default", "tuned"))
    parser.add_argument("--notes", type=Path, help="folder in which a search goes on")
    options = parser.parse_args()
    warnings.simplefilter("always", UserWarning)
    for name in options.data:
        rows = measure(name, split_of(name), options.model, options.settings, options.notes)
        for row in rows:
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
