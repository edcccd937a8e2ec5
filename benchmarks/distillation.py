"""How much of the gap between a small student and its teacher does distillation close?

``--part citeulike``: the data and the protocol of Kang et al. (DE-RRD, CIKM 2020, table 2): leave
one out, one item against 499 sampled ones, H@5, N@5 and H@10. The 499 items of the authors are not
to be had, so they are drawn anew, five times (the same for all models), and figures are means over
the draws. A teacher with 200 dimensions and a student with 20 are trained with BPR; then the
student by RRD, by DE, and by soft labels over items drawn anew for each update. ``closed`` is the
share of the gap in H@5 between student and teacher.

``--part movielens``: ncf-ml-1m, leave-one-out against the 99 given negatives. A student with 16
dimensions is trained on the labels alone, pairwise and with the sampled softmax, and the same two
ways with soft labels of iALS beside the labels. Errors are standard errors of the mean difference
over the test users.

All settings were chosen on the validation items (citeulike) or on a training item held out of each
user's history (movielens), never on test items.

Run: ``python benchmarks/distillation.py --part citeulike --seed 0`` (and 1, 2; and the other part).
Rows of a seed that is in ``benchmarks/results/distillation.csv`` already are replaced; ``--part
summary`` prints what is there.
"""

from __future__ import annotations

import argparse
import datetime
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pandas as pd
from machine import machine_line

from recsys_lib.compression.distillation import (
    DistillationExperts,
    RelaxedRankingDistillation,
    SoftLabels,
    TeacherScores,
    agreement,
    distill,
    start_from_teacher,
)
from recsys_lib.data import Interactions, Split, load_split, sample_negatives
from recsys_lib.evaluation import evaluate_leave_one_out
from recsys_lib.models import IALS, RatingModelConfig
from recsys_lib.training import KerasRecommender

RESULTS = Path(__file__).parent / "results" / "distillation.csv"
RANKED = {"RRD": RelaxedRankingDistillation(weight=0.3), "DE": DistillationExperts(weight=0.9)}
SOFT = SoftLabels(weight=1.0, temperature=0.3, users_per_update=512, items_per_update=2500)
NUM_DRAWS = 5


def protocol(split: Split) -> tuple[list[Split], list[Split]]:
    """Give validation and test of citeulike, each with draws of 499 items the user never met."""
    assert split.validation is not None
    parts = split.train, split.validation, split.test
    met = Interactions(
        np.concatenate([part.user_ids for part in parts]),
        np.concatenate([part.item_ids for part in parts]),
        num_users=split.num_users,
        num_items=split.num_items,
    )
    validation, test = (
        [
            Split(split.train, part, sample_negatives(met, part, 499, seed=2 * draw + first))
            for draw in range(NUM_DRAWS)
        ]
        for part, first in ((parts[1], 1), (parts[2], 0))
    )
    return validation, test


def hits(model: Any, draws: list[Split], k: int) -> tuple[float, float]:
    """Give hit rate and NDCG at k, means over the draws."""
    found = [evaluate_leave_one_out(model, draw, k=k) for draw in draws]
    hit_rate, ndcg = (np.mean([getattr(one, m) for one in found]) for m in ("hit_rate", "ndcg"))
    return float(hit_rate), float(ndcg)


