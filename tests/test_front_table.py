"""The table of recipes over data sets is computed from the rows of the benchmark."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))  # where it finds its neighbour
spec = importlib.util.spec_from_file_location("front_table", ROOT / "tools" / "front_table.py")
assert spec is not None and spec.loader is not None
front_table = importlib.util.module_from_spec(spec)
spec.loader.exec_module(front_table)


def front(movies: int = 1, others: int = 4) -> pd.DataFrame:
    names = [f"ml-{n}" for n in range(movies)] + [f"shop-{n}" for n in range(others)]
    rows = []
    for name in names:
        for recipe, change in (("float32", 0.0), ("good", -0.002), ("films only", -0.001)):
            if recipe == "films only" and name == "shop-0":
                change = -0.12
            for account, ratio in (("self-contained", 8.0), ("items", 9.0),
                                   ("items and histories", 2.0)):  # fmt: skip
                rows.append({
                    "data": name, "teacher": "rule", "account": account, "recipe": recipe,
                    "protocol": "full ranking", "seeds": 3, "users": 100, "start_ndcg": 0.1,
                    "ndcg": 0.1 * (1 + change), "change": change, "low": change - 0.004,
                    "high": change + 0.004, "bytes": 1000, "ratio": ratio, "p50_us": 10.0,
                    "p50_low_us": 9.0, "p50_high_us": 11.0, "p99_us": 20.0, "chosen": "",
                    "date": "2026-01-02", "machine": "a machine",
                })  # fmt: skip
    return pd.DataFrame(rows)


def test_what_holds_on_all_is_told_from_what_one_data_set_refutes() -> None:
    found = front_table.summary(front()).set_index("recipe")
    assert found.holds.to_dict() == {"float32": True, "good": True, "films only": False}
    assert found.refuted["films only"] == found.worst["films only"] == "shop-0"
    assert found.certified["good"] == 5 and found.certified["films only"] == 4
    assert found.low["good"] == pytest.approx(-0.002 - 0.004 / 5**0.5)


def test_a_wide_interval_certifies_nothing() -> None:
    wide = front()
    wide["low"], wide["high"] = wide.change - 0.2, wide.change + 0.2
    found = front_table.summary(wide).set_index("recipe")
    assert not found.holds["good"] and found.refuted["good"] == "" and not found.certified["good"]


def test_the_table_puts_them_apart_and_says_where_from() -> None:
    text = front_table.table(front())
    above, below = text.split("**refuted by some**")
    assert "| good | 8.0 to 8.0x | 9.0 to 9.0x | -0.2% (-0.4% to -0.0%) |" in above
    assert "| films only |" in below and "shop-0: -12.0%" in below
    assert "2026-01-02; a machine" in below and "100 users" in below


@pytest.mark.parametrize(("movies", "others"), [(1, 3), (3, 3)])
def test_too_few_data_sets_or_too_many_films_are_refused(movies: int, others: int) -> None:
    with pytest.raises(ValueError, match=r"front\.csv"):
        front_table.table(front(movies, others))


def test_only_what_is_between_the_markers_changes() -> None:
    start, end = front_table.START, front_table.END
    once = front_table.between_markers(f"a\n{start}\nold\n{end}\nb\n", "new", start, end)
    assert once == f"a\n{start}\n\nnew\n\n{end}\nb\n"
    with pytest.raises(ValueError, match="lacks the lines"):
        front_table.between_markers("text", "new", start, end)


def test_the_pages_say_what_the_stored_rows_say() -> None:
    if not any(front_table.START in (ROOT / page).read_text("utf-8") for page in front_table.PAGES):
        pytest.skip("the pages have no such table yet")
    for path, text in front_table.pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run tools/front_table.py"
