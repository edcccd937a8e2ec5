"""Optimizers, schedules, objectives and samplers for one model on ncf-ml-1m, equally tuned.

Model: matrix factorisation with biases, d = 32, cross entropy with 4 uniform negatives, 8 epochs of
the compiled loop in batches of 8,192, unless the name of a row says otherwise; "large batch" is
65,536. Each row of ``VARIANTS`` is tried at three learning rates, a factor of three apart, and at
more of them for as long as the best is the first or the last (at most three times). What is best
is asked of validation users' interactions: the last training interaction of each user among 99
negatives, with one seed. The chosen rate is then trained on the whole training part with three
seeds, and judged on the test part. Every row has the same epochs; seconds are those of an epoch's
median times the epochs, and the first epoch's surplus, which is compiling, stands beside them.

Run: ``python benchmarks/optimizers.py --tune`` writes ``results/optimizers_tuning.csv`` (about
eight minutes on two cores; names after it do only these rows), then ``python
benchmarks/optimizers.py`` writes ``results/optimizers.csv``, which chapter 15 reads. Stored so
far: the five optimizers, and of the other rows the tuning of "sampler: in-batch, log Q".
"""

from __future__ import annotations

import argparse
import datetime
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from machine import machine_line
from parts.lazy_adam import LazyAdam

from recsys_lib.data import Interactions, Split, load_split, sample_negatives
from recsys_lib.evaluation import evaluate_full_ranking, evaluate_leave_one_out
from recsys_lib.models import (
    Factors,
    RatingModelConfig,
    build_rating_model,
    inner_product_vectors,
)
from recsys_lib.training import fit

RESULTS = Path(__file__).parent / "results"
TUNING, FINAL = RESULTS / "optimizers_tuning.csv", RESULTS / "optimizers.csv"
DIM, EPOCHS, NEGATIVES, L2, BATCH, LARGE, BLOCK = 32, 8, 4, 0.005, 8192, 65_536, 128


def adam(rate: Any) -> Any:
    return keras.optimizers.Adam(rate)


def momentum(rate: Any) -> Any:
    return keras.optimizers.SGD(rate, momentum=0.9)


def adagrad(rate: Any) -> Any:
    return keras.optimizers.Adagrad(rate, initial_accumulator_value=0.0)


# name: (optimizer, first learning rate, more settings)
VARIANTS: dict[str, tuple[Callable[[Any], Any], float, dict[str, Any]]] = {
    "SGD": (keras.optimizers.SGD, 4.0, {}),
    "momentum": (momentum, 0.4, {}),
    "Adagrad": (adagrad, 0.03, {}),
    "Adam": (adam, 0.002, {}),
    "lazy Adam": (LazyAdam, 0.006, {}),
    "Adam, large batch": (adam, 0.01, {"batch_size": LARGE}),
    "LAMB, large batch": (keras.optimizers.Lamb, 0.01, {"batch_size": LARGE}),
    "Adam, cosine": (adam, 0.006, {"schedule": "cosine"}),
    "Adagrad, cosine": (adagrad, 0.09, {"schedule": "cosine"}),
    "BPR": (adam, 0.002, {"objective": "bpr"}),
    "sampler: uniform": (adam, 0.006, {"sampler": "uniform"}),
    "sampler: popularity": (adam, 0.006, {"sampler": "popularity"}),
    "sampler: popularity, log Q": (adam, 0.006, {"sampler": "popularity, log Q"}),
    "sampler: in-batch": (adam, 0.006, {"sampler": "in-batch"}),
    "sampler: in-batch, log Q": (adam, 0.006, {"sampler": "in-batch, log Q"}),
}


class SampledSoftmax:
    """A softmax over the met item and others that a sampler chose, as an extra loss.

    "uniform" takes the items that ``fit`` drew; "popularity" those of as many random interactions;
    "in-batch" those that the other users of a block of ``BLOCK`` met. With "log Q", the logarithm
    of an item's share of all interactions is taken off its logit, which makes up for how often it
    is drawn (Yi et al. 2019).
    """

    def __init__(self, model: Any, train: Interactions, sampler: str) -> None:
        self.items = tf.constant(train.item_ids, tf.int32)
        counts = np.bincount(train.item_ids, minlength=train.num_items)
        log_q = np.log(np.maximum(counts, 1) / len(train)).astype(np.float32)
        self.log_q = tf.constant(log_q * ("log Q" in sampler))
        self.model, self.sampler = model, sampler

    def __call__(self, batch: Any) -> Any:
        """Return the mean loss of a batch."""
        users, candidates, logits = batch.user_ids, batch.item_ids, batch.logits
        if self.sampler.startswith("in-batch"):
            return self._in_batch(users, candidates[:, 0])
        if self.sampler.startswith("popularity"):
            shape = tf.stack([tf.shape(users)[0], NEGATIVES])
            seed = tf.stack([tf.constant(0, tf.int64), batch.step])
            drawn = tf.random.stateless_uniform(shape, seed, 0, len(self.items), tf.int32)
            candidates = tf.concat([candidates[:, :1], tf.gather(self.items, drawn)], 1)
            pairs = [tf.repeat(users, 1 + NEGATIVES), tf.reshape(candidates, [-1])]
            logits = tf.reshape(self.model(pairs), [-1, 1 + NEGATIVES])
        logits -= tf.gather(self.log_q, candidates)
        again = candidates[:, 1:] == candidates[:, :1]  # the met item is no negative of its own
        others = tf.where(again, -1e9, logits[:, 1:])
        both = tf.concat([logits[:, :1], others], 1)
        return tf.reduce_mean(tf.reduce_logsumexp(both, 1) - logits[:, 0])

    def _in_batch(self, users: Any, items: Any) -> Any:
        whole = tf.shape(users)[0] // BLOCK * BLOCK  # the rest of the last batch is left out
        users, items = (tf.reshape(ids[:whole], [-1, BLOCK]) for ids in (users, items))
        names = (("user_embedding", users), ("item_embedding", items), ("item_bias", items))
        u, i, bias = (self.model.get_layer(name)(ids) for name, ids in names)
        offset = bias[..., 0] - tf.gather(self.log_q, items)
        logits = tf.einsum("bud,bid->bui", u, i) + offset[:, None, :]
        met = tf.linalg.diag_part(logits)
        same = (items[:, :, None] == items[:, None, :]) & ~tf.eye(BLOCK, dtype=tf.bool)
        return tf.reduce_mean(tf.reduce_logsumexp(tf.where(same, -1e9, logits), 2) - met)


