"""What do a start from the teacher, averaged weights and a mean teacher bring, each and together?

For each seed a teacher (iALS) is fitted, and a matrix factorisation of 16 dimensions is trained
with the logistic loss: from a random start and from the teacher's tables, without and with a
running average of its weights, and as a mean teacher. After each of some epochs the test users
are judged. The plain weights and their average come from one run: keeping an average does not
touch the training.

- ncf-ml-1m: leave-one-out against the 99 given negatives.
- lastfm-hetrec2011-2k: a fifth of the user-artist pairs is held out at random, and all items
  that a user has not met are ranked.

Beside them stands iALS of the student's size. ``--part teachers`` tries l2 and unobserved_weight
for both sizes of iALS. ``--part settings`` chooses the learning rate and the shrinkage, for the
random start without an average, then decay and mean teacher: by NDCG@10 at the best epoch. Both
judge by one interaction of each user held out of the training part (1,000 users, all items ranked).
``TUNED`` and ``SETTINGS`` have what was chosen.

Run: ``python benchmarks/model_distillation.py --data ncf-ml-1m --seed 0`` (and 1, 2; and the other
data). A seed that is in ``benchmarks/results/model_distillation.csv`` already is replaced.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import os
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pandas as pd
from machine import machine_line

from recsys_lib.compression.distillation import (
    Consistency,
    MeanTeacher,
    WeightAverage,
    WeightAveraging,
    start_from_teacher,
)
from recsys_lib.data import DATASETS, Interactions, Split, load_dataset, load_split
from recsys_lib.evaluation import evaluate_full_ranking, evaluate_leave_one_out
from recsys_lib.models import IALS, RatingModelConfig, build_rating_model, inner_product_vectors
from recsys_lib.training import fit

RESULTS = Path(__file__).parent / "results" / "model_distillation.csv"
DIM, INIT_STD = 16, 0.1
JUDGED = (1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 25, 30)


class Settings(NamedTuple):
    """What was chosen on validation users."""

    batch_size: int
    rate: float
    l2: float
    decay: float
    loss: str
    weight: float


SETTINGS = {
    "ncf-ml-1m": Settings(8192, 0.01, 0.01, 0.99, "regression", 0.3),
    "lastfm-hetrec2011-2k": Settings(2048, 0.01, 0.01, 0.998, "regression", 0.3),
}
# l2 and unobserved_weight of iALS, by dimensions: the teacher's, and the student's size
TUNED: dict[str, dict[int, tuple[float, float]]] = {
    "ncf-ml-1m": {64: (0.007, 0.3), DIM: (0.007, 0.3)},
    "lastfm-hetrec2011-2k": {64: (0.02, 0.03), DIM: (0.02, 0.03)},
}


class Vectors:
    """A factor model as it stands now, for evaluation: no graph to compile."""

    def __init__(self, model: Any) -> None:
        self.users, self.items = inner_product_vectors(model) or (None, None)

    def score(self, user_ids: Any, item_ids: Any) -> Any:
        """Score pairs."""
        return np.einsum("nd,nd->n", self.users[user_ids], self.items[item_ids])

    def score_all_items(self, user_ids: Any) -> Any:
        """Score the whole catalogue."""
        return self.users[user_ids] @ self.items.T


def load(name: str) -> Split:
    if DATASETS[name].num_splits == 1:
        return load_split(name)
    return Split(*load_dataset(name).split_random(0.2, seed=0))


def judge(model: Any, split: Split) -> float:
    scorer = model if isinstance(model, IALS) else Vectors(model)
    if split.negatives is not None:
        return evaluate_leave_one_out(scorer, split).ndcg
    return evaluate_full_ranking(scorer, split.train, split.test).ndcg


def student(data: Interactions, seed: int) -> RatingModelConfig:
    counts = data.num_users, data.num_items
    return RatingModelConfig("matrix_factorization", *counts, DIM, init_std=INIT_STD, seed=seed)


def train(
    model: Any,
    split: Split,
    settings: Settings,
    watch: Any,
    seed: int,
    judged: tuple[int, ...] = JUDGED,
) -> list[tuple[int, float, float, float]]:
    """Train in place; give epoch, NDCG of the weights and of their average, and seconds."""
    course = []

    def note(epoch: int, _: Any) -> None:
        if epoch in judged:
            course.append((epoch, judge(model, split), judge(watch.model, split)))

    history = fit(
        model,
        split.train,
        epochs=judged[-1],
        optimizer=keras.optimizers.Adam(settings.rate),
        l2=settings.l2,
        batch_size=settings.batch_size,
        extra_loss=watch,
        on_epoch_end=note,
        seed=seed,
        progress=False,
    )
    seconds = np.cumsum(history.seconds)
    return [(epoch, plain, mean, seconds[epoch - 1]) for epoch, plain, mean in course]


def mean_teacher(model: Any, data: Interactions, settings: Settings, seed: int) -> Consistency:
    config = MeanTeacher(
        WeightAveraging(settings.decay), weight=settings.weight, loss=settings.loss
    )
    return Consistency(model, config, data.num_items, seed)


def held_out(name: str) -> Split:
    """Return the training part without one interaction of each user, and those of 1,000 users."""
    train_part, held_out = load(name).train.split_leave_one_out(seed=1)
    return Split(train_part, held_out.take(np.flatnonzero(held_out.user_ids < 1000)))


def fit_ials(name: str, split: Split, dim: int, seed: int, *tuned: float) -> IALS:
    """Fit iALS of one size with the settings of its size, or those given."""
    l2, weight = tuned or TUNED[name][dim]
    return IALS(dim, epochs=8, seed=seed, l2=l2, unobserved_weight=weight).fit(split.train)


def choose_teachers(name: str) -> None:
    """Print the quality on validation users of iALS in both sizes."""
    split = held_out(name)
    for dim in TUNED[name]:
        for tuned in itertools.product((0.007, 0.02, 0.06), (0.003, 0.01, 0.03, 0.1)):
            print(dim, *tuned, f"{judge(fit_ials(name, split, dim, 0, *tuned), split):.4f}")


def choose(name: str) -> Settings:
    """Print the quality on validation users of all settings that were tried."""
    split, best = held_out(name), SETTINGS[name]

    def tried(settings: Settings, consistent: bool) -> tuple[float, float]:
        model = build_rating_model(student(split.train, 0))
        watch = WeightAverage(model, WeightAveraging(settings.decay))
        if consistent:
            watch = mean_teacher(model, split.train, settings, 0)
        rows = train(model, split, settings, watch, 0, (8, 12, 16, 20, 25, 30))
        plain, mean = max(row[1] for row in rows), max(row[2] for row in rows)
        print(f"{settings} plain {plain:.4f} average {mean:.4f} {consistent}", flush=True)
        return plain, mean

    grid = [best._replace(rate=r, l2=s) for r in (0.01, 0.02) for s in (0.0, 0.01)]
    best = max(grid, key=lambda settings: tried(settings, False)[0])
    decays = [best._replace(decay=d) for d in (0.99, 0.995, 0.998)]
    best = max(decays, key=lambda settings: tried(settings, False)[1])
    costs = [("listwise", 1.0), ("listwise", 5.0), ("regression", 0.3)]
    consistent = [best._replace(loss=loss, weight=weight) for loss, weight in costs]
    best = max(consistent, key=lambda settings: tried(settings, True)[1])
    print("chosen", best)
    return best


def measure(name: str, seed: int) -> pd.DataFrame:
    """Train in all ways with one seed."""
    split, settings = load(name), SETTINGS[name]
    teacher, small = (fit_ials(name, split, dim, seed) for dim in TUNED[name])
    rows: list[tuple[str, str, int, float, float]] = [
        ("", "teacher", 0, judge(teacher, split), 0.0),
        ("", "iALS of this size", 0, judge(small, split), 0.0),
    ]
    config = student(split.train, seed)
    starts = {
        "random": build_rating_model(config),
        "teacher": start_from_teacher(teacher, config, split.train),
    }
    for start, model in starts.items():
        first = judge(model, split)
        copies = [model, keras.models.clone_model(model)]
        copies[1].set_weights(model.get_weights())
        watch = WeightAverage(copies[0], WeightAveraging(settings.decay))
        course = train(copies[0], split, settings, watch, seed)
        watch = mean_teacher(copies[1], split.train, settings, seed)
        with_cost = train(copies[1], split, settings, watch, seed)
        for way in ("plain", "average", "mean teacher"):
            rows.append((start, way, 0, first, 0.0))
            for epoch, plain, mean, seconds in with_cost if way == "mean teacher" else course:
                rows.append((start, way, epoch, plain if way == "plain" else mean, seconds))
    frame = pd.DataFrame(rows, columns=["start", "way", "epoch", "ndcg", "seconds"])
    frame = frame.round({"ndcg": 5, "seconds": 2})
    return frame.assign(data=name, seed=seed)


def main() -> None:
    """Measure one seed and store it, or show what the settings were chosen by."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=SETTINGS, default="ncf-ml-1m")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", default="ablation", choices=["ablation", "settings", "teachers"])
    options = parser.parse_args()
    if options.part == "teachers":
        choose_teachers(options.data)
        return
    if options.part == "settings":
        choose(options.data)
        return
    rows = measure(options.data, options.seed)
    rows["date"], rows["machine"] = datetime.date.today().isoformat(), machine_line()
    stored = pd.read_csv(RESULTS) if RESULTS.exists() else rows.iloc[:0]
    same = (stored["data"] == options.data) & (stored["seed"] == options.seed)
    everything = pd.concat([stored[~same], rows]) if len(stored) else rows
    everything.sort_values(["data", "seed"], kind="stable").to_csv(RESULTS, index=False)
    shown = rows[rows["epoch"].isin([0, 1, 4, 10, 20, 30])]
    print(shown.pivot_table(index=["start", "way"], columns="epoch", values="ndcg").round(4))


if __name__ == "__main__":
    main()
