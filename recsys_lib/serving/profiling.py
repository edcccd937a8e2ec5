"""How long a call takes, said so that another reader can check it.

A figure of latency needs: calls before the clock starts (compilers and caches warm up), many
repeats, percentiles instead of one mean, no garbage collection in between, and the machine named.
Two figures can be compared only when they were taken in turns in one run: see
:func:`compare_latency`. What a model weighs is in :mod:`recsys_lib.serving.footprint`, what the
machine can do at best in :mod:`recsys_lib.serving.machine`; both are offered from here as well.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_number
from recsys_lib.serving.footprint import (
    ModelSize,
    count_flops,
    count_parameters,
    model_size_bytes,
)
from recsys_lib.serving.latency import Latency, LatencyComparison
from recsys_lib.serving.machine import (
    Machine,
    ReadBandwidth,
    Roofline,
    available_cores,
    hardware_line,
    measure_machine,
    read_bandwidth,
    roofline,
)

__all__ = [
    "Latency",
    "LatencyComparison",
    "Machine",
    "ModelSize",
    "ReadBandwidth",
    "Roofline",
    "available_cores",
    "compare_latency",
    "count_flops",
    "count_parameters",
    "hardware_line",
    "measure_latency",
    "measure_machine",
    "model_size_bytes",
    "read_bandwidth",
    "roofline",
]

MIN_REPEATS = 20


def measure_latency(
    function: Callable[[], Any],
    *,
    name: str = "call",
    repeats: int = 100,
    warmup: int = 5,
    items_per_call: int = 1,
) -> Latency:
    """Time calls of a function.

    The clock is ``time.perf_counter_ns`` around each single call; garbage collection is off while
    it runs. A call that returns before its work is done (asynchronous devices) must wait itself.

    Args:
        function: what to time, without arguments.
        name: how to call it in the result.
        repeats: timed calls, at least 20.
        warmup: calls before, not timed.
        items_per_call: how many things one call serves, for the throughput.

    Returns:
        Percentiles, throughput and all times.

    Raises:
        TypeError: function cannot be called, or a count is not an integer.
        ValueError: fewer than 20 repeats, a negative warmup, or items_per_call below 1.

    Example:
        >>> result = measure_latency(lambda: sum(range(100)), name="sum", repeats=20)
        >>> result.p50_us <= result.p99_us, len(result.times_us)
        (True, 20)
    """
    _check_function(name, function)
    check_number("repeats", repeats, MIN_REPEATS, integer=True)
    check_number("warmup", warmup, 0, integer=True)
    check_number("items_per_call", items_per_call, 1, integer=True)
    for _ in range(warmup):
        function()
    with _no_garbage_collection():
        times, busy = _time_calls(function, repeats)
    return Latency(name, times, items_per_call, busy, hardware_line())


def compare_latency(
    functions: Mapping[str, Callable[[], Any]],
    *,
    baseline: str | None = None,
    rounds: int = 10,
    calls_per_round: int = 5,
    warmup: int = 3,
    items_per_call: int = 1,
) -> LatencyComparison:
    """Time several functions in turns, and give each one's time as a ratio to a baseline.

    Machines get slower and faster while one measures (other programs, heat, clocks). So functions
    take turns, each round in another order, ratios are formed within a round, and the spread of
    those ratios says how far to trust them. Runtimes that keep their own threads disturb each
    other: compare those in processes of their own.

    Args:
        functions: what to time, without arguments, by name.
        baseline: name of the function to compare with; the first, when None.
        rounds: how many turns each function has; rounds * calls_per_round is at least 20.
        calls_per_round: timed calls a turn.
        warmup: calls of each before, not timed.
        items_per_call: how many things one call serves, for the throughput.

    Raises:
        TypeError: a function cannot be called, or a count is not an integer.
        ValueError: no functions, an unknown baseline, or too few calls.

    Example:
        >>> result = compare_latency(
        ...     {"ten": lambda: sum(range(10)), "thousand": lambda: sum(range(1000))}, rounds=20)
        >>> result.ratio("ten"), result.ratio("thousand") > 1
        (1.0, True)
    """
    if not functions:
        raise ValueError("functions is empty: expected at least one function to time")
    for name, function in functions.items():
        _check_function(name, function)
    baseline = next(iter(functions)) if baseline is None else baseline
    if baseline not in functions:
        raise ValueError(f"baseline is {baseline!r}: expected one of {list(functions)}")
    check_number("rounds", rounds, 2, integer=True)
    check_number("calls_per_round", calls_per_round, 1, integer=True)
    check_number("rounds * calls_per_round", rounds * calls_per_round, MIN_REPEATS, integer=True)
    check_number("warmup", warmup, 0, integer=True)
    names = list(functions)
    times: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    busy: dict[str, list[float]] = {name: [] for name in names}
    for function in functions.values():
        for _ in range(warmup):
            function()
    with _no_garbage_collection():
        for turn in range(rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                taken, cores = _time_calls(functions[name], calls_per_round)
                times[name].append(taken)
                busy[name].append(cores)
    hardware = hardware_line()
    medians = {name: np.median(times[name], axis=1) for name in names}
    return LatencyComparison(
        {
            name: Latency(
                name, np.concatenate(times[name]), items_per_call, float(np.median(busy[name])),
                hardware,
            )
            for name in names
        },
        {name: medians[name] / medians[baseline] for name in names},
        baseline,
    )  # fmt: skip


def _time_calls(function: Callable[[], Any], repeats: int) -> tuple[NDArray[np.float64], float]:
    """Give microseconds of each call, and how many cores were busy on average."""
    clock = time.perf_counter_ns
    times = np.empty(repeats, np.int64)
    cpu, wall = time.process_time_ns(), clock()
    for repeat in range(repeats):
        start = clock()
        function()
        times[repeat] = clock() - start
    cpu, wall = time.process_time_ns() - cpu, clock() - wall
    return np.maximum(times, 1) / 1e3, cpu / max(wall, 1)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _check_function(name: str, function: Any) -> None:
    if not callable(function):
        raise TypeError(
            f"{name} is of type {type(function).__name__}: expected a function without arguments"
        )
