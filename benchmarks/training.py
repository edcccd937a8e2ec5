"""How fast is training next to its peers, on the same job?

Gradient descent: the compiled epoch loop next to Keras' own fit. Job: one epoch of matrix
factorisation (d = 64, squared error, Adam) over the first 100,000 ratings of the shuffled
ncf-ml-1m training part. All trainers have the same model, data, objective and optimizer; rounds are
interleaved, the first is a warm-up. "ratio" is to ``model.fit`` with batch 256, round by round. A
larger batch makes fewer updates per epoch, so the table shows each trainer at both batch sizes; the
quality that batches of 8,192 reach is asserted in ``tests/training/test_training_quality.py``.

Least squares: iALS next to ``implicit``, where that is installed (``pip install implicit``). Job:
twelve rounds over ncf-ml-1m, both by three steps of conjugate gradients, in alternating rounds.
implicit has one penalty for all rows, which was tried at 10, 30, 50, 80 and 120 for each dimension;
the table has its best. "ratio" is to implicit, round by round. Below it, ALS on a random 90 % of
the ratings with both solvers, judged by the RMSE on the rest.

Ratings: MF by stochastic gradient descent next to ``cornac``'s MF, where that is installed (``pip
install cornac``). Job: d = 32, biases, rate .01, penalty .02, 20 epochs, two threads each, on 90 %
of the ratings; RMSE on the rest.

Run: ``python benchmarks/training.py``. It prints three tables, in about five minutes; ``--job``
asks for one of them.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from machine import machine_line

from recsys_lib.data import Interactions, Split, load_split
from recsys_lib.evaluation import evaluate_leave_one_out, evaluate_ratings
from recsys_lib.models import ALS, IALS, MF, Factors, RatingModelConfig, build_rating_model
from recsys_lib.training.checks import own_optimizer
from recsys_lib.training.loop import compile_epoch
from recsys_lib.training.sampling import epoch_order

BASELINE = "model.fit, batch 256"
PENALTIES = {64: 30.0, 192: 50.0}  # the best for implicit


def compiled_loop(
    data: Interactions, batch_size: int, jit_compile: bool = True
) -> Callable[[int], None]:
    model = new_model(data)
    optimizer = own_optimizer("adam")
    optimizer.build(model.trainable_variables)
    run = compile_epoch(
        model,
        optimizer,
        data,
        objective="squared_error",
        batch_size=batch_size,
        negatives_per_positive=1,
        l2=0.0,
        seed=0,
        jit_compile=jit_compile,
    )

    def epoch(number: int) -> None:
        run(epoch_order(len(data), 0, number), number)

    return epoch


def keras_fit(
    data: Interactions, batch_size: int, steps: int = 1, jit_compile: bool = False
) -> Callable[[int], None]:
    model = new_model(data)
    model.compile("adam", loss="mse", steps_per_execution=steps, jit_compile=jit_compile)
    inputs = [data.user_ids.astype(np.int32), data.item_ids.astype(np.int32)]

    def epoch(number: int) -> None:
        model.fit(inputs, data.ratings, batch_size=batch_size, epochs=1, verbose=0)

    return epoch


def new_model(data: Interactions) -> keras.Model:
    return build_rating_model(
        RatingModelConfig(
            "matrix_factorization", data.num_users, data.num_items, 64, global_bias=3.5
        )
    )


def implicit_als(split: Split, dim: int) -> Factors:
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(
        dim, regularization=PENALTIES[dim], alpha=1.0, iterations=12, random_state=0
    )
    matrix = split.train.to_csr()
    matrix.data[:] = 1 + 1 / 0.3  # implicit counts an empty cell as 1, IALS as .3
    model.fit(matrix, show_progress=False)
    return Factors(model.item_factors, model.user_factors)


def least_squares(split: Split, rounds: int) -> None:
    """Print the table of iALS."""
    solvers: dict[str, Callable[[int], Factors]] = {
        "recsys_lib, conjugate gradients": lambda dim: IALS(
            dim, l2=0.007, unobserved_weight=0.3
        ).fit(split.train)
    }
    if importlib.util.find_spec("implicit") is not None:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # what implicit asks for
        solvers["implicit, conjugate gradients"] = lambda dim: implicit_als(split, dim)
    print(f"iALS, {len(split.train):,} pairs, 12 epochs, {rounds} rounds")
    print(f"{'solver':40} {'d':>4} {'median s':>9} {'HR@10':>7} {'NDCG@10':>8} {'ratio':>6}")
    for dim in PENALTIES:
        seconds: dict[str, list[float]] = {name: [] for name in solvers}
        results = {}
        for number in range(rounds + 1):  # the first is a warm-up
            for name, solve in solvers.items():
                start = time.perf_counter()
                model = solve(dim)
                seconds[name].append(time.perf_counter() - start)
                if number == 0:
                    results[name] = evaluate_leave_one_out(model, split)
        last = np.array(list(seconds.values())[-1][1:])
        for name, values in seconds.items():
            taken, result = np.array(values[1:]), results[name]
            print(
                f"{name:40} {dim:4} {np.median(taken):9.2f} {result.hit_rate:7.4f} "
                f"{result.ndcg:8.4f} {np.median(taken / last):6.2f}"
            )

    train, test = split.train.split_random(0.1)
    for solver in ("conjugate_gradient", "cholesky"):
        start = time.perf_counter()
        als = ALS(32, solver=solver).fit(train)
        taken = time.perf_counter() - start
        print(f"ALS, {solver}, d = 32: {taken:.2f} s, RMSE {evaluate_ratings(als, test).rmse:.4f}")


def cornac_mf(train: Interactions) -> tuple[float, Factors]:
    """Return the seconds that cornac took, and what it learned."""
    import cornac

    rows = zip(train.user_ids, train.item_ids, train.ratings, strict=True)
    data = cornac.data.Dataset.from_uir(rows, seed=0)
    model = cornac.models.MF(
        k=32, max_iter=20, learning_rate=0.01, lambda_reg=0.02, num_threads=2, seed=0
    )
    start = time.perf_counter()
    model.fit(data)
    taken = time.perf_counter() - start
    sides = []
    for places, count, vectors, biases in (
        (data.uid_map, train.num_users, model.u_factors, model.u_biases),
        (data.iid_map, train.num_items, model.i_factors, model.i_biases),
    ):
        table = np.zeros((count, 33), np.float32)  # nothing is known of ids that it has not seen
        table[list(places)] = np.column_stack([vectors, biases])[list(places.values())]
        sides.append(table)
    users, items = sides
    return taken, Factors(
        items[:, :-1], users[:, :-1], global_mean=float(model.global_mean),
        user_biases=users[:, -1], item_biases=items[:, -1],
    )  # fmt: skip


def ratings(split: Split, rounds: int) -> None:
    """Print the table of rating models by gradient descent."""
    train, test = split.train.split_random(0.1)
    seconds: dict[str, list[float]] = {"recsys_lib.MF": [], "cornac.MF": []}
    errors = {}
    for number in range(rounds + 1):  # the first is a warm-up
        start = time.perf_counter()
        ours = MF(32, epochs=20, learning_rate=0.01, l2=0.02, seed=number, num_threads=2).fit(train)
        seconds["recsys_lib.MF"].append(time.perf_counter() - start)
        errors["recsys_lib.MF"] = evaluate_ratings(ours, test).rmse
        if importlib.util.find_spec("cornac") is None:
            continue
        taken, theirs = cornac_mf(train)
        seconds["cornac.MF"].append(taken)
        errors["cornac.MF"] = evaluate_ratings(theirs, test).rmse
    print(f"MF, {len(train):,} ratings, d = 32, 20 epochs, 2 threads, {rounds} rounds")
    for name, values in seconds.items():
        if values:
            ratio = np.median(np.array(values[1:]) / np.array(seconds["recsys_lib.MF"][1:]))
            line = f"{np.median(values[1:]):8.3f} s  RMSE {errors[name]:.4f}  {ratio:.2f} of ours"
            print(f"{name:20} {line}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--fallback", choices=["synthetic"], default=None)
    parser.add_argument(
        "--job", choices=["gradient", "least_squares", "ratings", "all"], default="all"
    )
    arguments = parser.parse_args()
    split = load_split("ncf-ml-1m", fallback=arguments.fallback)
    print(machine_line())
    if arguments.job in ("gradient", "all"):
        gradient(split, arguments.rounds, arguments.rows)
    if arguments.job in ("least_squares", "all"):
        least_squares(split, max(1, arguments.rounds // 4))
    if arguments.job in ("ratings", "all"):
        ratings(split, arguments.rounds)


def gradient(split: Split, rounds: int, rows: int) -> None:
    """Print the table of epochs by gradient descent."""
    shuffled = np.random.default_rng(0).permutation(len(split.train))
    data = split.train.take(shuffled[:rows])
    trainers = {
        BASELINE: keras_fit(data, 256),
        "model.fit, batch 256, with XLA": keras_fit(data, 256, jit_compile=True),
        "model.fit, batch 8192": keras_fit(data, 8192),
        "model.fit, batch 8192, steps_per_execution 64": keras_fit(data, 8192, 64),
        "recsys_lib, batch 256": compiled_loop(data, 256),
        "recsys_lib, batch 8192, without XLA": compiled_loop(data, 8192, jit_compile=False),
        "recsys_lib, batch 8192": compiled_loop(data, 8192),
    }
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for number in range(rounds + 1):
        for name, epoch in trainers.items():
            start = time.perf_counter()
            epoch(number)
            seconds[name].append(time.perf_counter() - start)
    threads = tf.config.threading.get_intra_op_parallelism_threads() or "all"
    print(f"{len(data):,} ratings, {rounds} rounds, threads: {threads}; seconds an epoch")
    print(f"{'trainer':46} {'median':>8} {'p99':>8} {'M ratings/s':>12} {'ratio':>7}  (p10 - p90)")
    baseline = np.array(seconds[BASELINE][1:])
    for name, values in seconds.items():
        taken = np.array(values[1:])
        low, ratio, high = np.percentile(baseline / taken, [10, 50, 90])
        rate = len(data) / np.median(taken) / 1e6
        print(
            f"{name:46} {np.median(taken):8.3f} {np.percentile(taken, 99):8.3f} "
            f"{rate:12.3f} {ratio:7.1f}  ({low:.1f} - {high:.1f})"
        )


if __name__ == "__main__":
    main()
