"""Small tables: their settings chosen on validation items, and seven ways to train one.

"settings": one training interaction of every user of ncf-ml-1m is held out; iALS with 192
dimensions is fitted on the rest, and NDCG@10 of the held-out item among 99 sampled negatives judges
what becomes of the tables. The test items take no part.

- "ranges": 4-bit rows with the range of the row ("minmax"), or that of least squared error
  ("mse").
- "transform": transform coding with all pairs of a few values of ``round_up_from`` and
  ``user_exponent``, at several errors; what is compared is the loss at equal bytes, interpolated.

"trained": a dot product trained on ml-100k (80 % of the ratings, NDCG@10 of the full ranking for
the rest), with a float32 table of 32 dimensions and with six kinds of tables of an eighth of its
bytes, as in chapter 11. Ties are broken by one random order of the items, for all tables alike;
``ndcg_ties_lost`` counts them against the model, as everywhere else.

``python benchmarks/embedding_tables.py --part settings --seed 0`` (parts settings, trained; seeds
0, 1, 2; a few minutes each on one core) adds rows to ``benchmarks/results/embedding_tables.csv``,
or replaces them; ``--summary`` prints what they say.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pandas as pd
from machine import machine_line

from recsys_lib.compression.embedding_tables import (
    Hashing,
    LowRank,
    MixedDimension,
    QuotientRemainder,
    RowwiseBits,
    compress_embeddings,
    store_embeddings,
)
from recsys_lib.compression.quantization import TransformCoding, UniformQuantization, quantize
from recsys_lib.data import Split, load_dataset, load_split, sample_negatives
from recsys_lib.evaluation import evaluate_full_ranking, evaluate_leave_one_out
from recsys_lib.models import IALS, RatingModelConfig, build_rating_model, inner_product_vectors
from recsys_lib.training import fit

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


class FullRanking:
    """Scores of all items for some users; a tiny number for each item breaks ties."""

    def __init__(self, user_vectors: Any, item_vectors: Any, order: Any = 0.0) -> None:
        self.users, self.items = (t.astype(np.float64) for t in (user_vectors, item_vectors))
        self.order = order

    def score_all_items(self, user_ids: Any) -> Any:
        """Score users (b,): (b, items)."""
        return self.users[user_ids] @ self.items.T + self.order


def hold_out(split: Split, seed: int) -> Split:
    """Take one training interaction away from each user; the test items stay unseen."""
    shuffled = np.random.default_rng(seed).permutation(len(split.train))
    _, first = np.unique(split.train.user_ids[shuffled], return_index=True)
    held = np.zeros(len(split.train), bool)
    held[shuffled[first]] = True
    validation = split.train.take(held)
    return Split(split.train.take(~held), validation, sample_negatives(split.train, validation, 99))


def measure_settings(seed: int) -> pd.DataFrame:
    """Give a row for each setting: its bytes as a share of float32, and NDCG@10."""
    split = hold_out(load_split("ncf-ml-1m"), seed)
    model = IALS(embedding_dim=192, seed=seed, l2=0.007, unobserved_weight=0.3).fit(split.train)
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
        stored = [quantize(table, rows_of) for table in tables]
        note("ranges", search, 0, sum(t.nbytes for t in stored), *[t.decode() for t in stored])
    for up, power in itertools.product(ROUND_UP_FROM, USER_EXPONENT):
        for error in ERRORS:
            config = TransformCoding(error, round_up_from=up, user_exponent=power)
            coded = quantize(model, config)
            vectors = (coded.model.user_vectors, coded.model.item_vectors)
            note("transform", f"up from {up}, users {power}", error, coded.nbytes, *vectors)
    return pd.DataFrame(rows)


def measure_trained(seed: int) -> pd.DataFrame:
    """Train each kind of table; give a row for each: share of the float32 bytes, and NDCG@10."""
    train, test = load_dataset("ml-100k").split_random(0.2, seed=0)
    counts = {
        "user_embedding": np.bincount(train.user_ids, minlength=train.num_users),
        "item_embedding": np.bincount(train.item_ids, minlength=train.num_items),
    }
    quarter = {name: Hashing(len(rows) // 4) for name, rows in counts.items()}
    ways: dict[str, tuple[int, Any]] = {
        "float32, 32 dimensions": (32, None),
        "a smaller d": (8, None),
        "hashing": (32, quarter),
        "quotient-remainder": (32, QuotientRemainder(4)),
        "low rank": (32, LowRank(8)),
        "mixed dimension": (32, MixedDimension(num_blocks=4, temperature=1.1)),
        "row-wise 4 bits": (24, RowwiseBits(4)),
    }
    rows, whole = [], 4 * 32 * (train.num_users + train.num_items)
    order = 1e-6 * np.random.default_rng(0).permutation(train.num_items) / train.num_items
    for way, (dim, scheme) in ways.items():
        config = RatingModelConfig("dot_product", train.num_users, train.num_items, dim, seed=seed)
        model = build_rating_model(config)
        if scheme is not None:
            model = compress_embeddings(model, scheme, counts=counts, seed=seed)
        fit(model, train, objective="sampled_softmax", epochs=8, batch_size=4096, seed=seed,
            optimizer=keras.optimizers.Adam(0.01), jit_compile=False, progress=False)  # fmt: skip
        nbytes = (4 if dim == 32 else 2) * dim * (train.num_users + train.num_items)
        if scheme is not None:
            stored = store_embeddings(model)
            model, nbytes = stored.model, stored.nbytes
        vectors: Any = inner_product_vectors(model)
        broken, lost = (
            evaluate_full_ranking(FullRanking(*vectors, some), train, test, k=10).ndcg
            for some in (order, 0.0)
        )
        rows.append({"seed": seed, "part": "trained", "setting": way, "error": 0,
                     "share": round(nbytes / whole, 6), "ndcg": round(broken, 6),
                     "ndcg_ties_lost": round(lost, 6)})  # fmt: skip
        print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def summarize(rows: pd.DataFrame) -> pd.DataFrame:
    """Give the loss of NDCG@10 in percent: of 4-bit rows, and of the others at equal bytes."""
    found = []
    for seed, mine in rows[rows["part"] != "trained"].groupby("seed"):
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


PARTS = {"settings": measure_settings, "trained": measure_trained}


def main() -> None:
    """Measure one part with one seed, or print the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=list(PARTS), default="settings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--summary", action="store_true")
    options = parser.parse_args()
    stored = pd.read_csv(RESULTS, dtype={"setting": str}) if RESULTS.exists() else pd.DataFrame()
    if not options.summary:
        rows = PARTS[options.part](options.seed)
        rows["date"], rows["machine"] = datetime.date.today().isoformat(), machine_line()
        call = f"--part {options.part} --seed {options.seed}"
        rows["command"] = f"python benchmarks/embedding_tables.py {call}"
        if RESULTS.exists():
            stored = pd.read_csv(RESULTS, dtype={"setting": str})
            same = stored["part"].isin(rows["part"].unique()) & (stored["seed"] == options.seed)
            stored = stored[~same]
        stored = pd.concat([stored, rows]).sort_values(["part", "seed"], kind="stable")
        stored.to_csv(RESULTS, index=False)
    trained = stored[stored["part"] == "trained"]
    print(trained.groupby("setting")[["share", "ndcg"]].agg(["mean", "sem"]).round(4).to_string())
    if (stored["part"] != "trained").any():
        print(summarize(stored).to_string())


if __name__ == "__main__":
    main()
