"""How long a call takes, said so that another reader can check it.

A figure of latency needs: calls before the clock starts (compilers and caches warm up), many
repeats, percentiles instead of one mean, no garbage collection in between, and the machine named.
Two figures can be compared only when they were taken in turns in one run: see
:func:`compare_latency`.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys_lib.checks import check_number
from recsys_lib.serving.machine import hardware_line

_MIN_REPEATS = 20
Functions = Mapping[str, Callable[[], Any]]


@dataclass(frozen=True, eq=False, repr=False)
class Latency:
    """How long calls of one function took.

    Args:
        name: what was called.
        times_us: (n,) microseconds of each call, in the order in which they were made.
        busy_cores: CPU time of the process divided by wall time: how many cores were at work.
        hardware: the machine, in words.

    Attributes:
        p50_us, p90_us, p99_us: percentiles. The 99th of fewer than 100 calls is about their
            maximum.
        spread: distance from the 10th to the 90th percentile, as a share of the median.
        throughput: calls a second at the median.

    Example:
        >>> Latency("toy", np.array([10.0, 10.0, 20.0]), 1.0, "a machine")
        toy: p50 10.0 us, p90 18.0, p99 19.8, spread 0.80; 100,000 items/s; 3 calls, 1.0 cores busy
    """

    name: str
    times_us: NDArray[np.float64]
    busy_cores: float
    hardware: str

    p50_us = property(lambda self: float(np.percentile(self.times_us, 50)))
    p90_us = property(lambda self: float(np.percentile(self.times_us, 90)))
    p99_us = property(lambda self: float(np.percentile(self.times_us, 99)))
    throughput = property(lambda self: 1e6 / self.p50_us)
    spread = property(
        lambda self: float(np.ptp(np.percentile(self.times_us, [10, 90])) / self.p50_us)
    )

    def __repr__(self) -> str:
        return (
            f"{self.name}: p50 {self.p50_us:,.1f} us, p90 {self.p90_us:,.1f}, "
            f"p99 {self.p99_us:,.1f}, spread {self.spread:.2f}; {self.throughput:,.0f} items/s; "
            f"{len(self.times_us)} calls, {self.busy_cores:.1f} cores busy"
        )


@dataclass(frozen=True, eq=False, repr=False)
class LatencyComparison:
    """Functions timed in turns, each as a ratio to one of them.

    Args:
        latencies: of each function, by name.
        ratios: (rounds,) of each: its median in a round divided by the baseline's in that round.
        baseline: name of the function the others are compared with.

    Example:
        >>> toy = {name: Latency(name, np.full(2, us), 1.0, "") for name, us in
        ...        [("slow", 30.0), ("fast", 10.0)]}
        >>> comparison = LatencyComparison(
        ...     toy, {"slow": np.array([3.0, 3.0]), "fast": np.ones(2)}, "fast")
        >>> comparison.ratio("slow")
        3.0
        >>> comparison
              ratio  ratio_p10  ratio_p90  p50_us  p99_us
        slow    3.0        3.0        3.0    30.0    30.0
        fast    1.0        1.0        1.0    10.0    10.0
    """

    latencies: Mapping[str, Latency]
    ratios: Mapping[str, NDArray[np.float64]]
    baseline: str

    def ratio(self, name: str) -> float:
        """Return the median over rounds of time divided by the baseline's time."""
        return float(np.median(self.ratios[name]))

    def ratio_interval(self, name: str) -> tuple[float, float]:
        """Return the 10th and 90th percentile of the ratio over rounds."""
        return tuple(np.percentile(self.ratios[name], [10, 90]).tolist())

    def __repr__(self) -> str:
        columns = ["ratio", "ratio_p10", "ratio_p90", "p50_us", "p99_us"]
        return self.to_frame()[columns].round(2).to_string(index_names=False)

    def to_frame(self) -> pd.DataFrame:
        """Return one row a function: its latency, its ratio and the ratio's 10th to 90th."""
        names = ("p50_us", "p90_us", "p99_us", "spread", "throughput", "busy_cores", "hardware")
        rows = {}
        for name, latency in self.latencies.items():
            low, high = self.ratio_interval(name)
            rows[name] = {column: getattr(latency, column) for column in names}
            rows[name] |= {"repeats": len(latency.times_us), "ratio": self.ratio(name)}
            rows[name] |= {"ratio_p10": low, "ratio_p90": high}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("name")


