"""Reproduce the published long run of matrix factorisation by gradient descent on ncf-ml-1m.

Published: HR@10 .7294, NDCG@10 .4523 (Rendle et al., *Neural Collaborative Filtering vs. Matrix
Factorization Revisited*, RecSys 2020; d = 192, 8 negatives, learning rate .002, regularisation
.005, 256 epochs).

What differs from the published code: updates are made per batch of 2,048 interactions with
``SGD(0.002 * 2048)`` instead of one by one with ``SGD(0.002)``, which moves every row by the sum of
the same gradients, taken at slightly older weights; the constant bias, which no ranking depends on,
stays 0; the last epoch counts, and the test items are not used to choose anything.

Run: ``python benchmarks/mf_long_run.py``. It can be stopped and started again: it goes on from its
checkpoint. The result is written to ``benchmarks/results/mf_long_run.txt`` at the end.
"""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from machine import machine_line

from recsys_lib.data import load_split
from recsys_lib.evaluation import evaluate_leave_one_out
from recsys_lib.models import RatingModelConfig, build_rating_model
from recsys_lib.training import History, KerasScorer, fit

HERE = Path(__file__).parent
EPOCHS = 256
BATCH_SIZE = 2048
LEARNING_RATE = 0.002
L2 = 0.005
NEGATIVES = 8
EMBEDDING_DIM = 191  # the published 192 count the bias


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--until", type=int, default=EPOCHS, help="stop after this epoch; the next start goes on"
    )
    parser.add_argument("--checkpoint", type=Path, default=HERE / "results/mf_long_run.npz")
    parser.add_argument("--output", type=Path, default=HERE / "results/mf_long_run.txt")
    arguments = parser.parse_args()
    arguments.checkpoint.parent.mkdir(exist_ok=True)

    split = load_split("ncf-ml-1m")
    model = build_rating_model(
        RatingModelConfig(
            "matrix_factorization", split.num_users, split.num_items, EMBEDDING_DIM, init_std=0.1
        )
    )
    scorer = KerasScorer(model)

    def report(epoch: int, logs: object) -> None:
        if epoch % 16 == 0:
            print(f"epoch {epoch:3d}: {evaluate_leave_one_out(scorer, split)}", flush=True)

    history = fit(
        model,
        split.train,
        optimizer=keras.optimizers.SGD(LEARNING_RATE * BATCH_SIZE),
        l2=L2,
        negatives_per_positive=NEGATIVES,
        batch_size=BATCH_SIZE,
        epochs=min(arguments.until, EPOCHS),
        checkpoint=arguments.checkpoint,
        on_epoch_end=report,
    )
    if history.epochs == EPOCHS:
        rows = len(split.train)
        text = result_text(history, rows, str(evaluate_leave_one_out(scorer, split)))
        arguments.output.write_text(text)
        arguments.checkpoint.unlink()  # the next start measures anew
        print(text)


def result_text(history: History, rows: int, result: str) -> str:
    return "\n".join(
        [
            f"Matrix factorisation by gradient descent, ncf-ml-1m, {datetime.now(UTC):%Y-%m-%d}",
            machine_line(),
            f"settings   d = {EMBEDDING_DIM} and a bias, {NEGATIVES} negatives, l2 {L2}, "
            f"SGD {LEARNING_RATE} x {BATCH_SIZE} (batch {BATCH_SIZE}), {EPOCHS} epochs, seed 0",
            f"time       {sum(history.seconds):,.0f} s of training, "
            f"{rows * history.epochs / sum(history.seconds):,.0f} interactions/s "
            f"({1 + NEGATIVES} scored pairs each)",
            f"loss       {history.loss[0]:.4f} in epoch 1, {history.loss[-1]:.4f} in the last",
            f"result     {result}",
            "published  HR@10 0.7294, NDCG@10 0.4523 (Rendle et al. 2020)",
            "",
        ]
    )


if __name__ == "__main__":
    main()
