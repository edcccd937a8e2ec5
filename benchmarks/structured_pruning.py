"""Prune a large ranker or train a small one? Both at the same widths, so at the same latency.

For each seed, a NeuMF (16 dimensions, hidden layers 64-32-16) is trained on ncf-ml-1m for
``EPOCHS`` epochs. Its hidden layers are then cut to a fraction of their neurons by each measure of
importance, and trained on for ``MORE`` epochs at a lower learning rate. Against that, a model of
the small widths is trained from the start: for as many epochs in all, with the same learning rates
in the same order; and then on to ``SAME_TIME`` epochs, which take it as long as the large model's
epochs and its own last ones together. (These were measured once, on two quiet cores: an epoch of
the widths 64-32-16, 16-8-4 and 8-4-2 took 3.1, 2.1 and 1.6 seconds. A busy machine would decide
otherwise from run to run.) NDCG@10 and HR@10 are leave-one-out against the 99 given negatives.

``--part dimensions`` does the same for the embedding dimensions of iALS.

Run: ``python benchmarks/structured_pruning.py --seed 0`` (and 1, 2; each about three minutes on two
quiet cores). Every result is added to ``benchmarks/results/structured_pruning.csv`` at once, and
one that is there already is not computed again.
"""

from __future__ import annotations

import argparse
import datetime
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pandas as pd
from machine import machine_line

from recsys_lib.compression.pruning import (
    DimensionReduction,
    NeuronPruning,
    neuron_importance,
    prune,
    remove_neurons,
)
from recsys_lib.data import Split, load_split
from recsys_lib.evaluation import RankingResult, evaluate_leave_one_out
from recsys_lib.models import IALS, RatingModelConfig, build_rating_model
from recsys_lib.training import KerasScorer, fit

RESULTS = Path(__file__).parent / "results" / "structured_pruning.csv"
EPOCHS, MORE = 6, 3
RATE, LATER_RATE = 0.005, 0.002
UNITS = (64, 32, 16)
SAME_TIME = {"32-16-8": 10, "16-8-4": 12, "8-4-2": 16}
WAYS = ("taylor", "taylor, refit", "magnitude", "random")
DIMS = (8, 16, 32, 64, 128)


class Results:
    """The rows of the file of results; those of other runs stay."""

    def __init__(self, part: str, seed: int, store: bool) -> None:
        self.part, self.seed, self.store = part, seed, store

    def frame(self) -> pd.DataFrame:
        """All rows of the part."""
        if not RESULTS.exists():
            return pd.DataFrame(columns=["part", "seed", "way", "size"])
        rows = pd.read_csv(RESULTS, dtype={"size": str})
        return rows[rows["part"] == self.part]

    def missing(self, way: str, size: str) -> bool:
        """Whether this has still to be computed."""
        rows = self.frame()
        same = (rows["seed"] == self.seed) & (rows["way"] == way) & (rows["size"] == size)
        return not same.any()

    def add(self, way: str, size: str, epochs: int, result: RankingResult) -> None:
        """Print a row, and store it unless it is there or the data are synthetic."""
        row: dict[str, Any] = {"part": self.part, "seed": self.seed, "way": way, "size": size}
        row |= {"epochs": epochs, "ndcg": round(result.ndcg, 5)}
        row |= {"hit_rate": round(result.hit_rate, 5)}
        print(row, flush=True)
        if self.store and self.missing(way, size):
            row |= {"date": datetime.date.today().isoformat(), "machine": machine_line()}
            RESULTS.parent.mkdir(exist_ok=True)
            new = not RESULTS.exists()
            pd.DataFrame([row]).to_csv(RESULTS, mode="a", header=new, index=False)


