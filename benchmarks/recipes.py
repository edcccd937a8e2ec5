"""All methods of chapters 6 to 13 on one model, in one table, and the order of steps.

"front": iALS with 192 dimensions on ncf-ml-1m, its two tables made smaller by each method at
several settings: NDCG@10 of all test users, bytes of the file (self-contained, and items alone with
the users folded in from their training items). No setting is chosen here: whole curves are shown.
Methods that train and are no step of a recipe are in ``recipes_trained.py``.
"order": pruning, quantization and distillation into 32 dimensions in all six orders, and again with
pruning and quantization repeated where distillation came last and undid them.

``python benchmarks/recipes.py --part front --seed 0`` (parts front, order; ``--chapter 09`` for one
of the front's chapters alone) adds rows to ``benchmarks/results/recipes.csv``, or replaces them.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd
from machine import machine_line
from recipes_trained import Found, model_distillation, quantization_aware_tables
from teachers import model_and_ease

from recsys_lib.compression import save_compressed
from recsys_lib.compression.distillation import Ensemble
from recsys_lib.compression.embedding_tables import LowRank, MixedDimension
from recsys_lib.compression.pruning import RowRemoval, WeightPruning, prune
from recsys_lib.compression.quantization import (
    CodebookQuantization,
    MixedPrecision,
    ProductQuantization,
    RateDistortion,
    TransformCoding,
    UniformQuantization,
    frequency_groups,
    quantize,
)
from recsys_lib.data import Split, load_split
from recsys_lib.evaluation import evaluate_leave_one_out
from recsys_lib.models import IALS, load_model
from recsys_lib.recipe import Distill, EntropyCode, Prune, Quantize, ReduceDimensions, compress

RESULTS = Path(__file__).parent / "results" / "recipes.csv"
SYMMETRIC = UniformQuantization(4, symmetric=True, scale_search="mse")


def distill(dim: int, seed: int) -> Distill:
    """Teach a student of so many dimensions with the settings of chapter 13."""
    import keras

    from recsys_lib.compression.distillation import SoftLabels

    method = SoftLabels(loss="listwise", weight=1.0, standardize=True)
    options = {"epochs": 8, "optimizer": keras.optimizers.Adam(0.02), "batch_size": 8192,
               "l2": 0.01, "seed": seed, "progress": False}  # fmt: skip
    return Distill(dim, method=method, options=options)


def recipes(seed: int, teacher: Ensemble) -> Iterator[tuple[str, str, list[Any]]]:
    """Give chapter, method and recipe."""
    code = EntropyCode()
    for share in (0.5, 0.7, 0.8, 0.9):
        yield "06", "weight pruning", [Prune(WeightPruning(share))]
    for dim in (128, 96, 64, 32, 16):
        yield "07", "fewer dimensions", [ReduceDimensions(dim)]
    for bits in (8, 6, 4, 3, 2):
        step = Quantize(UniformQuantization(bits, scale_search="mse"))
        yield "08", "rounded rows", [step]
        yield "08", "rounded rows, coded", [step, code]
    for bits in (4, 3, 2):
        yield "08", "codebooks, coded", [Quantize(CodebookQuantization(bits)), code]
    for pieces in (96, 48, 24):
        yield "08", "product quantization", [Quantize(ProductQuantization(pieces))]
    for error in (0.02, 0.04, 0.06, 0.08, 0.1, 0.13, 0.15, 0.17, 0.2, 0.25):
        yield "08", "transform coding", [Quantize(TransformCoding(error))]
        by_size = TransformCoding(error, contexts="size")
        yield "08", "transform coding, coded by size", [Quantize(by_size)]
    for dim in (96, 64, 48):
        yield "11", "low rank", [Quantize(LowRank(dim))]
    for dim in (16, 32, 64):
        yield "12", "distillation", [distill(dim, seed)]
        yield "12", "distillation, 4 bits", [distill(dim, seed), Quantize(), code]
    for weight in (3e-5, 5e-5, 1e-4, 2e-4):
        config = RateDistortion(weight, seed=seed)
        yield "14", "rate-distortion", [Quantize(config)]
        yield "14", "rate-distortion, taught", [Quantize(config, teacher=teacher)]
    for dim in (96, 64):
        step = Quantize(UniformQuantization(4, scale_search="mse"))
        yield "14", "fewer dimensions, 4 bits, coded", [ReduceDimensions(dim), step, code]


def front(
    model: IALS, split: Split, seed: int, chapter: str | None = None
) -> Iterator[dict[str, Any]]:
    """Measure all recipes, and the methods that are no step of one."""
    for number, method, recipe in recipes(seed, model_and_ease(model, split.train)):
        if chapter not in (None, number):
            continue
        for account in ("self-contained", "items"):
            if account == "items" and method.startswith(("distillation", "rate")):
                continue
            result = compress(model, recipe, split, None, account=account)
            start, last = result.stages[0], result.stages[-1]
            if method == "weight pruning" and recipe[0].config.sparsity == 0.5:
                yield row(number, "float32", "start", account, start.ndcg, start.file_bytes)
            setting = " -> ".join(stage.name for stage in result.stages[1:])
            yield row(number, method, setting, account, last.ndcg, last.file_bytes)
    others = {
        "07": fewer_rows,
        "09": quantization_aware_tables,
        "10": mixed_precision,
        "11": mixed_dimensions,
        "13": model_distillation,
    }
    for number, measure in others.items():
        if chapter in (None, number):
            for method, setting, small in measure(model, split, seed):
                yield stored(split, number, method, setting, small)


def fewer_rows(model: IALS, split: Split, seed: int) -> Iterator[Found]:
    """Leave out the vectors of items that few have chosen."""
    for minimum in (20, 100, 400):
        fewer = prune(model, RowRemoval(minimum, "item"), split.train)
        yield "fewer rows", f"at least {minimum}", fewer


def counts_of(split: Split) -> dict[str, Any]:
    """Give how often each user and each item occurs."""
    return {
        "user_vectors": np.bincount(split.train.user_ids, minlength=split.num_users),
        "item_vectors": np.bincount(split.train.item_ids, minlength=split.num_items),
    }


def mixed_precision(model: IALS, split: Split, seed: int) -> Iterator[Found]:
    """Give frequent rows more bits than rare ones."""
    shares = (0.1, 0.2, 0.3, 0.4)
    groups = {name: frequency_groups(count, shares) for name, count in counts_of(split).items()}
    base = UniformQuantization(4, granularity="column", scale_search="mse")
    for users, items in (((4, 4, 4, 4), (6, 5, 4, 3)), ((3, 3, 3, 3), (5, 4, 3, 2)),
                         ((2, 3, 2, 2), (4, 3, 2, 0))):  # fmt: skip
        bits = {f"user_vectors[{n}]": width for n, width in enumerate(users)}
        bits |= {f"item_vectors[{n}]": width for n, width in enumerate(items)}
        mixed = quantize(model, MixedPrecision(bits, groups, base))
        yield "mixed precision", f"{users} {items}", mixed


def mixed_dimensions(model: IALS, split: Split, seed: int) -> Iterator[Found]:
    """Give frequent rows more dimensions than rare ones."""
    for temperature in (0.3, 0.6):
        mixed = quantize(model, MixedDimension(4, temperature), counts=counts_of(split))
        yield "mixed dimension", f"4 lengths, temperature {temperature}", mixed


def stored(split: Split, chapter: str, method: str, setting: str, small: Any) -> dict[str, Any]:
    """Measure a compressed model that no recipe made."""
    if set(getattr(small, "tensors", ())) == {"user_vectors", "item_vectors"}:
        with tempfile.TemporaryDirectory() as folder:
            size = save_compressed(Path(folder) / "model", small)
    else:
        size = small.nbytes  # rows that are left and the lists of them
    ndcg = evaluate_leave_one_out(small, split).ndcg
    return row(chapter, method, setting, "self-contained", ndcg, size)


def order(model: IALS, split: Split, seed: int) -> Iterator[dict[str, Any]]:
    """Measure all six orders of three steps."""
    steps: dict[str, Any] = {
        "prune": Prune(WeightPruning(0.5)),
        "quantize": Quantize(SYMMETRIC),
        "distil": distill(32, seed),
    }
    for names in itertools.permutations(steps):
        again = [names[:2]] if names[2] == "distil" else []
        for more in [(), *again]:
            wanted = [*names, *more]
            since = wanted[max(n for n, name in enumerate(wanted) if name == "distil") :]
            recipe = [*(steps[name] for name in wanted)]
            if "quantize" in since:  # there is something to code
                recipe.append(EntropyCode())
            result = compress(model, recipe, split, None)
            last = result.stages[-1]
            yield row("14", "order", " -> ".join(wanted), "self-contained", last.ndcg,
                      last.file_bytes)  # fmt: skip


def row(
    chapter: str, method: str, setting: str, account: str, ndcg: float, size: int
) -> dict[str, Any]:
    """Give one line of the table, and print it."""
    found = {"chapter": chapter, "method": method, "setting": setting, "account": account,
             "ndcg": round(ndcg, 5), "bytes": size}  # fmt: skip
    print(*found.values(), sep=", ", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("front", "order"), required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chapter", help="of the front, such as 09; all without it")
    parser.add_argument("--model", type=Path, help="file of the trained iALS, kept for later runs")
    options = parser.parse_args()
    split = load_split("ncf-ml-1m")
    started = time.perf_counter()
    if options.model is not None and options.model.exists():
        model: Any = load_model(options.model)
    else:
        model = IALS(embedding_dim=192, seed=options.seed, l2=0.007, unobserved_weight=0.3).fit(
            split.train
        )
        if options.model is not None:
            model.save(options.model)
    found_rows = (
        front(model, split, options.seed, options.chapter)
        if options.part == "front"
        else order(model, split, options.seed)
    )
    facts = {
        "part": options.part,
        "seed": options.seed,
        "date": datetime.date.today().isoformat(),
        "machine": machine_line(),
        "command": f"python benchmarks/recipes.py --part {options.part} --seed {options.seed}"
        + (f" --chapter {options.chapter}" if options.chapter else ""),
    }
    rows = []
    for found in found_rows:
        rows.append(facts | found)
        frame = pd.DataFrame(rows)
        if RESULTS.exists():
            old = pd.read_csv(RESULTS, dtype={"chapter": str})
            mine = (old.part == options.part) & (old.seed == options.seed)
            if options.chapter is not None:
                mine &= old.chapter == options.chapter
            frame = pd.concat([old[~mine], frame])
        frame.to_csv(RESULTS, index=False)
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
