"""What quantization-aware training wins back: NDCG@10 against bits, of the ranker on ncf-ml-1m.

For each seed a NeuMF (16 dimensions, hidden layers 64-32-16) is trained for ``EPOCHS`` epochs. Its
tables and kernels are then rounded to 8, 6, 5, 4, 3 and 2 bits, with 8 bits for what lies between
the layers: after training, to the nearest step, with the range of the weights ("minmax") or with
the range of least squared error ("mse"); and with ``MORE`` epochs of quantization-aware training
from there (at the widths of ``AWARE_BITS``), with a learning rate that falls to 0. Against that,
the float model is trained for as many epochs more, with the same learning rates and the same order
of the data. Each QAT model is also
converted to integers, which are evaluated by themselves. NDCG@10 and HR@10 are leave-one-out
against the 99 given negatives.

``python benchmarks/qat.py --seed 0`` (and 1, 2; each about four minutes on two quiet cores) adds
rows to ``benchmarks/results/qat.csv``, or replaces them; ``python benchmarks/qat.py --summary``
prints what they say. How many epochs are enough, and with which learning rate, was asked of
other users: ``--part validation`` hides the last training interaction of each user as well, draws
99 negatives for it, and tries ``TRIED`` at the one width ``TRIED_BITS``.
"""

from __future__ import annotations

import argparse
import datetime
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pandas as pd
from machine import machine_line

from recsys_lib.compression import with_weights
from recsys_lib.compression.quantization import IntegerQuantization, convert, quantization_aware
from recsys_lib.data import Split, load_split, sample_negatives
from recsys_lib.evaluation import evaluate_leave_one_out
from recsys_lib.models import RatingModelConfig, build_rating_model
from recsys_lib.training import KerasScorer, fit

RESULTS = Path(__file__).parent / "results" / "qat.csv"
EPOCHS, MORE = 6, 6
RATE, LATER_RATE, BATCH = 0.005, 0.002, 8192
BITS, AWARE_BITS = (8, 6, 5, 4, 3, 2), (4, 3, 2)
TRIED, TRIED_BITS = ((3, 0.002), (6, 0.002), (6, 0.004)), 3  # epochs more, learning rate
SCALE_RATE = 3.0
LOSS, RECOVERED = 0.03, 0.8  # of the claim


def hold_out(split: Split) -> Split:
    """Give a split that judges by the last training interaction of each user."""
    train, held = split.train.split_leave_one_out()
    return Split(train, held, sample_negatives(train, held, seed=1))


def measure(seed: int, part: str = "test") -> pd.DataFrame:
    """Train, round and train on; one row for each model."""
    split = load_split("ncf-ml-1m")
    split = hold_out(split) if part == "validation" else split
    train = split.train
    rows: list[dict[str, Any]] = []

    def note(way: str, bits: int, model: Any, more: int = 0, rate: float = 0.0) -> None:
        scorer = KerasScorer(model) if isinstance(model, keras.Model) else model
        result = evaluate_leave_one_out(scorer, split, k=10)
        size = "" if isinstance(model, keras.Model) else model.nbytes
        rows.append({"part": part, "seed": seed, "way": way, "bits": bits, "more": more,
                     "rate": rate, "ndcg": round(result.ndcg, 5),
                     "hit_rate": round(result.hit_rate, 5), "bytes": size})  # fmt: skip
        print(rows[-1], flush=True)

    def train_on(model: Any, more: int, rate: float) -> Any:
        steps = more * -(-len(train) // BATCH)
        optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps))
        fit(model, train, epochs=more, batch_size=BATCH, optimizer=optimizer, seed=seed + 100,
            progress=False)  # fmt: skip
        return model

    config = RatingModelConfig("neumf", train.num_users, train.num_items, 16, (64, 32, 16),
                               init_std=0.05, seed=seed)  # fmt: skip
    model = build_rating_model(config)
    fit(model, train, epochs=EPOCHS, optimizer=keras.optimizers.Adam(RATE), seed=seed,
        progress=False)  # fmt: skip
    note("float", 32, model)
    tests = part == "test"
    settings = ((MORE, LATER_RATE),) if tests else TRIED
    for setting in settings:
        note("float, trained on", 32, train_on(with_weights(model, {}), *setting), *setting)
    for bits in BITS if tests else (TRIED_BITS,):
        for search in ("minmax", "mse"):
            choices = IntegerQuantization(bits, scale_search=search, scale_rate=SCALE_RATE)
            note(f"rounded, {search}", bits, quantization_aware(model, choices, train))
        for setting in settings if bits in AWARE_BITS else ():
            aware = train_on(quantization_aware(model, choices, train), *setting)
            note("quantization-aware", bits, aware, *setting)
            if tests:
                note("quantization-aware, integers", bits, convert(aware), *setting)
    return pd.DataFrame(rows)


def summarize(rows: pd.DataFrame) -> pd.DataFrame:
    """Give the share of the loss that QAT wins back, at the width where it first exceeds 3 %."""
    table = rows.pivot_table(index="seed", columns=["way", "bits"], values="ndcg")
    result = {}
    for search in ("minmax", "mse"):
        rounded = table[f"rounded, {search}"]
        lost = 1 - rounded.div(table[("float", 32)], axis=0)
        bits = max(bits for bits in BITS if lost[bits].mean() > LOSS)
        aware = table[("quantization-aware", bits)]
        for goal in ("float", "float, trained on"):
            share = (aware - rounded[bits]) / (table[(goal, 32)] - rounded[bits])
            result[f"rounded, {search}; against {goal}"] = {
                "bits": bits,
                "lost": lost[bits].mean(),
                "recovered": share.mean(),
                "standard error": share.sem(),
                "holds": bool(share.mean() >= RECOVERED),
            }
    return pd.DataFrame(result).T


def main() -> None:
    """Measure one seed, or print the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", choices=("test", "validation"), default="test")
    parser.add_argument("--summary", action="store_true")
    options = parser.parse_args()
    stored = pd.read_csv(RESULTS) if RESULTS.exists() else pd.DataFrame()
    if not options.summary:
        rows = measure(options.seed, options.part)
        rows["date"] = datetime.date.today().isoformat()
        rows["machine"] = machine_line()
        rows["command"] = f"python benchmarks/qat.py --part {options.part} --seed {options.seed}"
        stored = pd.read_csv(RESULTS) if RESULTS.exists() else pd.DataFrame()
        if len(stored):
            stored = stored[(stored["seed"] != options.seed) | (stored["part"] != options.part)]
        stored = pd.concat([stored, rows]).sort_values(["part", "seed"], kind="stable")
        stored.to_csv(RESULTS, index=False)
    groups = stored.groupby(["part", "way", "bits", "more", "rate"]).ndcg
    print(groups.agg(["mean", "sem", "count"]).round(4).to_string())
    if (stored["part"] == "test").any():
        print(summarize(stored[stored["part"] == "test"]).to_string())


if __name__ == "__main__":
    main()
