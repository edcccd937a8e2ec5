"""How often a search breaks its promise: choices of some users, judged by the others.

For each data set: the model of seed 0 of ``benchmarks/front.py``, and 20 divisions of its test
users into a third that chooses and the rest that judges. A promise is "loses at most 1 % of
NDCG@10". It is broken when the change on the judging users is below that, and *surely* broken when
all of its 95 % interval is: judging users are few as well, so some of the first kind are their
noise.
Confidence 95 % chooses by the lower end of the interval of the choosing users, which is what
``search_recipe`` does; 50 % by the change itself, which is what it did before.

Every recipe is compressed once a data set, and what each user found is kept for all divisions.

``python benchmarks/calibration.py`` writes ``benchmarks/results/calibration.csv``;
``python benchmarks/front.py`` does so on its way. Intervals of shares are Wilson's.
"""

from __future__ import annotations

import datetime
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from machine import machine_line

from recsys_lib.recipe import hold_out_users
from recsys_lib.recipe.compress import relative_change
from recsys_lib.recipe.measure import least_change

RESULTS = Path(__file__).parent / "results" / "calibration.csv"
DIVISIONS, BUDGET = 20, 0.01


def wilson(count: int, of: int, z: float = 1.96) -> tuple[float, float]:
    """Return the 95 % interval of a share.

    Example:
        >>> [round(end, 3) for end in wilson(0, 20)]
        [0.0, 0.161]
    """
    share = count / of
    middle, spread = (
        share + z * z / (2 * of),
        z * (share * (1 - share) / of + (z / (2 * of)) ** 2) ** 0.5,
    )
    low, high = ((middle + sign * spread) / (1 + z * z / of) for sign in (-1, 1))
    return max(low, 0.0), high


def calibrate(bench: Any, name: str) -> pd.DataFrame:
    """Return one row for each account and confidence; ``bench`` is that of benchmarks/front.py."""
    from front import of_users

    rows = []
    for account in ("self-contained", "items"):
        for confidence in (0.95, 0.5):
            changes, least, most, sizes, users = [], [], [], [], 0
            for seed in range(DIVISIONS):
                halves = hold_out_users(bench.split, 1 / 3, seed)
                chooses, judges = (np.unique(half.test.user_ids) for half in halves)
                users = len(chooses)
                best = bench.search(chooses, account, confidence)
                if best is None:
                    continue
                old, new = (
                    of_users(bench.run(recipe, account)[0], judges) for recipe in ([], best.recipe)
                )
                change, low = relative_change(new.ndcg, old.ndcg), least_change(old, new, 0.975)
                changes.append(change)
                least.append(low)
                most.append(2 * change - low)
                sizes.append(bench.run([], account)[1] / best.file_bytes)
            broken, surely = (int(np.sum(np.array(c) < -BUDGET)) for c in (changes, most))
            ends = wilson(broken, max(len(changes), 1))
            rows.append({
                "data": name, "account": account, "confidence": confidence, "budget": BUDGET,
                "choosing_users": users, "divisions": DIVISIONS, "promises": len(changes),
                "broken": broken, "broken_low": ends[0], "broken_high": ends[1],
                "surely_broken": surely, "mean_change": np.mean(changes) if changes else np.nan,
                "worst_change": np.min(changes) if changes else np.nan,
                "median_ratio": np.median(sizes) if sizes else np.nan,
                "smallest_ratio": np.min(sizes) if sizes else np.nan,
            })  # fmt: skip
            print(rows[-1], flush=True)
    frame = pd.DataFrame(rows).round(5)
    return frame.assign(date=datetime.date.today().isoformat(), machine=machine_line())


def main() -> None:
    """Fit the model of each data set and calibrate."""
    from front import DATA, DIM, Bench, load, store, teacher_settings

    from recsys_lib.models import IALS

    for name in DATA:
        split = load(name)
        model = IALS(DIM, seed=0, **teacher_settings(name)[1]).fit(split.train)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            store(calibrate(Bench(split, model), name), RESULTS, name)


if __name__ == "__main__":
    main()