def measure_latency(
    function: Callable[[], Any], *, name: str = "call", repeats: int = 100, warmup: int = 5
) -> Latency:
    """Time calls of a function.

    The clock is ``time.perf_counter_ns`` around each single call; garbage collection is off while
    it runs. A call that returns before its work is done (asynchronous devices) must wait itself.

    Args:
        function: what to time, without arguments.
        name: how to call it in the result.
        repeats: timed calls, at least 20.
        warmup: calls before, not timed.

    Returns:
        Percentiles, throughput and all times.

    Raises:
        TypeError: function cannot be called, or a count is not an integer.
        ValueError: fewer than 20 repeats, or a negative warmup.

    Example:
        >>> result = measure_latency(lambda: sum(range(100)), name="sum", repeats=20)
        >>> result.p50_us <= result.p99_us, len(result.times_us)
        (True, 20)
    """
    repeats = check_number("repeats", repeats, _MIN_REPEATS, integer=True)
    return _take_turns({name: function}, 1, repeats, warmup)[name]


def compare_latency(
    functions: Functions,
    *,
    baseline: str | None = None,
    rounds: int = 10,
    calls_per_round: int = 5,
    warmup: int = 3,
) -> LatencyComparison:
    """Time several functions in turns, and return each one's time as a ratio to a baseline.

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

    Raises:
        TypeError: a function cannot be called, or a count is not an integer.
        ValueError: no functions, an unknown baseline, or too few calls.

    Example:
        >>> result = compare_latency(
        ...     {"ten": lambda: sum(range(10)), "thousand": lambda: sum(range(1000))}, rounds=20)
        >>> result.ratio("ten"), result.ratio("thousand") > 1
        (1.0, True)
    """
    baseline = next(iter(functions), "") if baseline is None else baseline
    if baseline not in functions:
        raise ValueError(f"baseline is {baseline!r}: expected one of functions, {list(functions)}")
    rounds = check_number("rounds", rounds, 2, integer=True)
    calls = check_number("calls_per_round", calls_per_round, 1, integer=True)
    check_number("rounds * calls_per_round", rounds * calls, _MIN_REPEATS, integer=True)
    latencies = _take_turns(functions, rounds, calls, warmup)
    medians = {n: np.median(one.times_us.reshape(rounds, -1), 1) for n, one in latencies.items()}
    ratios = {name: own / medians[baseline] for name, own in medians.items()}
    return LatencyComparison(latencies, ratios, baseline)


def _take_turns(functions: Functions, rounds: int, calls: int, warmup: int) -> dict[str, Latency]:
    """Time all functions, each round in another order, without garbage collection."""
    warmup = check_number("warmup", warmup, 0, integer=True)
    for name, function in functions.items():
        if not callable(function):
            raise TypeError(f"{name} is of type {type(function).__name__}: expected a function")
        for _ in range(warmup):
            function()
    names, clock = list(functions), time.perf_counter_ns
    times = {name: np.empty((rounds, calls)) for name in names}
    busy = {name: np.empty(rounds) for name in names}
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for turn in range(rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                function, own = functions[name], times[name][turn]
                cpu, wall = time.process_time_ns(), clock()
                for call in range(calls):
                    start = clock()
                    function()
                    own[call] = clock() - start
                busy[name][turn] = (time.process_time_ns() - cpu) / max(clock() - wall, 1)
    finally:
        if was_enabled:
            gc.enable()
    hardware, found = hardware_line(), {}
    for name in names:
        us, cores = np.maximum(times[name], 1).ravel() / 1e3, float(np.median(busy[name]))
        found[name] = Latency(name, us, cores, hardware)
    return found
