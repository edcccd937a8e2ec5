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


def speed() -> pd.DataFrame:
    ratios = {"framework": [300.0, 500.0], "search": [2.0, 9.0], "items": [700, 9000]}
    return pd.DataFrame(
        ratios | {"data": ["a", "b"], "run": [0, 1], "date": "2026-01-03", "machine": "other"}
    )


def test_the_first_screen_has_one_claim_and_four_rows_that_change_one_thing() -> None:
    rows = front()
    rows.loc[(rows.recipe == "good") & (rows.data == "shop-1"), "change"] = -0.02
    rows.loc[(rows.recipe == "films only") & (rows.data == "shop-1"), "ratio"] = 16.0
    rows.loc[rows.recipe == "films only", "p50_us"] = 5.0
    top, below = front_table.first_screen(rows, speed())
    claim, *table = top.split("\n")
    assert claim.count(".") == 1 + claim.count("8.0") and "8 to 16 times" in claim
    assert [line.split("|")[1].split(":")[0].strip(" *") for line in table[3:]] == [
        *("start", "smaller at the same quality", "smallest within 1 %", "fastest"),
    ]
    # where "films only" loses too much, the other is the smallest within 1 %
    assert "films only or good | 8 to 16x | -0.2% to -0.1% | 1.0 to 2.0x |" in table[-2]
    assert "2.0 to 9.0x" in table[-1] and "700 items" in below and "-0.6%" in below


def test_each_ratio_of_times_names_what_changes() -> None:
    lines = front_table.three_ratios(front(), speed()).splitlines()
    assert "framework" in lines[2] and lines[2].endswith("300.0 to 500.0x |")
    assert "search" in lines[3] and lines[3].endswith("2.0 to 9.0x |")
    assert "700 to 9,000 items" in lines[-1] and "2026-01-03; other" in lines[-1]


def test_only_what_is_between_the_markers_changes() -> None:
    page = "a\n<!-- x: start -->\nold\n<!-- x: end -->\nb\n"
    once = front_table.between_markers(page, "new", "x")
    assert once == "a\n<!-- x: start -->\n\nnew\n\n<!-- x: end -->\nb\n"
    with pytest.raises(ValueError, match="lacks the lines"):
        front_table.between_markers("text", "new", "x")


def test_pages_and_picture_say_what_the_stored_rows_say() -> None:
    for path, text in front_table.pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run tools/front_table.py"
    shown = front_table.points(front_table.stored()["front"])
    assert set(shown.family) == set(front_table.FAMILIES), "a family has lost its rows"
    known = front_table.fingerprint(shown).encode()
    assert known in front_table.FIGURE.read_bytes(), "run tools/front_table.py"


def test_the_first_screen_stands_first() -> None:
    marker, readme = "<!-- first screen: start -->", (ROOT / "README.md").read_text("utf-8")
    for page in (readme, (ROOT / "book" / "index.md").read_text("utf-8")):
        title, found, _ = page.partition(marker)
        assert found and title == "# Recommenders in Real Time\n\n"
    assert f"]({front_table.FIGURE.relative_to(ROOT).as_posix()})" in readme
