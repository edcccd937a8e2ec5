"""Schedules: Zhu and Gupta's equation, TFMOT's numbers, sensible ends."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_lib.compression.pruning import PolynomialSchedule

TFMOT = """
import json, sys
import tensorflow as tf
from tensorflow_model_optimization.sparsity import keras as sparsity
jobs = json.load(sys.stdin)
results = []
for kind, options, steps in jobs:
    schedule = getattr(sparsity, kind)(**options)
    pairs = [schedule(tf.constant(step)) for step in steps]
    results.append([[float(sparsity) for _, sparsity in pairs], [bool(now) for now, _ in pairs]])
print("VALUES" + json.dumps(results))
"""


@pytest.mark.slow
def test_values_are_those_of_tfmot() -> None:
    steps = list(range(2, 14))  # from the first step: before it TFMOT prunes nothing either
    jobs, ours = [], []
    for initial, final, begin, end, power in [
        (0.0, 0.9, 0, 10, 3),
        (0.5, 0.8, 2, 6, 3),
        (0.2, 0.95, 1, 12, 1),
        (0.0, 0.5, 0, 1, 2),
    ]:
        options = {"initial_sparsity": initial, "final_sparsity": final, "power": power}
        jobs.append(("PolynomialDecay", options | {"begin_step": begin, "end_step": end}, steps))
        schedule = PolynomialSchedule(end, begin, initial, power)
        ours.append([schedule(step, final) for step in steps])
    every_four = {"initial_sparsity": 0.2, "final_sparsity": 0.8, "begin_step": 0, "end_step": 16}
    jobs.append(("PolynomialDecay", every_four | {"frequency": 4}, list(range(22))))
    done = subprocess.run(
        [sys.executable, "-c", TFMOT], input=json.dumps(jobs), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(done.stdout.split("VALUES")[1])
    *schedules, (sparsities, now) = theirs
    for mine, (other, _) in zip(ours, schedules, strict=True):
        assert mine == pytest.approx(other, abs=1e-6)
    # The steps at which fit_pruned(frequency=4) draws masks, in test_training.py.
    drawn = [step for step, due in enumerate(now) if due]
    assert drawn == [0, 4, 8, 12, 16]
    expected = [PolynomialSchedule(16, initial_sparsity=0.2)(step, 0.8) for step in drawn]
    assert expected == pytest.approx([sparsities[step] for step in drawn], abs=1e-6)


def test_equation_1_by_hand() -> None:
    # s_f + (s_i - s_f) (1 - (t - t_0) / (n dt))^3 with s_i = .2, s_f = .8, t_0 = 10, n dt = 100
    schedule = PolynomialSchedule(end_step=110, begin_step=10, initial_sparsity=0.2)
    assert schedule(9, 0.8) == 0.0
    assert schedule(10, 0.8) == pytest.approx(0.2)
    assert schedule(60, 0.8) == pytest.approx(0.8 - 0.6 / 8)
    assert schedule(110, 0.8) == schedule(10_000, 0.8) == 0.8


@given(
    final=st.floats(0, 0.999),
    initial=st.floats(0, 0.999),
    begin=st.integers(0, 20),
    length=st.integers(1, 20),
    power=st.floats(0.25, 6),
)
def test_sparsity_never_falls_and_ends_where_it_should(
    final: float, initial: float, begin: int, length: int, power: float
) -> None:
    schedule = PolynomialSchedule(begin + length, begin, initial, power)
    course = [schedule(step, final) for step in range(begin + length + 3)]
    assert all(low <= high + 1e-12 for low, high in itertools.pairwise(course))
    assert all(0 <= value <= final for value in course)
    assert course[-1] == course[begin + length] == final
    assert not any(course[:begin])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"end_step": 0}, "end_step is 0"),
        ({"end_step": 2, "begin_step": 2}, "end_step is 2"),
        ({"end_step": 2, "begin_step": -1}, "begin_step is -1"),
        ({"end_step": 2, "initial_sparsity": 1.0}, "initial_sparsity is 1.0"),
        ({"end_step": 2, "power": 0}, "power is 0"),
    ],
)
def test_errors(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PolynomialSchedule(**options)
    with pytest.raises(ValueError, match=r"final_sparsity is 1\.0"):
        PolynomialSchedule(3)(0, 1.0)
