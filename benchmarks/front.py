"""Quality against bytes for every way to store a model, on five data sets, one of them MovieLens.

For each data set: iALS with 128 dimensions, fitted with three seeds. Its two weights are those that
40 trials on held-out training rows chose (``benchmarks/results/defaults.csv``), those published
for ncf-ml-1m, and where there are neither those of the rule that ``IALS()`` has; ``teacher`` says
which.
Every recipe is run on each of the three models, written to a file and read again.

- One population a table: two thirds of the test users report; the other third chose what
  ``search_recipe`` chooses (budget 1 %, confidence 95 %), and reports nothing. It chooses once, by
  the first model, and what was chosen is run on all three.
- All unseen items are ranked; on ncf-ml-1m the 99 given negatives as well.
- Three accounts: a self-contained file; items only, with the bytes of the histories that a service
  then has to keep; and items only without them. ``ratio`` is against the float32 file of the same
  account, so that leaving out users gains nothing by itself.
- The change of NDCG@10 is paired, over users and seeds: both are drawn with replacement.
- All latencies of a data set come from one run, in turns, seed 0: the ten best of the catalogue for
  one user, by one exact index over the decoded vectors; from items only, with fold-in. The range is
  that of the medians of rounds.
- "trained for the file" is rate-distortion with 400 steps, to keep the whole within 20 minutes.
- "ranked again" is measured as it is served: a shortlist of 100 by one bit, ranked again in 8 bits.

``python benchmarks/front.py --data lastfm-hetrec2011-2k`` adds rows to
``benchmarks/results/front.csv``, or replaces them; all data sets without ``--data``.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import lzma
import os
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd
from calibration import RESULTS as CALIBRATION
from calibration import calibrate
from machine import machine_line
from threadpoolctl import threadpool_limits

from recsys_lib.compression import load_compressed, save_compressed
from recsys_lib.compression.quantization import (
    ProductQuantization,
    RateDistortion,
    ResidualQuantization,
    SignQuantization,
    TransformCoding,
    UniformQuantization,
)
from recsys_lib.data import Interactions, Split, load_dataset, load_split
from recsys_lib.evaluation import RankingResult, evaluate_full_ranking, evaluate_leave_one_out
from recsys_lib.models import IALS
from recsys_lib.models.factors import Factors
from recsys_lib.recipe import EntropyCode, Quantize, ReduceDimensions, hold_out_users
from recsys_lib.recipe.compress import relative_change
from recsys_lib.recipe.families import default_recipes
from recsys_lib.recipe.measure import least_change, time_all
from recsys_lib.recipe.search import Trial, bisect_families, choose
from recsys_lib.recipe.steps import start
from recsys_lib.serving import compare_latency

FOLDER = Path(__file__).parent / "results"
RESULTS, TEACHERS = FOLDER / "front.csv", FOLDER / "defaults.csv"
DATA = ("ncf-ml-1m", "online-retail", "lastfm-hetrec2011-2k", "adressa-macr", "citeulike-derrd")
DIM, SEEDS, SHORTLIST, BUDGET = 128, (0, 1, 2), 100, 0.01
ACCOUNTS = ("self-contained", "items")


def recipes(dim: int = DIM) -> dict[str, list[Any]]:
    """Return what is compared; a row of n numbers of b bits takes n b / 8 bytes and a scale."""

    def bits(number: int) -> Quantize:
        return Quantize(UniformQuantization(number, scale_search="mse"))

    def items(config: Any, users: int = 4) -> Quantize:
        return Quantize({"user_vectors": bits(users).config, "item_vectors": config})

    code = EntropyCode()
    signs = SignQuantization("none", centered=False, scale="least squares")
    return {
        "float32": [],
        "8-bit rows": [bits(8)],
        "4-bit rows": [bits(4)],
        "4-bit rows, coded": [bits(4), code],
        "2-bit rows": [bits(2)],
        "half the dimensions, 8 bits": [ReduceDimensions(dim // 2), bits(8)],
        "half the dimensions, 4 bits": [ReduceDimensions(dim // 2), bits(4)],
        "half the dimensions, 4 bits, coded": [ReduceDimensions(dim // 2), bits(4), code],
        "an eighth of the dimensions, float32": [ReduceDimensions(dim // 8)],
        "transform coding, error .1": [Quantize(TransformCoding(0.1, contexts="size"))],
        "trained for the file": [Quantize(RateDistortion(max_steps=400))],
        "one bit, signs": [items(signs)],
        "one bit, RaBitQ": [items(SignQuantization())],
        "one bit, ranked again": [items(SignQuantization(rerank=bits(8).config), 8)],
        "residual, a bit a number": [items(ResidualQuantization(dim // 4))],
        "product, a bit a number": [items(ProductQuantization(dim // 4, bits=4))],
    }


def load(name: str) -> Split:
    """Return the split of a data set, without negatives."""
    if name in ("online-retail", "lastfm-hetrec2011-2k", "ml-latest-small"):
        return Split(*load_dataset(name).split_leave_one_out(), name=name)
    split = load_split(name)
    return Split(split.train, split.test, name=name)


def teacher_settings(name: str) -> tuple[str, dict[str, Any]]:
    """Return where the two weights of iALS come from, and them; none for those of the rule."""
    if name == "ncf-ml-1m":
        return "published", {"l2": 0.007, "unobserved_weight": 0.3}
    known = pd.read_csv(TEACHERS)
    row = known[(known.data == name) & (known.model == "IALS") & (known.settings == "tuned")]
    if row.empty:
        return "rule", {}
    return "tuned", {key: float(row.iloc[0][key]) for key in ("l2", "unobserved_weight")}


class TwoStages:
    """Ranks a shortlist by one bit a number, and that by the better copy; all else comes last."""

    def __init__(self, model: Factors, first: Any, seen: Any) -> None:
        self.model, self.first, self.seen = model, first, seen

    def score_all_items(self, user_ids: Any) -> Any:
        """Score all items for users (b,): (b, num_items)."""
        rough = self.model._users()[user_ids] @ self.first.T
        rough[self.seen[user_ids].nonzero()] = -np.inf
        limit = -np.partition(-rough, SHORTLIST - 1, axis=1)[:, SHORTLIST - 1 : SHORTLIST]
        scores = self.model.score_all_items(user_ids)
        return np.where(rough >= limit, scores, scores.min() - 1)


class Bench:
    """Runs recipes on one model; what each user found is kept, for all test users."""

    def __init__(self, split: Split, model: Factors, given: Split | None = None) -> None:
        self.split, self.given, self.begin = split, given, start(model)
        self.found: dict[tuple[str, str], tuple[RankingResult, int, Factors]] = {}
        self.by_given: dict[str, RankingResult] = {}
        self.keep = True
        self.seen = split.train.to_csr("binary")
        self.judged = split.train.take(np.isin(split.train.user_ids, split.test.user_ids))

    def run(self, recipe: Sequence[Any], account: str) -> tuple[RankingResult, int, Factors]:
        """Return quality, bytes and what was read from the file; all accounts are run at once."""
        key = repr(list(recipe))
        if (key, account) in self.found:
            return self.found[key, account]
        state = self.begin
        for step in recipe:
            state = step.run(state, self.split.train)
        for one in ACCOUNTS:
            self.found[key, one] = self._measure(state.compressed, one, key)
        return self.found[key, account]

    def _measure(self, tensors: Any, account: str, key: str) -> tuple[RankingResult, int, Factors]:
        with tempfile.TemporaryDirectory() as folder:
            size = save_compressed(f"{folder}/model", tensors, account=account)
            factors = ranks = load_compressed(f"{folder}/model")
        if factors.user_vectors is None:
            ranks = factors.with_folded_users(self.judged)
        item_tensor: Any = tensors.tensors["item_vectors"]
        scorer: Any = ranks
        if "again" in item_tensor.header():
            scorer = TwoStages(ranks, item_tensor.shortlist_vectors(), self.seen)
        quality = evaluate_full_ranking(scorer, self.split.train, self.split.test)
        if self.given is not None and account == "self-contained":
            self.by_given[key] = evaluate_leave_one_out(ranks, self.given)
        if not self.keep:  # tables of recipes that a search tries would fill the memory
            factors = self.begin.model
        return quality, size, factors

    def attempt(
        self, users: Any, account: str, confidence: float, name: str, recipe: Sequence[Any]
    ) -> Trial:
        """Judge a recipe on some users, as ``search_recipe`` does."""
        before, _, _ = self.run([], account)
        try:
            after, size, _ = self.run(recipe, account)
        except ValueError:
            return Trial(name, tuple(recipe), -np.inf, -np.inf, 0)
        old, new = of_users(before, users), of_users(after, users)
        change = relative_change(new.ndcg, old.ndcg)
        low = least_change(old, new, confidence)
        return Trial(name, tuple(recipe), change, low, size)

    def search(self, users: Any, account: str, confidence: float = 0.95) -> Trial | None:
        """Choose as ``search_recipe`` does, by these users."""
        attempt = functools.partial(self.attempt, users, account, confidence)
        recipes = default_recipes(DIM, account)
        return choose(list(bisect_families(recipes, attempt, BUDGET)), BUDGET)


def of_users(result: RankingResult, users: Any) -> RankingResult:
    """Return the part of a result that is about some users."""
    rows = np.isin(result.user_ids, users)
    parts = (result.hit_rate_per_user, result.ndcg_per_user, result.recall_per_user)
    return RankingResult(
        result.k, result.protocol, result.user_ids[rows], *(p[rows] for p in parts)
    )


def paired_interval(before: Any, after: Any, draws: int = 2000) -> tuple[float, float, float]:
    """Return the change of the mean of (seeds, users) values with its 95 % interval.

    Seeds and users are drawn with replacement, the same for both.
    """
    rng = np.random.default_rng(0)
    seeds, users = before.shape
    changes = np.empty(draws)
    for draw in range(draws):
        rows, columns = rng.integers(0, seeds, seeds), rng.integers(0, users, users)
        weight = np.bincount(columns, minlength=users)
        old, new = ((table[rows] @ weight).sum() for table in (before, after))
        changes[draw] = new / old - 1
    low, high = np.quantile(changes, [0.025, 0.975])
    return after.mean() / before.mean() - 1, float(low), float(high)


def history_bytes(train: Interactions) -> int:
    """Return the bytes of all users' items: gaps between sorted ids, and lzma."""
    matrix = train.to_csr("binary")
    matrix.sort_indices()
    gaps = np.diff(matrix.indices, prepend=0).astype(np.int32)
    first = matrix.indptr[:-1][np.diff(matrix.indptr) > 0]
    gaps[first] = matrix.indices[first]
    low, high = (gaps & 255).astype(np.uint8), (gaps >> 8).astype(np.uint8)
    lengths = np.diff(matrix.indptr).astype(np.uint16)
    return sum(len(lzma.compress(part.tobytes(), preset=9)) for part in (low, high, lengths))


