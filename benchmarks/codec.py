"""Quality against bytes of stored factor tables, for two accounts, down to a 64th and beyond.

The model is iALS with 192 dimensions on ncf-ml-1m, 7.5 MB in float32; NDCG@10 is leave-one-out
against 99 negatives, and its loss is relative to that model, with a 95 % interval from the
differences of single users. Bytes are all that is stored: streams, counts, levels, steps, headers.

- account "self-contained": both tables are stored, with all user vectors;
- account "items only": the item table is stored, and a user's vector is folded in from the items
  of the history, with the weights of iALS.

"taught" is rate-distortion with another teacher, four parts of iALS and one of EASE, both brought
to one scale on the items that a user has not met. The loss is still relative to iALS, whose tables
are stored.

Parts: "validation" holds out one training interaction of every user, fits iALS on the rest and
ranks the held-out item against 99 sampled negatives, three draws of them averaged. All settings are
chosen there: those of ``GRID``, and the ``rate_weight`` for a loss of 1 %. The test items take no
part. "test" fits on the whole training part and ranks the test items against the given negatives,
for all of ``WEIGHTS``.

``python benchmarks/codec.py --part test --seed 0`` (parts validation, test; seeds 0, 1, 2, which
are those of iALS and of the optimisation; 5 to 8 minutes each on one core) adds rows to
``benchmarks/results/codec.csv``, or replaces them; ``--summary`` prints what they say.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd
from machine import machine_line
from teachers import model_and_ease

from recsys_lib.compression import CompressedModel
from recsys_lib.compression.quantization import RateDistortion, TransformCoding, quantize
from recsys_lib.data import Interactions, Split, load_split, sample_negatives
from recsys_lib.evaluation import evaluate_leave_one_out
from recsys_lib.models import IALS

RESULTS = Path(__file__).parent / "results" / "codec.csv"
DIM = 192
ERRORS = (0.1, 0.16, 0.24, 0.36, 0.5, 0.7)  # of transform coding
WEIGHTS = (5e-5, 3e-5, 1e-4, 3e-4)
ITEM_WEIGHTS = (1e-3, 3e-3)
GRID: tuple[dict[str, Any], ...] = (
    {"embedding_dim": 64},
    {"embedding_dim": 96},
    {"sharpness": 0.6},
    {"sharpness": 1.0},
)


class Vectors:
    """Scores every pair once; the protocol then only picks."""

    def __init__(self, user_vectors: Any, item_vectors: Any) -> None:
        self.all_scores = user_vectors @ item_vectors.T

    def score(self, user_ids: Any, item_ids: Any) -> Any:
        """Pick."""
        return self.all_scores[user_ids, item_ids]


def splits_of(part: str, seed: int) -> list[Split]:
    """Give the same training and test part with one or several draws of negatives."""
    split = load_split("ncf-ml-1m")
    if part == "test":
        return [split]
    train, held = split.train.split_leave_one_out(seed=seed)
    return [
        Split(train, held, sample_negatives(train, held, 99, seed=100 * seed + draw), name="held")
        for draw in range(3)
    ]


def fold_in(model: IALS, train: Interactions) -> Any:
    """Solve for all users from the items of a model and their histories."""
    order = np.argsort(train.user_ids, kind="stable")
    ends = np.cumsum(np.bincount(train.user_ids, minlength=train.num_users))[:-1]
    return model.fold_in(np.split(train.item_ids[order], ends))


def measure(part: str, seed: int) -> pd.DataFrame:
    """Fit, store in many ways and rank; one row for each way and account."""
    splits = splits_of(part, seed)
    train = splits[0].train
    model = IALS(embedding_dim=DIM, seed=seed, l2=0.007, unobserved_weight=0.3).fit(train)

    def judge(scorer: Any) -> tuple[Any, float]:
        results = [evaluate_leave_one_out(scorer, split) for split in splits]
        hits = float(np.mean([result.hit_rate for result in results]))
        return np.mean([result.ndcg_per_user for result in results], axis=0), hits

    whole = 4 * (model.user_vectors.size + model.item_vectors.size)
    before = judge(Vectors(model.user_vectors, model.item_vectors))[0]
    rows: list[dict[str, Any]] = []

    def note(account: str, way: str, size: int, scorer: Any, **more: Any) -> None:
        ndcg, hits = judge(scorer)
        away = before - ndcg
        rows.append({
            "part": part, "seed": seed, "account": account, "way": way, **more, "bytes": size,
            "times_smaller": round(whole / size, 2), "ndcg": round(float(ndcg.mean()), 5),
            "hit_rate": round(hits, 5),
            "loss_percent": round(float(100 * away.mean() / before.mean()), 3),
            "interval": round(float(196 * away.std() / len(away) ** 0.5 / before.mean()), 3),
        })  # fmt: skip
        print(rows[-1], flush=True)

    def note_both(way: str, stored: CompressedModel, **more: Any) -> None:
        new, items = stored.model, stored.tensors["item_vectors"]
        if more.get("users") != "float":
            whole_file = Vectors(new.user_vectors, new.item_vectors)
            note("self-contained", way, stored.nbytes, whole_file, **more)
        folded = Vectors(fold_in(new, train), new.item_vectors)
        note("items only", way, items.nbytes, folded, **more)

    note("self-contained", "float32", whole, Vectors(model.user_vectors, model.item_vectors))
    alone = Vectors(fold_in(copy.copy(model), train), model.item_vectors)
    note("items only", "float32", 4 * model.item_vectors.size, alone)
    for error in ERRORS:
        note_both("transform", quantize(model, TransformCoding(error)), setting=error)
    both = model_and_ease(model, train)
    note("self-contained", "float32, iALS and EASE", whole + 4 * train.num_items**2, both)
    tries: list[dict[str, Any]] = [{"rate_weight": weight} for weight in WEIGHTS]
    tries += [{"rate_weight": weight, "users": "float"} for weight in ITEM_WEIGHTS]
    tries += [{"rate_weight": weight, "teacher": both} for weight in WEIGHTS[:3]]
    if part == "validation":
        tries += [{"rate_weight": 5e-5, "teacher": both, **more} for more in GRID]
    for settings in tries:
        teacher = settings.pop("teacher", None)
        config = RateDistortion(seed=seed, **settings)
        started = time.perf_counter()
        stored = quantize(model, config, train=train, teacher=teacher)
        names = ("rate_weight", "embedding_dim", "sharpness", "users")
        more = {name: getattr(config, name) for name in names}
        way = "rate-distortion" if teacher is None else "rate-distortion, taught"
        note_both(way, stored, seconds=round(time.perf_counter() - started), **more)
    return pd.DataFrame(rows)


def store(frame: pd.DataFrame, command: str) -> None:
    """Replace the rows of the same part and seed."""
    frame = frame.assign(date=datetime.date.today(), machine=machine_line(), command=command)
    if RESULTS.exists():
        old = pd.read_csv(RESULTS)
        same = old["part"].isin(frame["part"]) & old["seed"].isin(frame["seed"])
        frame = pd.concat([old[~same], frame], ignore_index=True)
    order = ["part", "account", "way", "seed", "bytes"]
    frame.sort_values(order, kind="stable").to_csv(RESULTS, index=False)


def at_one_percent(frame: pd.DataFrame) -> float:
    """Times smaller at a loss of 1 %, between the two settings around it; NaN without them."""
    frame = frame.sort_values("times_smaller")
    loss = np.maximum.accumulate(frame["loss_percent"].to_numpy())
    logs = np.log(frame["times_smaller"].to_numpy())
    return float(np.exp(np.interp(1.0, loss, logs, left=np.nan, right=np.nan)))


def summary() -> None:
    """Print the curve of the default settings, and where it crosses 1 %."""
    frame = pd.read_csv(RESULTS)
    usual = (frame["embedding_dim"].isna() | (frame["embedding_dim"] == 80)) & (
        frame["sharpness"].isna() | (frame["sharpness"] == 0.8)
    )
    shown = frame[usual & ~frame["way"].str.startswith("float32")].copy()
    keys = ["part", "account", "way", "users"]
    shown["users"] = shown["users"].fillna("coded")
    shown["dial"] = shown["setting"].fillna(shown["rate_weight"])
    curve = shown.groupby([*keys, "dial"])[["bytes", "times_smaller", "loss_percent"]]
    print(curve.agg(["mean", "std"]).round(2).to_string())
    crossing = {
        key: [at_one_percent(part) for _, part in group.groupby("seed")]
        for key, group in shown.groupby(keys)
    }
    print("\ntimes smaller at a loss of 1 %, by seed:")
    for key, values in crossing.items():
        print("  ", *key, [round(value, 1) for value in values])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--part", choices=("validation", "test"), default="test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--summary", action="store_true", help="print what is stored")
    options = parser.parse_args()
    if not options.summary:
        command = f"python benchmarks/codec.py --part {options.part} --seed {options.seed}"
        store(measure(options.part, options.seed), command)
    else:
        summary()


if __name__ == "__main__":
    main()
