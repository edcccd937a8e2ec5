"""Our codes beside those of ``bitbudget``, a public benchmark of quality per byte.

``bitbudget`` 0.3 (S. Moran; ``pip install bitbudget``) scores queries against compressed documents
by a dozen small functions in NumPy. Here users are the queries, in float32 on both sides, and items
the documents: the same vectors of one IALS with 128 dimensions for a data set, all unseen items
ranked for up to 3,000 test users. Each of its methods stands beside what this library has of the
same kind and the same bits.

- Bytes are all that a search needs: codes, scales, codebooks, rotations, headers, and what a second
  ranking reads. ``bitbudget`` counts the code of a vector alone ("bytes_claimed"); what else its
  functions use is added ("bytes_bitbudget"), most of all the float vectors that its binary+rerank
  ranks again by. A rotation that a seed gives is taken for free there, and is counted here.
- Its binary+rerank knows of no seen items, so each user's shortlist is made longer by the number of
  items that user has seen: 100 unseen ones or more, where ours has 100.
- Its matryoshka cuts vectors as they come, which is meant for those trained to be cut. It is run
  as well on the vectors in principal axes ("matryoshka, principal axes"), where ours cuts.
- "change" is the paired change of our NDCG@10 against that of ``bitbudget``, with a 95 % interval.

``python benchmarks/outside_check.py`` writes ``benchmarks/results/outside_check.csv``; ``--data``
does one data set.
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from front import DATA, DIM, load, store, teacher_settings
from machine import machine_line
from threadpoolctl import threadpool_limits

from recsys_lib.compression.pruning import rotate_to_principal_axes
from recsys_lib.compression.quantization import (
    ProductQuantization,
    SignQuantization,
    UniformQuantization,
)
from recsys_lib.compression.tensors import DenseTensor
from recsys_lib.data import Split
from recsys_lib.evaluation import RankingResult, evaluate_full_ranking, paired_change
from recsys_lib.models import IALS

RESULTS = Path(__file__).parent / "results" / "outside_check.csv"
MOST_USERS, SHORTLIST = 3000, 100
EIGHT, FOUR = (UniformQuantization(bits, scale_search="mse") for bits in (8, 4))
SIGNS = {"rotation": "none", "scale": "least squares"}


class Pair(NamedTuple):
    """A method of theirs, what it uses beside the codes (in bytes), and what is like it here."""

    theirs: str
    aside: Callable[[int, int], float]  # (items, dimensions)
    ours: Any
    cut: bool = False


PAIRS = {
    "float32": Pair("float32", lambda n, d: 0, None),
    "float16": Pair("float16", lambda n, d: 0, "float16"),
    "8 bits": Pair("int8", lambda n, d: 4 * d, EIGHT),
    "4 bits": Pair("int4", lambda n, d: 4 * d, FOUR),
    "one bit": Pair("binary", lambda n, d: 0, SignQuantization(centered=False, **SIGNS)),
    "one bit, centred": Pair("binary-mean", lambda n, d: 4 * d, SignQuantization(**SIGNS)),
    "one bit, RaBitQ": Pair("rabitq", lambda n, d: 0, SignQuantization()),
    "one bit, ranked again": Pair(
        "binary+rerank", lambda n, d: 4 * n * d, SignQuantization(rerank=EIGHT)
    ),
    "product": Pair("pq", lambda n, d: 4 * 256 * d, ProductQuantization(DIM // 8, bits=8)),
    "a quarter of the dimensions": Pair("matryoshka", lambda n, d: 0, DIM // 4),
    "a quarter, principal axes": Pair("matryoshka", lambda n, d: 0, DIM // 4, True),
    "a quarter, PCA": Pair("pca", lambda n, d: 4 * d * (1 + d / 4), DIM // 4),
}


class Scores:
    """Scores (users, items) that were computed before; all other users are never asked."""

    def __init__(self, users: Any, table: Any) -> None:
        self.row = np.zeros(users.max() + 1, np.int64)
        self.row[users], self.table = np.arange(len(users)), table

    def score_all_items(self, user_ids: Any) -> Any:
        """Look scores up."""
        return self.table[self.row[user_ids]]


def of_theirs(pair: Pair, items: Any, users: Any, seen: Any) -> tuple[Any, float]:
    """Return scores, and the bytes a vector that the method says it takes."""
    from bitbudget import METHODS

    if pair.theirs != "binary+rerank":
        return METHODS[pair.theirs](items, users)
    lengths, table = np.diff(seen.indptr), np.empty((len(users), len(items)), np.float32)
    for length in np.unique(lengths):
        some, depth = lengths == length, SHORTLIST + int(length)
        table[some], claimed = METHODS["binary+rerank"](items, users[some], depth=depth)
    return table, claimed


def of_ours(pair: Pair, items: Any, users: Any, axes: Any, seen: Any) -> tuple[Any, int]:
    """Return scores and all bytes."""
    if isinstance(pair.ours, int):
        cut_users, cut_items = (table[:, : pair.ours] for table in axes)
        return cut_users @ cut_items.T, DenseTensor(cut_items, dtype="float32").nbytes
    if pair.ours is None or isinstance(pair.ours, str):
        tensor: Any = DenseTensor(items, dtype=pair.ours or "float32")
    else:
        tensor = pair.ours.encode(items)
    scores = users @ tensor.decode().T
    if "again" in tensor.header():
        rough = users @ tensor.shortlist_vectors().T
        rough[seen.nonzero()] = -np.inf
        limit = -np.partition(-rough, SHORTLIST - 1, axis=1)[:, SHORTLIST - 1 : SHORTLIST]
        scores = np.where(rough >= limit, scores, scores.min() - 1)
    return scores, tensor.nbytes


def compare(
    split: Split, model: Any, pairs: dict[str, Pair] = PAIRS, most_users: int = MOST_USERS
) -> list[dict[str, Any]]:
    """Return one row for each pair."""
    asked = np.unique(split.test.user_ids)
    asked = np.sort(np.random.default_rng(0).permutation(asked)[:most_users])
    test = split.test.take(np.isin(split.test.user_ids, asked))
    seen = split.train.to_csr("binary")[asked]
    items, users = model.item_vectors, model.user_vectors[asked]
    turned = rotate_to_principal_axes(model.user_vectors, items)
    axes = turned.user_vectors[asked], turned.item_vectors

    def judge(scores: Any) -> RankingResult:
        return evaluate_full_ranking(Scores(asked, scores), split.train, test)

    rows = []
    for name, pair in pairs.items():
        given = (axes[1], axes[0]) if pair.cut else (items, users)
        scores, claimed = of_theirs(pair, *given, seen)
        theirs = judge(scores)
        scores, size = of_ours(pair, items, users, axes, seen)
        ours = judge(scores)
        all_bytes = len(items) * claimed + pair.aside(*items.shape)
        change = paired_change(ours, theirs)
        rows.append({
            "kind": name, "bitbudget": pair.theirs, "users": len(asked), "items": len(items),
            "ndcg_bitbudget": theirs.ndcg, "ndcg": ours.ndcg,
            "change": change.value, "low": change.low, "high": change.high,
            "bytes_claimed": round(len(items) * claimed), "bytes_bitbudget": round(all_bytes),
            "bytes": size,
        })  # fmt: skip
        del scores
    return rows


def main() -> None:
    """Measure the data sets and store the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", choices=DATA, action="append")
    for name in parser.parse_args().data or DATA:
        split = load(name)
        source, settings = teacher_settings(name)
        with threadpool_limits(1):
            model = IALS(DIM, seed=0, **settings).fit(split.train)
            frame = pd.DataFrame(compare(split, model)).round(5)
        frame.insert(0, "data", name)
        frame = frame.assign(teacher=source, date=datetime.date.today().isoformat(),
                             machine=machine_line())  # fmt: skip
        store(frame, RESULTS, name)
        print(frame.iloc[:, :11].to_string(), flush=True)


if __name__ == "__main__":
    main()