def store(frame: pd.DataFrame, path: Path, name: str) -> None:
    """Put rows in the place of those of the same data set."""
    if path.exists():
        old = pd.read_csv(path, keep_default_na=False)
        frame = pd.concat([old[old["data"] != name], frame], ignore_index=True)
    frame.to_csv(path, index=False)


def measure(name: str) -> list[dict[str, Any]]:
    """Return all rows of one data set."""
    split, compared = load(name), recipes()
    given = load_split(name) if name == "ncf-ml-1m" else None
    source, settings = teacher_settings(name)
    validation, judged = (np.unique(part.test.user_ids) for part in hold_out_users(split, 1 / 3))
    values: dict[tuple[str, str, str], list[Any]] = {}
    sizes: dict[tuple[str, str], list[int]] = {}
    chosen: dict[str, list[Any]] = {}
    times: dict[tuple[str, str], Any] = {}
    for seed in SEEDS:
        model = IALS(DIM, seed=seed, **settings).fit(split.train)
        bench = Bench(split, model, given)
        wanted: dict[tuple[str, str], Any] = {
            (label, account): recipe
            for label, recipe in compared.items() for account in ACCOUNTS
        }  # fmt: skip
        for (label, account), recipe in list(wanted.items()):
            begun = time.perf_counter()
            bench.run(recipe, account)
            print(name, seed, label, account, round(time.perf_counter() - begun, 1), flush=True)
        begun = time.perf_counter()
        for account in ACCOUNTS:
            if seed == 0:
                bench.keep = False
                best = bench.search(validation, account)
                chosen[account] = [] if best is None else list(best.recipe)
                bench.keep = True
                bench.found.pop((repr(chosen[account]), account), None)  # again, to be timed
            wanted["searched", account] = chosen[account]
            bench.run(chosen[account], account)
        print(name, seed, "searched", round(time.perf_counter() - begun, 1), chosen, flush=True)
        for (label, account), recipe in wanted.items():
            quality, size, _ = bench.run(recipe, account)
            of_them = of_users(quality, judged).ndcg_per_user
            values.setdefault((label, account, "full ranking"), []).append(of_them)
            sizes.setdefault((label, account), []).append(size)
            if given is not None and account == "self-contained":
                of_them = of_users(bench.by_given[repr(list(recipe))], judged).ndcg_per_user
                values.setdefault((label, account, "given negatives"), []).append(of_them)
        if seed == 0:
            bench.keep = False
            store(calibrate(bench, name), CALIBRATION, name)
            timer = functools.partial(compare_latency, rounds=20, calls_per_round=10)
            models = [bench.run(recipe, account)[2] for (_, account), recipe in wanted.items()]
            latencies = time_all(models, split, 10, timer)
            times = {key: top for key, (top, _) in zip(wanted, latencies, strict=True)}
    histories = history_bytes(split.train)
    names = {account: " + ".join(step.name for step in steps) for account, steps in chosen.items()}
    rows = []
    for (label, account, protocol), found in values.items():
        before = np.stack(values["float32", account, protocol])
        change, low, high = paired_interval(before, np.stack(found))
        top = times[label, account]
        by_round = np.median(top.times_us.reshape(20, -1), axis=1)
        for kept, extra in (("", 0), (" and histories", histories)):
            if extra and account != "items":
                continue
            size = float(np.mean(sizes[label, account])) + extra
            first = float(np.mean(sizes["float32", account])) + extra
            rows.append({
                "data": name, "teacher": source, "account": account + kept, "protocol": protocol,
                "recipe": label,
                "seeds": len(SEEDS), "users": len(judged), "start_ndcg": before.mean(),
                "ndcg": np.mean(found), "change": change, "low": low, "high": high,
                "bytes": round(size), "ratio": first / size, "p50_us": top.p50_us,
                "p50_low_us": by_round.min(), "p50_high_us": by_round.max(), "p99_us": top.p99_us,
                "chosen": names[account] if label == "searched" else "",
            })  # fmt: skip
    return rows


def main() -> None:
    """Measure the data sets and store the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", choices=DATA, action="append")
    for name in parser.parse_args().data or DATA:
        begun = time.process_time()
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frame = pd.DataFrame(measure(name)).round(5)
        seconds = round(time.process_time() - begun)
        frame = frame.assign(cpu_seconds=seconds, date=datetime.date.today().isoformat(),
                             machine=machine_line())  # fmt: skip
        store(frame, RESULTS, name)
        print(name, seconds, "s of CPU", flush=True)


if __name__ == "__main__":
    main()
