"""What does each method of distillation add to a small student, when all get the same?

On the data of the best-known comparison (CiteULike, Kang et al., DE-RRD, CIKM 2020): a large
teacher, iALS of 200 dimensions, and students of 20. Every student starts from the best
approximation of the teacher's scores in its size, is trained on the same labels (sampled softmax),
and makes the same number of updates with the same falling learning rate. What is added is a
method's term, with weight 0.3; the shrinkage goes down with the labels' share. The only settings
that were tuned are those of the rivals: the shrinkage of the student of labels alone (three
values), and l2 and unobserved_weight of iALS in both sizes (four pairs). The methods have the
library's defaults. The teacher's scores are turned into logits by a scale and an offset, for all
methods alike. Beside the students stand the start itself, the same training on labels alone (from
that start, and from a random one), and iALS of the student's size.

The protocol: one paper against 499 drawn ones, H@5. The 499 of the authors are not to be had: they
are drawn anew, twice, the same for all models, and figures are means over the draws. Errors are
standard errors of the mean difference over the users.

``--part settings`` tries the settings on the validation items and prints them; ``CHOSEN`` has the
best.

Run: ``python benchmarks/distillation.py --seed 0``. Rows of a seed that is in
``benchmarks/results/distillation.csv`` already are replaced.
"""

from __future__ import annotations

import argparse
import datetime
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
TEACHER_DIM, DIM = 200, 20
BATCH, EPOCHS, RATE, NEGATIVES, WEIGHT = 2048, 20, 0.01, 16, 0.3  # 1,140 updates
METHODS: dict[str, Any] = {
    "labels": SoftLabels(weight=0.0),  # the teacher is not asked
    "soft labels": SoftLabels(
        weight=WEIGHT, temperature=0.3, users_per_update=128, items_per_update=1000
    ),
    "RRD": RelaxedRankingDistillation(weight=WEIGHT),
    "DE": DistillationExperts(weight=WEIGHT),
    "RD": RankingDistillation(weight=WEIGHT),
    "CD": CollaborativeDistillation(weight=WEIGHT),
}
PAIRS = ((0.007, 0.003), (0.007, 0.01), (0.007, 0.03), (0.02, 0.01))  # l2, unobserved_weight
CHOSEN: dict[str, Any] = {"teacher": (0.02, 0.01), "iALS": (0.007, 0.003), "labels": 0.01}


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


class Course:
    """A teacher with all its students, judged on validation or on test items."""

    def __init__(self, seed: int, validation: bool) -> None:
        split, self.seed = load_split("citeulike-derrd"), seed
        parts = split.train, split.validation, split.test
        met = Interactions(
            np.concatenate([part.user_ids for part in parts]),
            np.concatenate([part.item_ids for part in parts]),
            num_users=split.num_users,
            num_items=split.num_items,
        )
        judged, draws = (parts[1], [1]) if validation else (parts[2], [0, 2])
        self.train = split.train
        self.draws = [
            Split(split.train, judged, sample_negatives(met, judged, 499, seed=draw))
            for draw in draws
        ]
        counts = self.train.num_users, self.train.num_items
        self.teacher = self.ials(TEACHER_DIM, *CHOSEN["teacher"])
        logits = RatingModelConfig("matrix_factorization", *counts, TEACHER_DIM)
        said = Vectors(start_from_teacher(self.teacher, logits, self.train))
        self.scores = TeacherScores(said, *counts)
        self.config = RatingModelConfig("dot_product", *counts, DIM, init_std=0.1, seed=seed)
        self.start = start_from_teacher(self.teacher, self.config, self.train)

    def ials(self, dim: int, l2: float, weight: float) -> IALS:
        """Fit iALS of one size."""
        return IALS(dim, seed=self.seed, l2=l2, unobserved_weight=weight).fit(self.train)

    def student(self, method: Any, start: Any, l2: float = CHOSEN["labels"]) -> Any:
        """Train one student; with weight 0 the teacher is not asked."""
        updates = -(-len(self.train) // BATCH) * EPOCHS
        falling = keras.optimizers.schedules.CosineDecay(RATE, updates)
        return distill(
            self.scores, start, self.train, method, objective="sampled_softmax",
            optimizer=keras.optimizers.Adam(falling), negatives_per_positive=NEGATIVES,
            batch_size=BATCH, epochs=EPOCHS, l2=l2 * (1 - method.weight), seed=self.seed,
            progress=False,
        ).model  # fmt: skip

    def judge(self, model: Any) -> Any:
        """Return whether each user's paper is among the first five, the mean over the draws."""
        scorer = Vectors(getattr(model, "keras_model", model))
        found = [evaluate_leave_one_out(scorer, draw, k=5) for draw in self.draws]
        return np.mean([one.hit_rate_per_user for one in found], axis=0)


def settings() -> None:
    """Print the quality of all settings, on validation items."""
    course = Course(0, validation=True)
    for dim, name in ((TEACHER_DIM, "teacher"), (DIM, "iALS")):
        for pair in PAIRS:
            print(name, *pair, f"{course.judge(course.ials(dim, *pair)).mean():.4f}", flush=True)
    for l2 in (0.002, 0.005, 0.01):
        model = course.student(METHODS["labels"], course.start, l2)
        print("labels", l2, f"{course.judge(model).mean():.4f}", flush=True)


def measure(seed: int) -> None:
    """Train all students of one teacher, and store a row for each as it comes."""
    course, judged = Course(seed, validation=False), {}
    random = build_rating_model(course.config)
    made: dict[str, Any] = {
        "labels": lambda: course.student(METHODS["labels"], course.start),
        "teacher": lambda: course.teacher,
        "start": lambda: course.start,
        "iALS of this size": lambda: course.ials(DIM, *CHOSEN["iALS"]),
        "labels, random start": lambda: course.student(METHODS["labels"], random),
    }
    for name, method in METHODS.items():
        made.setdefault(name, lambda method=method: course.student(method, course.start))
    about = {"seed": seed, "date": datetime.date.today(), "machine": machine_line()}
    old = pd.read_csv(RESULTS) if RESULTS.exists() else pd.DataFrame({"seed": []})
    rows = []
    for name, make in made.items():
        begin = time.perf_counter()
        model, seconds = make(), round(time.perf_counter() - begin, 1)
        judged[name] = course.judge(model)
        gap = judged[name] - judged["labels"]
        row = {"model": name, "hit_rate@5": judged[name].mean(), "over labels": gap.mean()}
        row["error over labels"] = gap.std() / np.sqrt(len(gap))
        rows.append({k: v if k == "model" else round(float(v), 5) for k, v in row.items()})
        rows[-1] |= {"seconds": seconds} | about
        print(rows[-1], flush=True)
        stored = pd.concat([old[old["seed"] != seed], pd.DataFrame(rows)])
        stored.sort_values("seed", kind="stable").to_csv(RESULTS, index=False)


def main() -> None:
    """Measure one seed and store it, or try settings."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", choices=("compare", "settings"), default="compare")
    given = parser.parse_args()
    if given.part == "settings":
        settings()
    else:
        measure(given.seed)


if __name__ == "__main__":
    main()
