"""The benchmark that compares our codes with ``bitbudget``'s, on made-up data."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from recsys_lib.data import Split
from recsys_lib.data.synthetic import SyntheticConfig, make_synthetic
from recsys_lib.models import IALS

pytest.importorskip("bitbudget")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))


@pytest.fixture(scope="module")
def rows():
    check = importlib.import_module("outside_check")
    data = make_synthetic(SyntheticConfig("video", num_users=600, num_items=400))
    split = Split(*data.split_leave_one_out(), name="made up")
    model = IALS(check.DIM, epochs=4, check=False).fit(split.train)
    return {row["kind"]: row for row in check.compare(split, model, most_users=300)}


@pytest.mark.slow
def test_both_sides_rank_the_same_vectors_for_the_same_users(rows):
    plain = rows["float32"]
    assert plain["users"] == 300 and plain["ndcg"] == plain["ndcg_bitbudget"] > 0
    assert (plain["change"], plain["low"], plain["high"]) == (0, 0, 0)
    for kind in ("float16", "8 bits"):
        assert rows[kind]["ndcg_bitbudget"] == pytest.approx(plain["ndcg"], rel=0.03)
        assert rows[kind]["ndcg"] == pytest.approx(plain["ndcg"], rel=0.03)


@pytest.mark.slow
def test_all_bytes_are_counted_on_both_sides(rows):
    plain = rows["float32"]["bytes_bitbudget"]
    assert plain == 400 * 128 * 4 == pytest.approx(rows["float32"]["bytes"], abs=200)
    again = rows["one bit, ranked again"]
    assert again["bytes_claimed"] == plain / 32 and again["bytes_bitbudget"] == plain * 33 / 32
    assert plain / 4 < again["bytes"] < plain / 2  # the copy in 8 bits is most of it
    for row in rows.values():
        assert row["bytes_claimed"] <= row["bytes_bitbudget"]
    assert np.isfinite([[row["change"], row["low"], row["high"]] for row in rows.values()]).all()
