"""What several tests share."""

from __future__ import annotations

import functools
import gc
import importlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

# Building a graph makes a million objects that stay; to look through them all, again and again, was
# a sixth of the time of the tests.
gc.set_threshold(50_000, 20, 20)

# A test that names one of these is marked `alone`: tools/run_tests.py runs it after the others.
CLOCKS_AND_PROCESSES = {
    "subprocess", "multiprocessing", "perf_counter", "process_time", "monotonic",
    "measure_latency", "compare_latency",
}  # fmt: skip
# Where scores pass that are about to be ranked: modules and functions that return them.
SCORES_PASS = (("recsys_lib.evaluation.metrics", "as_scores"),)

# The same examples in each run of CI, so that a change is judged by itself; on a developer's
# machine they are drawn anew each time, and find what the fixed ones miss.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

# Quiet TensorFlow before anything imports it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")


def _names(code: CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_names, inner))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what reads a clock or starts a process."""
    for item in items:
        function = getattr(item, "function", None)
        code = getattr(function, "__code__", None)
        if code is not None and CLOCKS_AND_PROCESSES & _names(code):
            item.add_marker("alone")


@pytest.fixture
def shaken_scores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Move every float32 score by a unit in the last place, up, down or not, before it is ranked.

    Another processor's sums differ by as much; no result may depend on it.
    """
    rng = np.random.default_rng(0)

    def shaken(scores: Any) -> Any:
        scores = np.asarray(scores)
        if scores.dtype != np.float32:
            return scores
        towards = rng.choice(np.array([-np.inf, 0, np.inf], np.float32), scores.shape)
        moved = np.nextafter(scores, np.where(towards == 0, scores, towards))
        return np.where(np.isfinite(scores), moved, scores)

    for module, name in SCORES_PASS:
        original = getattr(importlib.import_module(module), name)

        @functools.wraps(original)
        def wrapper(*args: Any, _original: Any = original, **options: Any) -> Any:
            return shaken(_original(*args, **options))

        for loaded in [m for key, m in sys.modules.items() if key.startswith("recsys_lib")]:
            if getattr(loaded, name, None) is original:
                monkeypatch.setattr(loaded, name, wrapper)
    yield


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Any]:
    """Return the published split of a real data set, or all its rows where it has not just one.

    The test is skipped where the files are not to be had.
    """
    from recsys_lib.data import DATASETS, load_dataset, load_split

    cache: dict[str, Any] = {}

    def load(name: str) -> Any:
        home = os.environ.get("RECSYS_DATA_HOME")
        if not home or not (Path(home) / name).is_dir():
            pytest.skip(f"needs the files of {name} under RECSYS_DATA_HOME")
        if name not in cache:
            load_it = load_split if DATASETS[name].num_splits == 1 else load_dataset
            cache[name] = load_it(name)
        return cache[name]

    return load


@pytest.fixture(scope="session")
def published_ials(real_data: Callable[[str], Any]) -> Any:
    """Give ncf-ml-1m, iALS with 192 dimensions fitted on it, and the CPU seconds that this took.

    The slowest model of the tests, fitted once for all of them. Leave it as it is.
    """
    from recsys_lib.models import IALS

    split = real_data("ncf-ml-1m")
    start = time.process_time()
    model = IALS(embedding_dim=192).fit(split.train)
    return split, model, time.process_time() - start
