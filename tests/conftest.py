"""What several tests share."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# The same examples in each run of CI, so that a change is judged by itself; on a developer's
# machine they are drawn anew each time, and find what the fixed ones miss.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

# Quiet TensorFlow before anything imports it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Any]:
    """Give the real data set of that name; skip the test where its files are not to be had."""
    from recsys_lib.data import load_dataset

    cache: dict[str, Any] = {}

    def load(name: str) -> Any:
        home = os.environ.get("RECSYS_DATA_HOME")
        if not home or not (Path(home) / name).is_dir():
            pytest.skip(f"needs the files of {name} under RECSYS_DATA_HOME")
        if name not in cache:
            cache[name] = load_dataset(name)
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
