"""How fast is training next to its peers, to the same quality?

Ratings: nine tenths of the ratings of ncf-ml-1m, d = 32, biases, two threads each. Every trainer
runs for the fewest epochs after which its RMSE on the rest is at most ``TARGET``; these numbers
stand in ``TRAINERS``, and ``--search NAME`` finds them. Two more rows have cornac's MF and ours
after 20 epochs, where both are lower still, and two after the fewest epochs at rate .015 that take
ours there (cornac's RMSE is lowest then, too). All that go through ratings one by one (ours,
cornac, Surprise) have penalty .02, and rate .01 elsewhere. The penalties of the others are those
of a few tried by which they reach the target at all, and rates of LIBMF, PyTorch and the loop the
best of three. Keras' fit is given
one epoch, after which it is still above the target.

Least squares: iALS on ncf-ml-1m next to ``implicit``'s two solvers. implicit has one penalty for
all rows, which was tried at 10, 30, 50, 80 and 120 for each dimension; the table has its best.
Every solver runs for the fewest sweeps after which its Recall@20 (all films) and NDCG@10 (99 given
negatives) are both at least 99.5 % of what the weaker of ours and implicit's conjugate gradients
reaches at its best. At d = 192 ours start further out than by default (init_std .5; .03, .3 and
1 were tried), which saves some of the sweeps; implicit has no such setting.

Gradient descent: an epoch of the compiled Keras loop next to Keras' own fit, one model and
optimizer, 100,000 ratings.

Peers that are not installed are named and left out: ``pip install cornac implicit scikit-surprise
lenskit torch``; LIBMF as ``parts/training_peers.py`` says. Rounds are interleaved and the first is
a warm-up; what takes over three seconds is run once. Times are medians, and "times ours" compares
round by round.

Run: ``python benchmarks/training.py``, about ten minutes; ``--job`` asks for one table. Rows go to
``results/training.csv``, in the place of earlier ones of that job.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # what implicit asks for

import keras
import numpy as np
import pandas as pd
from machine import machine_line
from parts import training_peers as peers

from recsys_lib.data import Interactions, Split, load_split
from recsys_lib.evaluation import evaluate_full_ranking, evaluate_leave_one_out, evaluate_ratings
from recsys_lib.models import ALS, IALS, MF, Factors, RatingModelConfig, build_rating_model
from recsys_lib.training import KerasScorer, fit
from recsys_lib.training.checks import own_optimizer
from recsys_lib.training.loop import compile_epoch
from recsys_lib.training.sampling import epoch_order

RESULTS = Path(__file__).parent / "results" / "training.csv"
TARGET, SLOW = 0.85, 3.0
PENALTIES = {64: 30.0, 192: 50.0}  # the best for implicit
Trained = tuple[float, Any]


def timed(train_it: Callable[[], Any]) -> Trained:
    """Return the seconds that a call took, and its result."""
    start = time.perf_counter()
    model = train_it()
    return time.perf_counter() - start, model


def our_mf(train: Interactions, epochs: int, rate: float = peers.RATE) -> Trained:
    """Train MF as cornac does."""
    model = MF(peers.DIM, epochs, rate, peers.L2, num_threads=2)
    return timed(lambda: model.fit(train))


def our_als(train: Interactions, epochs: int) -> Trained:
    """Train ALS with its defaults."""
    return timed(lambda: ALS(peers.DIM, epochs).fit(train))


def our_loop(train: Interactions, epochs: int) -> Trained:
    """Train a Keras model in the compiled loop; compiling counts as an epoch does."""
    config = RatingModelConfig(
        "matrix_factorization", train.num_users, train.num_items, peers.DIM,
        global_bias=float(train.ratings.mean()),
    )  # fmt: skip
    model = build_rating_model(config)
    history = fit(
        model, train, objective="squared_error", optimizer=keras.optimizers.Adam(0.005), l2=0.1,
        epochs=epochs, progress=False,
    )  # fmt: skip
    return float(np.median(history.seconds[1:])) * epochs, KerasScorer(model)


# name: (module that it needs, trainer, epochs)
TRAINERS: dict[str, tuple[str | None, Callable[[Interactions, int], Trained], int]] = {
    "recsys_lib MF": (None, our_mf, 18),
    "cornac MF": ("cornac", peers.cornac, 18),
    "LIBMF": ("libmf", peers.libmf, 8),
    "recsys_lib ALS": (None, our_als, 5),
    "lenskit BiasedMF (ALS)": ("lenskit", peers.lenskit, 8),
    "Surprise SVD": ("surprise", peers.surprise, 18),
    "recsys_lib loop, batch 8192": (None, our_loop, 9),
    "PyTorch, batch 8192": ("torch", peers.torch, 9),
    "Keras fit, batch 256": (None, peers.keras_fit, 1),
    "recsys_lib MF, 20 epochs": (None, our_mf, 20),
    "cornac MF, 20 epochs": ("cornac", peers.cornac, 20),
    "recsys_lib MF, rate .015": (None, partial(our_mf, rate=0.015), 12),
    "cornac MF, rate .015": ("cornac", partial(peers.cornac, rate=0.015), 13),
}


def missing(module: str | None) -> bool:
    """Say that a peer is not there, if it is not."""
    if module is None or importlib.util.find_spec(module) is not None:
        return False
    print(f"{module} is not installed: left out")
    return True


def search(name: str, split: Split) -> None:
    """Print the RMSE of a trainer after more and more epochs."""
    train, test = split.train.split_random(0.1)
    _, trainer, _ = TRAINERS[name]
    for epochs in (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 25, 30):
        seconds, model = trainer(train, epochs)
        print(f"{epochs:3} {seconds:7.2f} s {evaluate_ratings(model, test).rmse:.4f}", flush=True)


def ratings(split: Split, rounds: int) -> pd.DataFrame:
    """Time every trainer of ratings to the same RMSE."""
    train, test = split.train.split_random(0.1)
    there = {name: how[1:] for name, how in TRAINERS.items() if not missing(how[0])}
    seconds: dict[str, list[float]] = {name: [] for name in there}
    errors: dict[str, float] = {}
    for number in range(rounds + 1):  # the first is a warm-up
        for name, (trainer, epochs) in there.items():
            if number == 0 and name.startswith("Keras"):
                continue  # it has a warm-up of its own
            if number and seconds[name] and seconds[name][-1] > SLOW:
                continue
            taken, model = trainer(train, epochs)
            seconds[name].append(taken)
            errors[name] = evaluate_ratings(model, test).rmse
    ours = seconds["recsys_lib MF"][1:]
    rows = []
    for name, values in seconds.items():
        kept = values[1:] or values
        ratio = np.divide(kept, ours if len(kept) == len(ours) else np.median(ours))
        rows.append({
            "trainer": name, "dim": peers.DIM, "epochs": there[name][1],
            "seconds": round(float(np.median(kept)), 4), "rmse": round(errors[name], 4),
            "reached": errors[name] <= TARGET, "times_ours": round(float(np.median(ratio)), 2),
            "rounds": len(kept),
        })  # fmt: skip
    return pd.DataFrame(rows)


def implicit_als(split: Split, dim: int, sweeps: int, use_cg: bool = True) -> Factors:
    """Fit implicit's alternating least squares."""
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(
        dim, regularization=PENALTIES[dim], alpha=1.0, iterations=sweeps, random_state=0,
        use_cg=use_cg, num_threads=2,
    )  # fmt: skip
    matrix = split.train.to_csr()
    matrix.data[:] = 1 + 1 / 0.3  # implicit counts an empty cell as 1, IALS as .3
    model.fit(matrix, show_progress=False)
    return Factors(model.item_factors, model.user_factors)


