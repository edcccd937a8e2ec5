"""The benchmark that compares our codes with ``bitbudget``'s, on made-up data."""

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


@pytest.mark.slow
def test_both_sides_rank_the_same_vectors_for_the_same_users_and_count_all_bytes():
    check = importlib.import_module("outside_check")
    data = make_synthetic(SyntheticConfig("video", num_users=600, num_items=400))
    split = Split(*data.split_leave_one_out(), name="made up")
    model = IALS(check.DIM, epochs=4, check=False).fit(split.train)
    rows = {row["kind"]: row for row in check.compare(split, model, most_users=300)}
    plain = rows["float32"]
    assert plain["users"] == 300 and plain["ndcg"] == plain["ndcg_bitbudget"] > 0
    assert (plain["change"], plain["low"], plain["high"]) == (0, 0, 0)
    for kind in ("float16", "8 bits"):
        assert rows[kind]["ndcg_bitbudget"] == pytest.approx(plain["ndcg"], rel=0.03)
        assert rows[kind]["ndcg"] == pytest.approx(plain["ndcg"], rel=0.03)
    theirs, again = plain["bytes_bitbudget"], rows["one bit, ranked again"]
    assert theirs == 400 * 128 * 4 == pytest.approx(plain["bytes"], abs=200)
    assert again["bytes_claimed"] == theirs / 32 and again["bytes_bitbudget"] == theirs * 33 / 32
    assert theirs / 4 < again["bytes"] < theirs / 2  # the copy in 8 bits is most of it
    for row in rows.values():
        assert row["bytes_claimed"] <= row["bytes_bitbudget"]
        assert np.isfinite([row["change"], row["low"], row["high"]]).all()
