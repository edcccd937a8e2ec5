"""What several tests share."""

import functools
import gc
import os
import random
import signal
import sys
from pathlib import Path
from types import CodeType

import numpy as np
import pytest
from hypothesis import settings
from run_tests import CLOCKS

from tests.shaken.sitecustomize import shaken

# Building a graph makes a million objects that stay; to look through them all, again and again, was
# a sixth of the time of the tests.
gc.set_threshold(50_000, 20, 20)

# The same examples in each run of CI, so that a change is judged by itself; on a developer's
# machine they are drawn anew each time, and find what the fixed ones miss.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

# Quiet TensorFlow before anything imports it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")


# A shell that starts something in the background has it ignore Ctrl-C, and whatever it starts in
# turn, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _names(code):
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_names, inner))


def pytest_make_parametrize_id(config, val, argname):
    """Name bytes by their argument: packed ones hold the time, and workers must agree on names."""
    return argname if isinstance(val, bytes) else None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Give a model that a test builds without a seed the same weights in each run."""
    seed = int(os.environ.get("RECSYS_TEST_SEED", 0))
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (tf_keras draws from it)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark what reads a clock: tools/run_tests.py runs it after the others."""
    for item in items:
        code = getattr(getattr(item, "function", None), "__code__", None)
        if code is not None and CLOCKS & _names(code):
            item.add_marker("alone")


@pytest.fixture
def growth():
    """Return what measures the least growth of this process in rounds of work, in MB and objects.

    What leaks does so in each round; now and then the allocator keeps some MB more than it needs.
    """
    process = pytest.importorskip("psutil").Process()

    def least(work, rounds=3):
        sizes = []
        for _ in range(rounds):
            work()
            gc.collect()
            sizes.append((process.memory_info().rss / 2**20, len(gc.get_objects())))
        return np.diff(sizes, axis=0).min(0)

    return least


@pytest.fixture
def shaken_scores(monkeypatch):
    """Move every float32 score by a unit in the last place, up, down or not, before it is ranked.

    Another processor's sums differ by as much; no result may depend on it.
    """
    from recsys_lib.evaluation import metrics  # all ranked scores pass its as_scores

    original = metrics.as_scores
    moved = shaken(original)
    for loaded in [m for key, m in sys.modules.items() if key.startswith("recsys_lib")]:
        if getattr(loaded, "as_scores", None) is original:
            monkeypatch.setattr(loaded, "as_scores", moved)


@pytest.fixture(scope="session")
def real_data():
    """Return the published split of a real data set, or all its rows where it has not just one.

    The test is skipped where the files are not to be had.
    """
    from recsys_lib.data import DATASETS, load_dataset, load_split

    @functools.cache
    def load(name):
        home = os.environ.get("RECSYS_DATA_HOME")
        if not home or not (Path(home) / name).is_dir():
            pytest.skip(f"needs the files of {name} under RECSYS_DATA_HOME")
        return (load_split if DATASETS[name].num_splits == 1 else load_dataset)(name)

    return load


@pytest.fixture(scope="session")
def published_ials(real_data):
    """Return ncf-ml-1m and iALS with 192 dimensions fitted on it; leave it as it is."""
    from recsys_lib.models import IALS

    split = real_data("ncf-ml-1m")
    return split, IALS(embedding_dim=192, l2=0.007, unobserved_weight=0.3).fit(split.train)