def least_squares(split: Split, rounds: int) -> pd.DataFrame:
    """Time every solver of iALS to the same Recall@20 and NDCG@10."""

    def ours(dim: int, sweeps: int) -> Factors:
        model = IALS(dim, sweeps, 0.007, 0.3, init_std=0.1 if dim < 100 else 0.5, check=False)
        return model.fit(split.train)

    solvers: dict[str, Callable[[int, int], Factors]] = {"recsys_lib, conjugate gradients": ours}
    if not missing("implicit"):
        solvers["implicit, conjugate gradients"] = lambda d, n: implicit_als(split, d, n)
        solvers["implicit, Cholesky"] = lambda d, n: implicit_als(split, d, n, use_cg=False)
    rows = []
    for dim in PENALTIES:
        quality: dict[str, dict[int, tuple[float, float]]] = {}
        for name, solve in solvers.items():
            if dim > 64 and "Cholesky" in name:
                continue  # minutes
            quality[name] = {}
            for sweeps in (5, 8, 10) if "Chol" in name else (5, 6, 7, 8, 9, 10, 12):
                model = solve(dim, sweeps)
                full = evaluate_full_ranking(model, split.train, split.test, k=20)
                ndcg = evaluate_leave_one_out(model, split, k=10).ndcg
                quality[name][sweeps] = (ndcg, full.recall)
        best = {n: np.max(list(q.values()), axis=0) for n, q in quality.items() if "grad" in n}
        target = 0.995 * np.min(list(best.values()), axis=0)
        enough = {
            name: min((n for n, q in found.items() if np.all(q >= target)), default=max(found))
            for name, found in quality.items()
        }
        seconds: dict[str, list[float]] = {name: [] for name in enough}
        for number in range(rounds + 1):
            for name, sweeps in enough.items():
                if number < 2 or seconds[name][-1] < SLOW:
                    seconds[name].append(timed(lambda s=sweeps, n=name, d=dim: solvers[n](d, s))[0])
        own = np.median(seconds["recsys_lib, conjugate gradients"][1:])
        for name, values in seconds.items():
            ndcg, recall = quality[name][enough[name]]
            rows.append({
                "trainer": name, "dim": dim, "epochs": enough[name],
                "seconds": round(float(np.median(values[1:])), 4), "ndcg": round(ndcg, 4),
                "recall": round(recall, 4), "times_ours": round(np.median(values[1:]) / own, 2),
                "reached": bool(np.all(quality[name][enough[name]] >= target)),
                "rounds": len(values) - 1,
            })  # fmt: skip
    return pd.DataFrame(rows)


