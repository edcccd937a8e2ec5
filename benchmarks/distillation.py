"""What does each method of distillation add to a small student, when all get the same?

A teacher (iALS, large) and its students (a dot product, small). Every student starts from the best
approximation of the teacher's scores in its size, is trained on the same labels (sampled softmax),
makes the same number of updates with the same falling learning rate, and had the same number of
settings tried: three (soft labels: a temperature besides). What is added is a method's term, with a
weight; the shrinkage goes down with the labels' share. The teacher's scores are turned into logits
by a scale and an offset, for all methods alike. Beside the students stand the start itself, the
same training on labels alone (from that start, and from a random one), and iALS of the student's
size, with as many settings tried as its teacher.

- ncf-ml-1m: leave-one-out against the 99 given negatives, NDCG@10.
- citeulike-derrd: the split of Kang et al. (DE-RRD, CIKM 2020): one paper against 499 drawn ones,
  H@5. The 499 of the authors are not to be had: they are drawn anew, five times, the same for all
  models.

``--part settings`` tries all settings and prints them; ``CHOSEN`` has the best. It never sees a
test item: the validation items of citeulike, and one training interaction of each user of the
films, held out.

Run: ``python benchmarks/distillation.py --data ncf-ml-1m --seed 0`` (and 1, 2; and the other data).
Rows of a seed that is in ``benchmarks/results/distillation.csv`` already are replaced.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pandas as pd
from machine import machine_line

from recsys_lib.compression.distillation import (
    CollaborativeDistillation,
    DistillationExperts,
    RankingDistillation,
    RelaxedRankingDistillation,
    SoftLabels,
    TeacherScores,
    distill,
    start_from_teacher,
)
from recsys_lib.data import Interactions, Split, load_split, sample_negatives
from recsys_lib.evaluation import evaluate_leave_one_out
from recsys_lib.models import IALS, RatingModelConfig, build_rating_model, inner_product_vectors

RESULTS = Path(__file__).parent / "results" / "distillation.csv"
FILMS, PAPERS = "ncf-ml-1m", "citeulike-derrd"
DIMS = {FILMS: (192, 16), PAPERS: (200, 20)}  # of the teacher, of the students
BATCH = {FILMS: 8192, PAPERS: 2048}
EPOCHS = {FILMS: 16, PAPERS: 35}  # about 2,000 updates each
RATE, NEGATIVES = 0.01, 16
METHODS: dict[str, Any] = {
    "labels": SoftLabels,
    "RD": RankingDistillation,
    "CD": CollaborativeDistillation,
    "RRD": RelaxedRankingDistillation,
    "DE": DistillationExperts,
    "soft labels": SoftLabels,
}
OPTIONS: dict[str, dict[str, Any]] = {
    FILMS: {"temperature": 1.5, "standardize": True, "users_per_update": 128},
    PAPERS: {"temperature": 0.3, "users_per_update": 256, "items_per_update": 2500},
}  # of soft labels
WEIGHTS = {"RD": (0.1, 0.3, 0.6), "CD": (0.1, 0.3, 0.6), "RRD": (0.1, 0.3, 0.6),
           "DE": (0.3, 0.6, 0.9), "soft labels": (0.3, 0.6, 1.0)}  # fmt: skip
L2 = (0.002, 0.005, 0.01)
CHOSEN: dict[str, dict[str, Any]] = {
    FILMS: {"teacher": (0.007, 0.3), "iALS": (0.007, 0.3), "labels": 0.005, "RD": 0.1,
            "CD": 0.3, "RRD": 0.3, "DE": 0.6, "soft labels": 0.3},
    PAPERS: {"teacher": (0.01, 0.01), "iALS": (0.01, 0.01), "labels": 0.005, "RD": 0.1,
             "CD": 0.3, "RRD": 0.3, "DE": 0.6, "soft labels": 0.6},
}  # fmt: skip


class Vectors:
    """A factor model as two matrices, which is all that evaluation needs."""

    def __init__(self, model: Any) -> None:
        self.keras_model = model
        self.users, self.items = inner_product_vectors(model) or (None, None)

    def score(self, user_ids: Any, item_ids: Any) -> Any:
        """Score pairs."""
        return np.einsum("nd,nd->n", self.users[user_ids], self.items[item_ids])

    def score_all_items(self, user_ids: Any) -> Any:
        """Score the whole catalogue."""
        return self.users[user_ids] @ self.items.T


def load(name: str, settings: bool) -> tuple[Interactions, list[Split]]:
    """Return what to train on, and what to judge by: for settings, never the test items."""
    split = load_split(name)
    if name == FILMS:
        if not settings:
            return split.train, [split]
        train, held_out = split.train.split_leave_one_out(seed=1)
        return train, [Split(train, held_out, sample_negatives(split.train, held_out, 99, seed=1))]
    parts = split.train, split.validation, split.test
    met = Interactions(
        np.concatenate([part.user_ids for part in parts]),
        np.concatenate([part.item_ids for part in parts]),
        num_users=split.num_users,
        num_items=split.num_items,
    )
    judged, draws = (parts[1], [1]) if settings else (parts[2], [0, 2, 4, 6, 8])
    return split.train, [
        Split(split.train, judged, sample_negatives(met, judged, 499, seed=draw)) for draw in draws
    ]


def judge(name: str, model: Any, draws: list[Split]) -> float:
    """Return NDCG@10 of films, H@5 of papers (the mean over the draws)."""
    scorer = Vectors(getattr(model, "keras_model", model))
    if name == FILMS:
        return evaluate_leave_one_out(scorer, draws[0], k=10).ndcg
    return float(np.mean([evaluate_leave_one_out(scorer, draw, k=5).hit_rate for draw in draws]))


class Course:
    """A teacher with all its students, on one part of the data."""

    def __init__(self, name: str, seed: int, settings: bool) -> None:
        self.name, self.seed = name, seed
        self.train, self.draws = load(name, settings)
        counts = self.train.num_users, self.train.num_items
        self.teacher = self.ials(DIMS[name][0], *CHOSEN[name]["teacher"])
        logits = RatingModelConfig("matrix_factorization", *counts, DIMS[name][0])
        said = Vectors(start_from_teacher(self.teacher, logits, self.train))
        self.scores = TeacherScores(said, *counts)
        self.config = RatingModelConfig(
            "dot_product", *counts, DIMS[name][1], init_std=0.1, seed=seed
        )
        self.start = start_from_teacher(self.teacher, self.config, self.train)

    def ials(self, dim: int, l2: float, weight: float) -> IALS:
        """Fit iALS of one size."""
        options = {"l2": l2, "unobserved_weight": weight, "seed": self.seed, "progress": False}
        return IALS(dim, **options).fit(self.train)

    def student(self, method: Any, l2: float, start: Any, epochs: int) -> Any:
        """Train one student; with weight 0 the teacher is not asked."""
        updates = -(-len(self.train) // BATCH[self.name]) * epochs
        falling = keras.optimizers.schedules.CosineDecay(RATE, updates)
        return distill(
            self.scores, start, self.train, method, objective="sampled_softmax",
            optimizer=keras.optimizers.Adam(falling), negatives_per_positive=NEGATIVES,
            batch_size=BATCH[self.name], epochs=epochs, l2=l2 * (1 - method.weight),
            seed=self.seed, progress=False,
        ).model  # fmt: skip

    def judge(self, model: Any) -> float:
        """Return the quality of a model."""
        return judge(self.name, model, self.draws)


def method_of(name: str, model: str, weight: float) -> Any:
    """Return the settings of a method."""
    return METHODS[model](weight=weight, **(OPTIONS[name] if model == "soft labels" else {}))


def settings(name: str, models: list[str]) -> None:
    """Print the quality of all settings, on validation items; half the updates."""
    course, epochs = Course(name, 0, settings=True), EPOCHS[name] // 2
    for dim, model in zip(DIMS[name], ("teacher", "iALS"), strict=True):
        grid = itertools.product((0.002, 0.007, 0.02), (0.003, 0.01, 0.03, 0.1, 0.3))
        for pair in grid if model in models else ():
            print(model, *pair, f"{course.judge(course.ials(dim, *pair)):.4f}", flush=True)
    for model in (one for one in METHODS if one in models):
        for value in L2 if model == "labels" else WEIGHTS[model]:
            weight, l2 = (0.0, value) if model == "labels" else (value, CHOSEN[name]["labels"])
            taught = course.student(method_of(name, model, weight), l2, course.start, epochs)
            print(model, value, f"{course.judge(taught):.4f}", flush=True)


def measure(name: str, seed: int) -> pd.DataFrame:
    """Train all students of one teacher; one row for each."""
    course, chosen, rows = Course(name, seed, settings=False), CHOSEN[name], []

    def note(model: str, made: Any, begin: float) -> None:
        seconds = round(time.perf_counter() - begin, 1)
        rows.append({"model": model, "quality": round(course.judge(made), 5), "seconds": seconds})
        print(rows[-1], flush=True)

    note("teacher", course.teacher, time.perf_counter())
    note("start", course.start, time.perf_counter())
    begin = time.perf_counter()
    note("iALS of this size", course.ials(DIMS[name][1], *chosen["iALS"]), begin)
    for model in ("labels, random start", *METHODS):
        begin, random = time.perf_counter(), model.endswith("random start")
        plain = random or model == "labels"
        method = SoftLabels(weight=0.0) if plain else method_of(name, model, chosen[model])
        start = build_rating_model(course.config) if random else course.start
        note(model, course.student(method, chosen["labels"], start, EPOCHS[name]), begin)
    return pd.DataFrame(rows)


def main() -> None:
    """Measure one seed and store it, or try settings."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", choices=DIMS, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", choices=("compare", "settings"), default="compare")
    parser.add_argument("--models", nargs="*", default=["teacher", "iALS", *METHODS])
    given = parser.parse_args()
    if given.part == "settings":
        settings(given.data, given.models)
        return
    about = {"data": given.data, "seed": given.seed, "date": datetime.date.today()}
    rows = measure(given.data, given.seed).assign(**about, machine=machine_line())
    if RESULTS.exists():
        old = pd.read_csv(RESULTS)
        rows = pd.concat([old[(old["data"] != given.data) | (old["seed"] != given.seed)], rows])
    rows.sort_values(["data", "seed"], kind="stable").to_csv(RESULTS, index=False)
    print(rows.groupby(["data", "model"], sort=False)["quality"].agg(["mean", "sem"]).round(4))


if __name__ == "__main__":
    main()
