"""Measuring: what is counted, what is refused, and that ratios come out right."""

from __future__ import annotations

import gc
import itertools
import time

import numpy as np
import pytest

from recsys_lib.serving import (
    Machine,
    compare_latency,
    hardware_line,
    measure_latency,
    measure_machine,
    read_bandwidth,
    roofline,
)
from recsys_lib.serving.latency import Latency


def busy(milliseconds):
    end = time.perf_counter() + milliseconds / 1e3
    while time.perf_counter() < end:
        pass


def test_calls_are_counted_and_warmup_is_not_timed():
    calls = []

    def slow_at_first():
        calls.append(gc.isenabled())
        if len(calls) <= 3:
            busy(20)

    result = measure_latency(slow_at_first, name="f", repeats=25, warmup=3)
    assert len(calls) == 28
    assert len(result.times_us) == 25
    assert result.p50_us < 10_000
    assert not any(calls[3:])  # no garbage collection while the clock runs
    assert gc.isenabled()


def test_garbage_collection_comes_back_after_an_error_and_stays_off_if_it_was():
    with pytest.raises(ZeroDivisionError):
        measure_latency(lambda: 1 / 0, warmup=0, repeats=20)
    assert gc.isenabled()
    gc.disable()
    try:
        measure_latency(lambda: None, repeats=20)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_percentiles_and_throughput_by_hand():
    latency = Latency("f", np.arange(1.0, 102.0), 10, 1.0, "machine")
    assert (latency.p50_us, latency.p90_us, latency.p99_us) == (51.0, 91.0, 100.0)
    assert latency.spread == pytest.approx(80 / 51)
    assert latency.throughput == pytest.approx(10 / 51e-6)
    frame = latency.to_frame()
    assert frame.loc["f", "p99_us"] == 100.0
    assert frame.loc["f", "repeats"] == 101


def test_a_known_time_is_measured():
    result = measure_latency(lambda: busy(1), repeats=20)
    assert 1000 <= result.p50_us < 20_000
    assert result.times_us.min() >= 1000
    assert 0.05 < result.busy_cores < 1.5


def test_ratios_of_known_times(monkeypatch):
    now = [0]  # a clock that only these functions move: no machine is too busy for this test
    monkeypatch.setattr("time.perf_counter_ns", lambda: now[0])

    def taking(microseconds):
        now[0] += 1000 * next(microseconds)

    one, three = itertools.cycle([500]), itertools.cycle([1400, 1500, 1500, 1600])
    result = compare_latency(
        {"one": lambda: taking(one), "three": lambda: taking(three)},
        rounds=5,
        calls_per_round=4,
        warmup=0,
    )
    assert result.ratio("one") == 1.0
    assert result.ratio("three") == pytest.approx(3.0)
    low, high = result.ratio_interval("three")
    assert low <= result.ratio("three") <= high
    assert sorted(set(result.latencies["three"].times_us)) == [1400, 1500, 1600]
    assert len(result.latencies["one"].times_us) == 20
    assert len(result.ratios["three"]) == 5
    assert result.to_frame().loc["three", "ratio"] == result.ratio("three")
    assert len(repr(result).splitlines()) == 2


def test_functions_take_turns_and_the_first_changes():
    order = []
    functions = {name: (lambda name=name: order.append(name)) for name in "abc"}
    compare_latency(functions, rounds=20, calls_per_round=1, warmup=1, baseline="b")
    assert "".join(order[:9]) == "abc" + "abc" + "bca"
    assert len(order) == 63


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"function": 3}, TypeError, "expected a function"),
        ({"repeats": 19}, ValueError, "at least 20"),
        ({"warmup": -1}, ValueError, "warmup is -1"),
        ({"items_per_call": 0}, ValueError, "items_per_call is 0"),
    ],
)
def test_what_measure_latency_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        measure_latency(**({"function": lambda: None} | arguments))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"functions": {}}, ValueError, "empty"),
        ({"functions": {"f": None}}, TypeError, "f is of type NoneType"),
        ({"baseline": "g"}, ValueError, "expected one of"),
        ({"rounds": 1}, ValueError, "rounds is 1"),
        ({"rounds": 3, "calls_per_round": 3}, ValueError, "at least 20"),
    ],
)
def test_what_compare_latency_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        compare_latency(**({"functions": {"f": lambda: None}} | arguments))


def test_read_bandwidth_grows_with_the_table():
    small = read_bandwidth(np.ones(1 << 16, np.int64), repeats=20)
    large = read_bandwidth(np.ones((1 << 10, 1 << 10), np.float64), repeats=20)
    assert large.num_bytes == 16 * small.num_bytes
    assert large.best_s > 4 * small.best_s
    assert small.to_frame().loc[0, "bytes_per_s"] == small.bytes_per_s


@pytest.mark.parametrize("table", [np.empty(0), np.ones(7, np.uint8), np.ones((8, 8))[:, :4]])
def test_tables_that_cannot_be_read_as_words(table):
    with pytest.raises(ValueError, match="contiguous array"):
        read_bandwidth(table)


def test_roofline_by_hand():
    machine = Machine(read_bytes_per_s=100.0, flops_per_s=10.0, hardware="toy")
    assert roofline(200, 10, machine=machine).seconds == 2.0
    assert roofline(200, 10, machine=machine).limit == "memory"
    bound = roofline(100, 50, machine=machine)
    assert (bound.seconds, bound.limit) == (5.0, "compute")
    assert bound.to_frame().loc[0, "limit"] == "compute"
    with pytest.raises(ValueError, match="num_bytes is -1"):
        roofline(-1, machine=machine)


def test_machine_is_measured():
    machine = measure_machine(repeats=2, num_bytes=1 << 20)
    assert machine.read_bytes_per_s > 1e8
    assert machine.flops_per_s > 1e8
    assert machine.hardware == hardware_line()
    assert "\n" not in repr(machine)