def new_model(data: Interactions) -> keras.Model:
    """Build the model of the epochs."""
    return build_rating_model(
        RatingModelConfig(
            "matrix_factorization", data.num_users, data.num_items, 64, global_bias=3.5
        )
    )


def compiled_loop(
    data: Interactions, batch_size: int, jit_compile: bool = True
) -> Callable[[int], None]:
    """Prepare an epoch of the compiled loop."""
    model, optimizer = new_model(data), own_optimizer("adam")
    optimizer.build(model.trainable_variables)
    run = compile_epoch(
        model, optimizer, data, objective="squared_error", batch_size=batch_size,
        negatives_per_positive=1, l2=0.0, seed=0, jit_compile=jit_compile,
    )  # fmt: skip
    return lambda number: run(epoch_order(len(data), 0, number), number) and None


def keras_epoch(
    data: Interactions, batch_size: int, steps: int = 1, jit_compile: bool = False
) -> Callable[[int], None]:
    """Prepare an epoch of Keras' own fit."""
    model = new_model(data)
    model.compile("adam", loss="mse", steps_per_execution=steps, jit_compile=jit_compile)
    inputs = [data.user_ids.astype(np.int32), data.item_ids.astype(np.int32)]

    def epoch(number: int) -> None:
        model.fit(inputs, data.ratings, batch_size=batch_size, epochs=1, verbose=0)

    return epoch


def gradient(split: Split, rounds: int) -> pd.DataFrame:
    """Time epochs of gradient descent on one Keras model."""
    shuffled = np.random.default_rng(0).permutation(len(split.train))
    data = split.train.take(shuffled[:100_000])
    trainers = {
        "recsys_lib, batch 8192": compiled_loop(data, 8192),
        "recsys_lib, batch 8192, without XLA": compiled_loop(data, 8192, jit_compile=False),
        "recsys_lib, batch 256": compiled_loop(data, 256),
        "model.fit, batch 8192": keras_epoch(data, 8192),
        "model.fit, batch 8192, steps_per_execution 64": keras_epoch(data, 8192, 64),
        "model.fit, batch 256": keras_epoch(data, 256),
        "model.fit, batch 256, with XLA": keras_epoch(data, 256, jit_compile=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for number in range(rounds + 1):
        for name, epoch in trainers.items():
            seconds[name].append(timed(lambda e=epoch, n=number: e(n))[0])
    first = np.array(seconds["recsys_lib, batch 8192"][1:])
    rows = [
        {"trainer": name, "dim": 64, "epochs": 1, "seconds": round(float(np.median(v[1:])), 4),
         "times_ours": round(float(np.median(np.array(v[1:]) / first)), 2), "rounds": rounds}
        for name, v in seconds.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


JOBS = {"ratings": (ratings, 1), "least_squares": (least_squares, 4), "gradient": (gradient, 1)}


def main() -> None:
    """Measure, print, and keep the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--fallback", choices=["synthetic"], default=None)
    parser.add_argument("--job", choices=[*JOBS, "all"], default="all")
    parser.add_argument("--search", metavar="NAME")
    options = parser.parse_args()
    split = load_split("ncf-ml-1m", fallback=options.fallback)
    print(machine_line())
    if options.search:
        search(options.search, split)
        return
    for job in JOBS if options.job == "all" else [options.job]:
        measure, fewer = JOBS[job]
        rows = measure(split, max(1, options.rounds // fewer))
        print(f"\n{job}\n{rows.to_string(index=False)}", flush=True)
        rows.insert(0, "job", job)
        rows["date"], rows["machine"] = datetime.date.today().isoformat(), machine_line()
        if not split.train.is_synthetic:
            stored = pd.read_csv(RESULTS) if RESULTS.exists() else pd.DataFrame({"job": []})
            pd.concat([stored[stored["job"] != job], rows]).to_csv(RESULTS, index=False)


if __name__ == "__main__":
    main()
