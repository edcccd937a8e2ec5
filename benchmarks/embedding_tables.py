"""Choose the settings of small tables on validation users: ranges of rows, constants of rounding.

For each seed, one training interaction of every user of ncf-ml-1m is held out; iALS with 192
dimensions is fitted on the rest, and NDCG@10 of the held-out item among 99 sampled negatives judges
what becomes of the tables. The test items take no part.

"ranges": 4-bit rows with the range of the row ("minmax"), or that of least squared error ("mse").
"transform": transform coding with all pairs of a few values of ``round_up_from`` and
``user_exponent``, at several errors; what is compared is the loss at equal bytes, interpolated.

``python benchmarks/embedding_tables.py --seed 0`` (and 1, 2; each about three minutes on one core)
adds rows to ``benchmarks/results/embedding_tables.csv``, or replaces them; ``--summary`` prints
what they say.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from machine import machine_line

from recsys_lib.compression.quantization.transform import TransformCoding, transform_code
from recsys_lib.compression.quantization.uniform import UniformQuantization, quantize_uniform
from recsys_lib.data import Split, load_dataset, sample_negatives
from recsys_lib.evaluation import evaluate_leave_one_out
from recsys_lib.models import IALS

RESULTS = Path(__file__).parent / "results" / "embedding_tables.csv"
ERRORS = (0.12, 0.18, 0.26, 0.36)
ROUND_UP_FROM = (0.5, 0.55, 0.6, 0.65)
USER_EXPONENT = (0.0, 0.5, 0.75, 1.0)
AT = (1 / 16, 1 / 32)  # shares of the float32 bytes


class Vectors:
    """Scores every pair once; the protocol then only picks."""

    def __init__(self, user_vectors: Any, item_vectors: Any) -> None:
        self.all_scores = user_vectors @ item_vectors.T

    def score(self, user_ids: Any, item_ids: Any) -> Any:
        """Score pairs (n,), (n,) to (n,)."""
        return self.all_scores[user_ids, item_ids]


def hold_out(split: Split, seed: int) -> Split:
    """Take one training interaction away from each user; the test items stay unseen."""
    shuffled = np.random.default_rng(seed).permutation(len(split.train))
    _, first = np.unique(split.train.user_ids[shuffled], return_index=True)
    held = np.zeros(len(split.train), bool)
    held[shuffled[first]] = True
    validation = split.train.take(held)
    return Split(split.train.take(~held), validation, sample_negatives(split.train, validation, 99))


def measure(seed: int) -> pd.DataFrame:
    """Give a row for each setting: its bytes as a share of float32, and NDCG@10."""
    split = hold_out(load_dataset("ncf-ml-1m"), seed)
    model = IALS(embedding_dim=192, seed=seed).fit(split.train)
    tables = (model.user_vectors, model.item_vectors)
    whole = sum(table.nbytes for table in tables)
    rows: list[dict[str, Any]] = []

    def note(part: str, setting: str, error: float, nbytes: int, *vectors: Any) -> None:
        ndcg = evaluate_leave_one_out(Vectors(*vectors), split, k=10).ndcg
        rows.append({"seed": seed, "part": part, "setting": setting, "error": error,
                     "share": round(nbytes / whole, 6), "ndcg": round(ndcg, 6)})  # fmt: skip
        print(rows[-1], flush=True)

    note("float32", "", 0, whole, *tables)
    for search in ("minmax", "mse"):
        rows_of = UniformQuantization(4, granularity="row", scale_search=search)
        stored = [quantize_uniform(table, rows_of) for table in tables]
        note("ranges", search, 0, sum(t.nbytes for t in stored), *[t.decode() for t in stored])
    for up, power in itertools.product(ROUND_UP_FROM, USER_EXPONENT):
        for error in ERRORS:
            config = TransformCoding(error, round_up_from=up, user_exponent=power)
            coded = transform_code(model, config)
            vectors = (coded.model.user_vectors, coded.model.item_vectors)
            note("transform", f"up from {up}, users {power}", error, coded.nbytes, *vectors)
    return pd.DataFrame(rows)


def summarize(rows: pd.DataFrame) -> pd.DataFrame:
    """Give the loss of NDCG@10 in percent: of 4-bit rows, and of the others at equal bytes."""
    found = []
    for seed, mine in rows.groupby("seed"):
        base = mine.loc[mine["part"] == "float32", "ndcg"].iloc[0]
        for (part, setting), curve in mine[mine["part"] != "float32"].groupby(["part", "setting"]):
            curve = curve.sort_values("share")
            loss = 100 * (1 - curve["ndcg"] / base)
            row = {"seed": seed, "part": part, "setting": setting}
            if part == "ranges":
                row["4 bits"] = loss.iloc[0]
            else:
                row |= {f"1/{round(1 / s)}": np.interp(np.log(s), np.log(curve["share"]), loss)
                        for s in AT}  # fmt: skip
            found.append(row)
    names = ["4 bits"] + [f"1/{round(1 / s)}" for s in AT]
    return pd.DataFrame(found).groupby(["part", "setting"])[names].agg(["mean", "sem"]).round(3)


def main() -> None:
    """Measure one seed, or print the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--summary", action="store_true")
    options = parser.parse_args()
    stored = pd.read_csv(RESULTS, dtype={"setting": str}) if RESULTS.exists() else pd.DataFrame()
    if not options.summary:
        rows = measure(options.seed)
        rows["date"], rows["machine"] = datetime.date.today().isoformat(), machine_line()
        rows["command"] = f"python benchmarks/embedding_tables.py --seed {options.seed}"
        others = stored[stored["seed"] != options.seed] if len(stored) else stored
        stored = pd.concat([others, rows]).sort_values("seed", kind="stable")
        stored.to_csv(RESULTS, index=False)
    print(summarize(stored).to_string())


if __name__ == "__main__":
    main()