def neurons(split: Split, seed: int, fractions: list[float], results: Results) -> None:
    counts = {"num_users": split.num_users, "num_items": split.num_items}

    def new(units: tuple[int, ...]) -> Any:
        return build_rating_model(
            RatingModelConfig(
                "neumf", embedding_dim=16, hidden_units=units, init_std=0.05, seed=seed, **counts
            )
        )

    def train(model: Any, epochs: int, rate: float, done: int) -> None:
        fit(
            model,
            split.train,
            epochs=epochs,
            optimizer=keras.optimizers.Adam(rate),
            batch_size=8192,
            seed=seed + 1000 * done,  # another order in each stage
            progress=False,
        )

    def note(way: str, size: str, epochs: int, model: Any) -> None:
        results.add(way, size, epochs, evaluate_leave_one_out(KerasScorer(model), split))

    total = EPOCHS + MORE
    whole = "-".join(map(str, UNITS))

    @cache
    def large() -> Any:  # trained when the first row needs it
        model = new(UNITS)
        train(model, EPOCHS, RATE, 0)
        note("large", whole, EPOCHS, model)
        return model

    for fraction in fractions:
        units = tuple(width - round(fraction * width) for width in UNITS)
        size = "-".join(map(str, units))
        for way in WAYS:
            if not results.missing(way, size):
                continue
            pruned = _pruned(large(), way, fraction, split, seed)
            note(f"{way}, not trained on", size, EPOCHS, pruned)
            train(pruned, MORE, LATER_RATE, EPOCHS)
            note(way, size, total, pruned)
        if results.missing("scratch, same time", size):
            small = new(units)
            train(small, EPOCHS, RATE, 0)
            train(small, MORE, LATER_RATE, EPOCHS)
            note("scratch, same epochs", size, total, small)
            train(small, SAME_TIME[size] - total, LATER_RATE, total)
            note("scratch, same time", size, SAME_TIME[size], small)
    if results.missing("large, trained on", whole):
        train(large(), MORE, LATER_RATE, EPOCHS)
        note("large, trained on", whole, total, large())


def _pruned(model: Any, way: str, sparsity: float, split: Split, seed: int) -> Any:
    if way != "random":
        refit = way.endswith("refit")
        choice = NeuronPruning(sparsity, way.split(",")[0], refit=refit, seed=seed)
        return prune(model, choice, split.train).model
    random = np.random.default_rng(seed)
    widths = {name: len(v) for name, v in neuron_importance(model, "magnitude").items()}
    return remove_neurons(
        model, {name: random.permutation(w)[: round(sparsity * w)] for name, w in widths.items()}
    ).model


def dimensions(split: Split, seed: int, _: list[float], results: Results) -> None:
    def note(way: str, width: int, model: Any) -> None:
        results.add(way, str(width), 12, evaluate_leave_one_out(model, split))

    large = IALS(192, epochs=12, seed=seed, l2=0.007, unobserved_weight=0.3).fit(split.train)
    note("trained at this size", 192, large)
    for width in DIMS:
        for axes in ("principal", "given"):
            cut = prune(large, DimensionReduction(width, axes)).model
            note(f"cut, {axes} axes", width, cut)
        if results.missing("trained at this size", str(width)):
            note(
                "trained at this size",
                width,
                IALS(width, epochs=12, seed=seed, l2=0.007, unobserved_weight=0.3).fit(split.train),
            )


PARTS: dict[str, Callable[[Split, int, list[float], Results], None]] = {
    "neurons": neurons,
    "dimensions": dimensions,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", choices=PARTS, default="neurons")
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.75, 0.875])
    parser.add_argument("--fallback", choices=["synthetic"], default=None)
    arguments = parser.parse_args()
    split = load_split("ncf-ml-1m", fallback=arguments.fallback)
    results = Results(arguments.part, arguments.seed, store=not split.is_synthetic)
    PARTS[arguments.part](split, arguments.seed, arguments.sparsity, results)
    print(results.frame().groupby(["size", "way"])["ndcg"].agg(["mean", "sem", "count"]).round(4))


if __name__ == "__main__":
    main()
