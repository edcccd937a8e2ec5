"""The table of recipes over data sets is computed from the rows of the benchmark."""

from pathlib import Path

import front_table
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parent.parent


def front(movies=1, others=4):
    same = {
        "teacher": "rule", "protocol": "full ranking", "seeds": 3, "users": 100, "bytes": 1000,
        "start_ndcg": 0.1, "p50_us": 10.0, "p50_low_us": 9.0, "p50_high_us": 11.0, "p99_us": 20.0,
        "chosen": "", "date": "2026-01-02", "machine": "a machine",
    }  # fmt: skip
    accounts = {"self-contained": 8.0, "items": 9.0, "items and histories": 2.0}
    changes = {"float32": 0.0, "good": -0.002, "films only": -0.001}
    frame = pd.DataFrame(
        same | {"data": name, "recipe": recipe, "account": kind, "change": change, "ratio": ratio}
        for name in [f"ml-{n}" for n in range(movies)] + [f"shop-{n}" for n in range(others)]
        for recipe, change in changes.items()
        for kind, ratio in accounts.items()
    )
    frame.loc[(frame.recipe == "films only") & (frame.data == "shop-0"), "change"] = -0.12
    low, high = frame.change - 0.004, frame.change + 0.004
    return frame.assign(ndcg=0.1 * (1 + frame.change), low=low, high=high)


def test_what_holds_on_all_is_told_from_what_one_data_set_refutes():
    found = front_table.summary(front()).set_index("recipe")
    assert found.holds.to_dict() == {"float32": True, "good": True, "films only": False}
    assert found.refuted["films only"] == found.worst["films only"] == "shop-0"
    assert found.certified["good"] == 5 and found.certified["films only"] == 4
    assert found.low["good"] == pytest.approx(-0.002 - 0.004 / 5**0.5)
    above, below = front_table.table(front()).split("**refuted by some**")
    assert "| good | 8.0 to 8.0x | 9.0 to 9.0x | -0.2% (-0.4% to -0.0%) |" in above
    assert "| films only |" in below and "shop-0: -12.0%" in below
    assert "2026-01-02; a machine" in below and "100 users" in below
    wide = front().assign(low=-0.2, high=0.2)  # certifies nothing
    found = front_table.summary(wide).set_index("recipe").loc["good"]
    assert not found.holds and found.refuted == "" and not found.certified


@pytest.mark.parametrize(("movies", "others"), [(1, 3), (3, 3)])
def test_too_few_data_sets_or_too_many_films_are_refused(movies, others):
    with pytest.raises(ValueError, match=r"front\.csv"):
        front_table.table(front(movies, others))


def test_the_first_screen_has_one_claim_and_four_rows_that_change_one_thing():
    rows = front()
    rows.loc[(rows.recipe == "good") & (rows.data == "shop-1"), "change"] = -0.02
    rows.loc[(rows.recipe == "films only") & (rows.data == "shop-1"), "ratio"] = 16.0
    rows.loc[rows.recipe == "films only", "p50_us"] = 5.0
    ratios = {"framework": [300.0, 500.0], "search": [2.0, 9.0], "items": [700, 9000]}
    when = {"data": ["a", "b"], "run": [0, 1], "date": "2026-01-03", "machine": "other"}
    speed = pd.DataFrame(ratios | when)
    top, below = front_table.first_screen(rows, speed)
    claim, *table = top.split("\n")
    assert claim.count(".") == 1 + claim.count("8.0") and "8 to 16 times" in claim
    assert [line.split("|")[1].split(":")[0].strip(" *") for line in table[3:]] == [
        *("start", "smaller at the same quality", "smallest within 1 %", "fastest"),
    ]
    # where "films only" loses too much, the other is the smallest within 1 %
    assert "films only or good | 8 to 16x | -0.2% to -0.1% | 1.0 to 2.0x |" in table[-2]
    assert "2.0 to 9.0x" in table[-1] and "700 items" in below and "-0.6%" in below
    lines = front_table.three_ratios(front(), speed).splitlines()
    assert "framework" in lines[2] and lines[2].endswith("300.0 to 500.0x |")
    assert "search" in lines[3] and lines[3].endswith("2.0 to 9.0x |")


def test_pages_and_picture_say_what_the_stored_rows_say():
    with pytest.raises(ValueError, match="lacks the lines"):
        front_table.between_markers("text", "new", "x")
    for path, text in front_table.pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run tools/front_table.py"
    shown = front_table.points(front_table.stored()["front"])
    assert set(shown.family) == set(front_table.FAMILIES), "a family has lost its rows"
    known = front_table.fingerprint(shown).encode()
    assert known in front_table.FIGURE.read_bytes(), "run tools/front_table.py"
    readme = (ROOT / "README.md").read_text("utf-8")
    for page in (readme, (ROOT / "book" / "index.md").read_text("utf-8")):
        assert page.startswith("# Recommenders in Real Time\n\n<!-- first screen: start -->")
    assert f"]({front_table.FIGURE.relative_to(ROOT).as_posix()})" in readme
