"""What the chapters on four domains quote but cannot run themselves.

``--part music-ease``: EASE on all 17,632 artists of lastfm-hetrec2011-2k, whose matrix alone takes
1.2 GB. Its penalty is chosen on held-out *training* pairs of the artists with three listeners or
more, a matrix that is small enough to try several; then it is fitted once on all artists. Split: a
fifth of the rows at random (seed 0), as in ``benchmarks/defaults.py``. Stored are the ten best
artists of each test user, without those of the training part, so that a chapter computes from them
whatever it computes from the lists of its own models.

``python benchmarks/domains.py --part music-ease`` writes ``results/music_ease.csv`` (the run) and
``results/music_ease_lists.csv`` (the lists). About 4 GB of memory, ten minutes on one core.
"""

from __future__ import annotations

import argparse
import datetime
import resource
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from machine import machine_line

from recsys_lib.data import Interactions, Split, load_dataset
from recsys_lib.evaluation import evaluate_full_ranking
from recsys_lib.models import EASE

RESULTS = Path(__file__).parent / "results"
PENALTIES = (10.0, 30.0, 100.0, 300.0, 1000.0)


def of_items(data: Interactions, items: np.ndarray) -> Interactions:
    """Keep the rows of some items, numbered anew."""
    part = data.take(np.isin(data.item_ids, items))
    return replace(
        part,
        item_ids=np.searchsorted(items, part.item_ids),
        num_items=len(items),
        item_vocabulary=None,
        item_names=None,
        item_texts=None,
    )


def choose_penalty(train: Interactions, penalties: Sequence[float] = PENALTIES) -> float:
    """Return the penalty that ranks held-out training pairs of the better known items best."""
    known = np.flatnonzero(np.bincount(train.item_ids, minlength=train.num_items) >= 3)
    inner = Split(*of_items(train, known).split_random(0.15, seed=1))
    found = {}
    for l2 in penalties:
        model = EASE(l2).fit(inner.train)
        found[l2] = evaluate_full_ranking(model, inner.train, inner.test).ndcg
        print(f"l2 {l2:g}: NDCG@10 {found[l2]:.4f} on held-out pairs of {len(known)} artists")
    return max(found, key=lambda l2: found[l2])


def music_ease() -> None:
    """Fit EASE on all artists, and store the lists of the test users."""
    data = load_dataset("lastfm-hetrec2011-2k", progress=False)
    split = Split(*data.split_random(0.2, seed=0))
    l2, started = choose_penalty(split.train), time.perf_counter()
    model = EASE(l2).fit(split.train)
    seconds = time.perf_counter() - started
    judged = evaluate_full_ranking(model, split.train, split.test)
    print(judged)
    lists = model.recommend(judged.user_ids, k=10, exclude=split.train)
    run = {
        "l2": l2,
        "ndcg": round(judged.ndcg, 5),
        "bytes": model.item_weights.nbytes,
        "seconds": round(seconds),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 1),
        "date": datetime.date.today().isoformat(),
        "machine": machine_line(),
    }
    pd.DataFrame([run]).to_csv(RESULTS / "music_ease.csv", index=False)
    frame = pd.DataFrame(lists, judged.user_ids, [f"item_{n}" for n in range(1, 11)])
    frame.rename_axis("user").to_csv(RESULTS / "music_ease_lists.csv")


PARTS = {"music-ease": music_ease}


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--part", required=True, choices=PARTS)
    PARTS[parser.parse_args().part]()


if __name__ == "__main__":
    main()