def hold_out(split: Split) -> Split:
    """Give a split that judges by the last training interaction of each user."""
    train, held = split.train.split_leave_one_out()
    return Split(train, held, sample_negatives(train, held, seed=1))


def measure(name: str, rate: float, split: Split, seed: int) -> dict[str, Any]:
    """Train one model and judge it."""
    make, _, more = VARIANTS[name]
    train, settings = split.train, dict(more)
    batch = settings.pop("batch_size", BATCH)
    steps = EPOCHS * -(-len(train) // batch)
    schedule, sampler = settings.pop("schedule", None), settings.pop("sampler", None)
    given: Any = rate
    if schedule == "cosine":
        given = keras.optimizers.schedules.CosineDecay(rate, steps)
    config = RatingModelConfig(
        "matrix_factorization", train.num_users, train.num_items, DIM, init_std=0.05, seed=seed
    )
    model = build_rating_model(config)
    if sampler is not None:
        settings["extra_loss"] = SampledSoftmax(model, train, sampler)
        settings["objective_weight"] = 0.0
    row: dict[str, Any] = {"name": name, "rate": rate, "seed": seed}
    try:
        history = fit(
            model, train, optimizer=make(given), epochs=EPOCHS, batch_size=batch, l2=L2,
            negatives_per_positive=NEGATIVES, seed=seed, progress=False, **settings,
        )  # fmt: skip
    except FloatingPointError:
        return {**row, "ndcg": 0.0}
    users, items = inner_product_vectors(model)
    scorer, epoch = Factors(items, users), float(np.median(history.seconds[1:]))
    given_negatives = evaluate_leave_one_out(scorer, split, k=10)
    row |= {
        "ndcg": round(given_negatives.ndcg, 5),
        "hit_rate": round(given_negatives.hit_rate, 5),
        "seconds": round(epoch * EPOCHS, 3),
        "compile_seconds": round(history.seconds[0] - epoch, 3),
    }
    full = evaluate_full_ranking(scorer, train, split.test, k=10)
    return {**row, "full_ndcg": round(full.ndcg, 5)}


def tune(name: str, split: Split) -> list[dict[str, Any]]:
    """Try rates a factor of three apart, three of them and more where the best is at an end."""
    first = VARIANTS[name][1]
    rows = [measure(name, round(first * 3**n, 6), split, 0) for n in range(3)]
    for _ in range(3):
        rows.sort(key=lambda row: row["rate"])
        best = int(np.argmax([row["ndcg"] for row in rows]))
        if 0 < best < len(rows) - 1:
            break
        rate = rows[best]["rate"] * (3 if best else 1 / 3)
        rows.append(measure(name, round(rate, 6), split, 0))
    return sorted(rows, key=lambda row: row["rate"])


def store(path: Path, rows: list[dict[str, Any]]) -> None:
    """Add rows to a file, in the place of earlier ones of the same name and seed."""
    new = pd.DataFrame(rows)
    new["date"], new["machine"] = datetime.date.today().isoformat(), machine_line()
    if path.exists():
        old = pd.read_csv(path)
        fresh = set(zip(new["name"], new["seed"], strict=True))
        known = [pair in fresh for pair in zip(old["name"], old["seed"], strict=True)]
        new = pd.concat([old[~np.array(known)], new])
    order = {name: number for number, name in enumerate(VARIANTS)}
    new = new.sort_values(
        ["name", "seed", "rate"], key=lambda c: c.map(order) if c.name == "name" else c
    )
    new.to_csv(path, index=False)


def main() -> None:
    """Tune, or train the chosen settings with three seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("names", nargs="*", default=list(VARIANTS))
    options = parser.parse_args()
    split = load_split("ncf-ml-1m")
    judged = hold_out(split) if options.tune else split
    for name in options.names or VARIANTS:
        if options.tune:
            rows = tune(name, judged)
            store(TUNING, rows)
        else:
            tried = pd.read_csv(TUNING)
            tried = tried[tried["name"] == name]
            rate = float(tried.loc[tried["ndcg"].idxmax(), "rate"])
            rows = [measure(name, rate, judged, seed) for seed in options.seeds]
            store(FINAL, rows)
        print(pd.DataFrame(rows).drop(columns="name").round(4).to_string(index=False), flush=True)
        print(name, flush=True)


if __name__ == "__main__":
    main()
