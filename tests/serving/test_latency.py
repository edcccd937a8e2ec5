"""Measuring: what is counted, what is refused, and that ratios come out right."""

import gc
import itertools
import time

import numpy as np
import pytest

from recsys_lib import serving
from recsys_lib.serving import Latency, Machine, compare_latency, measure_latency, roofline

TOY = Machine(read_bytes_per_s=100.0, flops_per_s=10.0, hardware="toy")


def test_calls_are_counted_and_neither_warmup_nor_garbage_collection_is_timed():
    calls = []

    def slow_at_first():
        calls.append(gc.isenabled())
        time.sleep(0.2 if len(calls) <= 3 else 0.001)

    result = measure_latency(slow_at_first, name="f", repeats=np.int64(25), warmup=3)
    assert len(calls) == 28 and len(result.times_us) == 25
    assert 1000 <= result.times_us.min() <= result.p50_us < 100_000
    assert result.busy_cores < 0.9  # it sleeps
    assert gc.isenabled() and not any(calls[3:])
    with pytest.raises(ZeroDivisionError):
        measure_latency(lambda: 1 / 0, warmup=0, repeats=20)
    assert gc.isenabled()  # after an error too, but not if it was off before
    gc.disable()
    measure_latency(lambda: None, repeats=20)
    assert not gc.isenabled()
    gc.enable()


def test_ratios_of_known_times(monkeypatch):
    now = [0]  # a clock that only these functions move: no machine is too busy for this test
    monkeypatch.setattr("time.perf_counter_ns", lambda: now[0])

    def taking(microseconds):
        now[0] += 1000 * next(microseconds)

    one, three = itertools.cycle([500]), itertools.cycle([1400, 1500, 1500, 1600])
    functions = {"one": lambda: taking(one), "three": lambda: taking(three)}
    result = compare_latency(functions, rounds=5, calls_per_round=4, warmup=0)
    assert result.ratio("one") == 1.0 and result.ratio("three") == pytest.approx(3.0)
    low, high = result.ratio_interval("three")
    assert low <= result.ratio("three") <= high
    assert sorted(set(result.latencies["three"].times_us)) == [1400, 1500, 1600]
    assert len(result.latencies["one"].times_us) == 20 and len(result.ratios["three"]) == 5
    frame = result.to_frame()
    assert frame.loc["three", "ratio"] == result.ratio("three")
    assert frame.loc["one", ["p99_us", "repeats"]].tolist() == [500, 20]


def test_functions_take_turns_and_the_first_changes():
    order = []
    functions = {name: (lambda name=name: order.append(name)) for name in "abc"}
    compare_latency(functions, rounds=20, calls_per_round=1, warmup=1, baseline="b")
    assert "".join(order[:9]) == "abc" + "abc" + "bca" and len(order) == 63


def test_refuses():
    strided, measured, compared = np.ones((8, 8))[:, :4], {"function": dir}, {"f": dir}
    few = {"functions": compared, "rounds": 3, "calls_per_round": 3}
    for measure, arguments, error, word in (
        (measure_latency, {"function": 3}, TypeError, "call is of type int"),
        (measure_latency, measured | {"repeats": 19}, ValueError, "repeats"),
        (measure_latency, measured | {"warmup": -1}, ValueError, "warmup"),
        (compare_latency, {"functions": {}}, ValueError, "functions"),
        (compare_latency, {"functions": compared, "baseline": "g"}, ValueError, "baseline"),
        (compare_latency, few, ValueError, "at least 20"),
        (serving.read_bandwidth, {"table": np.ones(7, np.uint8)}, ValueError, "table has 7 bytes"),
        (serving.read_bandwidth, {"table": strided}, ValueError, "contiguous"),
        (roofline, {"num_bytes": -1, "machine": TOY}, ValueError, "num_bytes"),
        (serving.count_flops, {"model": np.ones(3)}, TypeError, "model"),
    ):
        with pytest.raises(error, match=word):
            measure(**arguments)


def test_percentiles_and_roofline_by_hand_and_a_machine_that_is_measured():
    latency = Latency("f", np.arange(1.0, 102.0), 1.0, "machine")
    assert (latency.p50_us, latency.p90_us, latency.p99_us) == (51.0, 91.0, 100.0)
    assert (latency.spread, latency.throughput) == pytest.approx((80 / 51, 1 / 51e-6))
    memory, compute = roofline(200, 10, machine=TOY), roofline(100, 50, machine=TOY)
    assert (memory.seconds, memory.limit) == (2, "memory")
    assert (compute.seconds, compute.limit) == (5, "compute")
    machine = serving.measure_machine(repeats=2, num_bytes=1 << 20)
    assert machine.read_bytes_per_s > 1e8 and machine.flops_per_s > 1e8
    assert machine.hardware == serving.hardware_line() and "\n" not in repr(machine)


def test_flops_of_a_small_network_by_hand():
    import keras

    users, items = keras.Input((), dtype="int32"), keras.Input((), dtype="int32")
    user = keras.layers.Dense(6, activation="relu")(keras.layers.Embedding(10, 4)(users))
    item = keras.layers.Dense(6, use_bias=False)(keras.layers.Embedding(20, 4)(items))
    model = keras.Model([users, items], keras.layers.Dot(axes=1)([user, item]))
    assert serving.count_flops(model) == (2 * 4 * 6 + 6 + 6) + 2 * 4 * 6 + 2 * 6
    inputs = keras.Input((4, 4))
    model = keras.Model(inputs, keras.layers.LSTM(3, name="recurrent")(inputs))
    with pytest.raises(ValueError, match="'recurrent' is a LSTM"):
        serving.count_flops(model)
