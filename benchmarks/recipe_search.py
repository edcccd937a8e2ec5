"""The search of chapter 14 with models and users that took no part in writing the chapter.

For each data set and seed: iALS with 192 dimensions is fitted with that seed, and that seed divides
the test users into a third that chooses and the rest that reports. The call is the one of the
chapter, unchanged: its families of recipes, half a percent of NDCG@10 as the budget, both accounts;
then the default ``RateDistortion``, with the chapter's ensemble as teacher, on the users that
report. They are asked once a file. ``--trained`` measures that last file alone and keeps the rows
of the searches.

- ncf-ml-1m, seeds 1, 2, 3: other models and other divisions than the chapter's, whose seed is 0.
  Its test users are those of the whole book, so they are not untouched.
- adressa-macr, seed 0: clicks on news. No setting of any chapter of Part III was chosen on it, and
  no figure was seen before this run. All 744 articles that a user has not met are ranked.

``citeulike-derrd`` can be given as well and takes a quarter of an hour. It was stopped after its
first file (self-contained, 32 times smaller, -.5 % with an interval from -3.2 to +2.2 %): the
published settings of the model, which are for films, reach an NDCG@10 of only .018 there.

``python benchmarks/recipe_search.py --data ncf-ml-1m --seed 1`` adds rows to
``benchmarks/results/recipe_search.csv``, or replaces them.
"""

from __future__ import annotations

import argparse
import datetime
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pandas as pd
from machine import machine_line
from teachers import model_and_ease

from recsys_lib.compression import save_compressed
from recsys_lib.compression.quantization import (
    RateDistortion,
    TransformCoding,
    UniformQuantization,
)
from recsys_lib.data import load_split
from recsys_lib.models import IALS
from recsys_lib.recipe import (
    CompressionResult,
    EntropyCode,
    Quantize,
    ReduceDimensions,
    compress,
    hold_out_users,
    search_recipe,
)

RESULTS = Path(__file__).parent / "results" / "recipe_search.csv"

# These lines are those of the chapter; tests/test_readme_table.py compares them.
four_bits = Quantize(UniformQuantization(bits=4, scale_search="mse"))
families: dict[str, Any] = {
    "rounding": [[Quantize(UniformQuantization(8))]],
    "fewer dimensions": [[ReduceDimensions(d), four_bits, EntropyCode()] for d in (160, 96, 64)],
    "transform coding": [
        [Quantize(TransformCoding(round(0.03 * 1.12**n, 4), contexts="size"))] for n in range(24)
    ],
}


def measure(name: str, seed: int, trained_alone: bool) -> Iterator[dict[str, Any]]:
    """Fit, search and report; one row for each file."""
    split = load_split(name)
    model = IALS(embedding_dim=192, seed=seed, l2=0.007, unobserved_weight=0.3).fit(split.train)
    path = RESULTS.with_suffix(f".{name}-{seed}.tmp")
    whole = save_compressed(path, model)
    path.unlink()

    def note(
        account: str, way: str, result: CompressionResult, change: float | None
    ) -> dict[str, Any]:
        first, last = result.stages[0], result.stages[-1]
        low, high = last.change_interval
        found_row = {
            "data": name, "seed": seed, "account": account, "way": way,
            "setting": " -> ".join(stage.name for stage in result.stages[1:]),
            "validation_change": None if change is None else round(change, 5),
            "users": len(set(reports.test.user_ids.tolist())),
            "start_ndcg": round(first.ndcg, 5), "ndcg": round(last.ndcg, 5),
            "change": round(last.change, 5), "low": round(low, 5), "high": round(high, 5),
            "bytes": last.file_bytes, "ratio": round(whole / last.file_bytes, 2),
        }  # fmt: skip
        print(found_row, flush=True)
        return found_row

    _, reports = hold_out_users(split, 1 / 3, seed)
    for account in () if trained_alone else ("self-contained", "items"):
        found = search_recipe(
            model, split, 0.005, timer=None, account=account, recipes=families, seed=seed,
            progress=False,
        )  # fmt: skip
        if found.best is not None and found.result is not None:
            yield note(account, "searched", found.result, found.best.change)
    teacher = model_and_ease(model, split.train)
    trained = compress(model, [Quantize(RateDistortion(), teacher=teacher)], reports, None)
    yield note("self-contained", "trained for the file", trained, None)


def main() -> None:
    """Measure one model and store it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", default="ncf-ml-1m")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--trained", action="store_true", help="only the file trained for its size")
    options = parser.parse_args()
    started = time.perf_counter()
    rows = []
    for found_row in measure(options.data, options.seed, options.trained):
        rows.append(found_row | {"seconds": round(time.perf_counter() - started)})
        frame = pd.DataFrame(rows).assign(
            date=datetime.date.today().isoformat(),
            machine=machine_line(),
            command=f"python benchmarks/recipe_search.py --data {options.data} "
            f"--seed {options.seed}" + (" --trained" if options.trained else ""),
        )
        if RESULTS.exists():
            old = pd.read_csv(RESULTS)
            same = (old["data"] == options.data) & (old["seed"] == options.seed)
            if options.trained:
                same &= old["way"] == "trained for the file"
            frame = pd.concat([old[~same], frame], ignore_index=True)
        frame.sort_values(["data", "seed"], kind="stable").to_csv(RESULTS, index=False)


if __name__ == "__main__":
    main()