def cosine(
    rate: float, interactions: Interactions, batch_size: int, epochs: int, beta_2: float = 0.999
) -> Any:
    """Adam with a rate that falls to 0 along a cosine."""
    steps = -(-len(interactions) // batch_size) * epochs
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    return keras.optimizers.Adam(schedule, beta_2=beta_2)


def citeulike(seed: int) -> list[dict[str, Any]]:
    """Train the teacher and each student; one row for each."""
    split = load_split("citeulike-derrd")
    train = split.train
    validation, test = protocol(split)
    counts = train.num_users, train.num_items
    large = RatingModelConfig("dot_product", *counts, 200, seed=seed, init_std=0.05)
    small = RatingModelConfig("dot_product", *counts, 20, seed=seed)
    rows: list[dict[str, Any]] = []

    def bpr(rate: float, batch_size: int, epochs: int, share: float = 1.0) -> dict[str, Any]:
        # l2 shrinks with the labels' share of the loss, so that their balance stays
        shared = {"objective": "bpr", "l2": 0.03 * share, "negatives_per_positive": 8, "seed": seed}
        adam = keras.optimizers.Adam(rate)
        return shared | {"optimizer": adam, "batch_size": batch_size, "epochs": epochs}

    def note(name: str, model: Any, start: float) -> None:
        row = {"model": name, "seconds": round(time.perf_counter() - start, 1)}
        row["hit_rate@5"], row["ndcg@5"] = (round(v, 5) for v in hits(model, test, 5))
        row["hit_rate@10"] = round(hits(model, test, 10)[0], 5)
        row["validation hit_rate@5"] = round(hits(model, validation, 5)[0], 5)
        users = np.arange(0, train.num_users, 10)
        if rows:
            row["overlap@10"] = round(agreement(teacher, model, users, exclude=train).overlap, 4)
        rows.append(row)
        print(row, flush=True)

    def taught(name: str, student: Any, method: Any, options: dict[str, Any]) -> None:
        start = time.perf_counter()
        note(name, distill(scores, student, train, method, progress=False, **options).model, start)

    start = time.perf_counter()
    teacher = KerasRecommender(large, progress=False, **bpr(0.002, 1024, 64)).fit(train)
    note("teacher", teacher, start)
    scores = TeacherScores(teacher, *counts)
    start = time.perf_counter()
    student = KerasRecommender(small, progress=False, **bpr(0.003, 512, 110))
    note("student", student.fit(train), start)
    for name, method in RANKED.items():
        taught(name, small, method, bpr(0.003, 512, 110, 1 - method.weight))
    first = start_from_teacher(teacher.keras_model, small)
    options = {"objective": "bpr", "batch_size": 11_515, "epochs": 600, "seed": seed}
    options["optimizer"] = cosine(0.1, train, 11_515, 600, beta_2=0.99)
    taught("soft labels", first, SOFT, options)
    return rows


def movielens(seed: int) -> list[dict[str, Any]]:
    """Train students of 16 dimensions with and without a teacher; one row for each."""
    split = load_split("ncf-ml-1m")
    train = split.train
    counts = train.num_users, train.num_items
    teacher = IALS(192, seed=seed, progress=False, l2=0.007, unobserved_weight=0.3).fit(train)
    scores = TeacherScores(teacher, *counts)
    rows: list[dict[str, Any]] = []
    ranks = {}

    def note(name: str, model: Any) -> None:
        result = evaluate_leave_one_out(model, split, k=10)
        ranks[name] = result.ndcg_per_user
        row = {"model": name, "ndcg@10": round(result.ndcg, 5)}
        for other in ("iALS 16", "labels, pairwise", "labels, sampled softmax"):
            if other in ranks and other != name:
                gap = result.ndcg_per_user - ranks[other]
                row[f"over {other}"] = round(float(gap.mean()), 5)
                error = float(gap.std() / np.sqrt(len(gap)))
                row[f"error over {other}"] = round(error, 5)
        rows.append(row)
        print(row, flush=True)

    def config(init_std: float) -> RatingModelConfig:
        return RatingModelConfig("dot_product", *counts, 16, init_std=init_std, seed=seed)

    def options(objective: str, l2: float = 0.0, negatives: int = 8) -> dict[str, Any]:
        shared = {"batch_size": 8192, "epochs": 30, "seed": seed, "progress": False}
        own = {"objective": objective, "l2": l2, "negatives_per_positive": negatives}
        return shared | own | {"optimizer": cosine(0.03, train, 8192, 30)}

    note("teacher", teacher)
    note("iALS 16", IALS(16, seed=seed, progress=False, l2=0.007, unobserved_weight=0.3).fit(train))
    note("labels, pairwise", KerasRecommender(config(0.1), **options("bpr", 0.01)).fit(train))
    sampled = options("sampled_softmax", 0.005, 16)
    note("labels, sampled softmax", KerasRecommender(config(0.1), **sampled).fit(train))
    soft = SoftLabels(temperature=1.5, standardize=True, users_per_update=128)
    for name, weight, start, given in (
        ("teacher alone", 1.0, 0.3, options("bpr")),
        ("teacher and labels, pairwise", 0.3, 0.1, options("bpr", 0.01)),
        ("teacher and labels, sampled softmax", 0.3, 0.1, sampled),
    ):
        method = replace(soft, weight=weight)
        note(name, distill(scores, config(start), train, method, **given).model)
    return rows


def store(part: str, seed: int, rows: list[dict[str, Any]]) -> None:
    """Put the rows of one run in place of those of the last one."""
    about = {"part": part, "seed": seed, "date": datetime.date.today(), "machine": machine_line()}
    new = pd.DataFrame([about | row for row in rows])
    if RESULTS.exists():
        old = pd.read_csv(RESULTS)
        new = pd.concat([old[(old["part"] != part) | (old["seed"] != seed)], new])
    RESULTS.parent.mkdir(exist_ok=True)
    new.sort_values(["part", "seed"], kind="stable").to_csv(RESULTS, index=False)


def summary() -> None:
    """Print means over the seeds, and what share of the gap is closed."""
    frame = pd.read_csv(RESULTS)
    for part, name in (("citeulike", "hit_rate@5"), ("movielens", "ndcg@10")):
        values = frame[frame["part"] == part].pivot(index="seed", columns="model", values=name)
        table = values.agg(["mean", "sem"]).T
        if part == "citeulike":
            gap = values["teacher"] - values["student"]
            table["closed"] = values.sub(values["student"], axis=0).div(gap, axis=0).mean()
        print(f"{part}, {name}, {len(values)} seeds", table.round(4), sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--part", choices=("citeulike", "movielens", "summary"), required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.part == "summary":
        summary()
        return
    run = citeulike if given.part == "citeulike" else movielens
    store(given.part, given.seed, run(given.seed))


if __name__ == "__main__":
    main()
