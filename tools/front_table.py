"""What the first pages say in one claim, four rows and one picture, and the tables behind them.

Usage: front_table.py      (after `python benchmarks/front.py` or `python benchmarks/speed.py`)

Writes between marker lines of README.md, book/index.md and book/results.md, and draws
book/figures/compression-front.png. No figure is typed: all are computed here from the stored rows
of the benchmarks. results.md also gets one table for each data set, and how often the search kept
its promise. Translations of the first page take the new figures, too.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
FIGURE = ROOT / "book" / "figures" / "compression-front.png"
FIRST, LONG, BELOW = "first screen", "front", "first screen, how measured"
BUDGET = 0.01
ACCOUNTS = ("self-contained", "items and histories", "items")
# The picture: five families of ways to store a table, mild to harsh, and where the name stands.
FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "rounded rows: 8, 4 and 2 bits": ("quantization", ("8-bit rows", "4-bit rows", "2-bit rows")),
    "fewer dimensions": (
        "pruning",
        ("half the dimensions, 8 bits", "an eighth of the dimensions, float32"),
    ),
    "one bit a number": (
        "embedding_tables",
        ("one bit, ranked again", "one bit, RaBitQ", "product, a bit a number"),
    ),
    "transform coding": ("quantization", ("transform coding, error .1",)),
    "trained for the file": ("distillation", ("trained for the file",)),
}
LABELS = {  # where a name stands from its last point, when not to its right
    "transform coding": ((-6, 12), "right"),
    "trained for the file": ((6, 12), "left"),
    "one bit a number": ((7, -8), "left"),
}
NAMES = {"8-bit rows": "8 bits a number", "transform coding, error .1": "transform coding"}


def summary(front: pd.DataFrame) -> pd.DataFrame:
    """Return one row a recipe: the mean change over data sets, the worst, and how it was judged.

    The interval of the mean treats data sets as given and their errors as independent: half its
    width is the root of the sum of squared half widths over their number. A data set *certifies* a
    recipe when its whole interval is above -1 %, and *refutes* it when the whole is below.
    """
    ranked = front[front.protocol == "full ranking"]
    rows = []
    for recipe in dict.fromkeys(ranked.recipe):
        of_it = ranked[ranked.recipe == recipe]
        one = of_it[of_it.account == "self-contained"].set_index("data")
        half = (one.high - one.low) / 2
        spread = float((half**2).sum() ** 0.5 / len(one))
        ratios = of_it.groupby("account").ratio
        row = {"recipe": recipe, "data_sets": len(one), "change": one.change.mean()}
        row |= {"low": row["change"] - spread, "high": row["change"] + spread}
        row |= {"worst": one.change.idxmin(), "worst_change": one.change.min()}
        row |= {f"worst_{end}": one.loc[row["worst"], end] for end in ("low", "high")}
        row |= {"certified": int((one.low >= -BUDGET).sum())}
        row |= {"refuted": ", ".join(sorted(one.index[one.high < -BUDGET]))}
        for account in ACCOUNTS:
            row |= {f"{account} {end}": getattr(ratios, end)()[account] for end in ("min", "max")}
        rows.append(row)
    table = pd.DataFrame(rows)
    # On all data sets: none shows a loss of more than the budget, and together they exclude it.
    return table.assign(holds=(table.refuted == "") & (table.low >= -BUDGET))


def table(front: pd.DataFrame) -> str:
    """Return the recipes that hold on all data sets, and under them the others, in Markdown.

    Raises:
        ValueError: fewer than five data sets, or more than two of them MovieLens.
    """
    names = sorted(front.data.unique())
    movies = [name for name in names if name.startswith(("ml-", "ncf-ml"))]
    if len(names) < 5 or len(movies) > 2:
        raise ValueError(f"front.csv holds {names}: expected five data sets, two of MovieLens")
    found = summary(front)
    lines = [
        "| how the tables are stored | times smaller, one file | items only | mean change of "
        "NDCG@10 (95 %) | worst data set (95 %) | refuted by |",
        "|---|---:|---:|---:|---:|---|",
    ]
    titles = ("within 1 % on all of them", "refuted by none, not certain", "refuted by some")
    kinds = np.select([found.holds, found.refuted == ""], titles[:2], titles[2])
    for title in titles:
        part = found[(kinds == title) & (found.recipe != "float32")]
        lines.append(f"| **{title}** |" + " |" * 5)
        for _, row in part.sort_values("self-contained min").iterrows():
            ratios = [
                f"{row[f'{account} min']:.1f} to {row[f'{account} max']:.1f}x"
                for account in ("self-contained", "items")
            ]
            mean = f"{row.change:+.1%} ({row.low:+.1%} to {row.high:+.1%})"
            worst = f"{row.worst_change:+.1%} ({row.worst_low:+.1%} to {row.worst_high:+.1%})"
            cells = [row.recipe, *ratios, mean, f"{row.worst}: {worst}", row.refuted or "none"]
            lines.append("| " + " | ".join(cells) + " |")
    users = front.groupby("data").users.max()
    lines += ["", (
        f"{len(names)} data sets ({', '.join(f'{n}: {users[n]:,} users' for n in names)}), "
        f"{front.seeds.max()} models each, all unseen items ranked; changes are paired, against "
        f"the same model in float32, on the same users for every row. Times smaller: against the "
        f"float32 file of the same kind, smallest and largest of the data sets; the tables "
        f"below also count the histories that items only need. Measured {front.date.max()}; "
        f"{front.machine.iloc[-1]}."
    )]  # fmt: skip
    return "\n".join(lines)


def details(front: pd.DataFrame, calibration: pd.DataFrame) -> str:
    """Return one table a data set, and how often the search broke its promise."""
    parts = []
    for name, rows in front.groupby("data", sort=True):
        first = rows[(rows.recipe == "float32") & (rows.account == "self-contained")]
        start = ", ".join(f"{row.start_ndcg:.4f} ({row.protocol})" for row in first.itertuples())
        lines = [f":::{{dropdown}} {name}: {rows.users.max():,} users"]
        lines += [f"NDCG@10 of float32 {start}; teacher: {rows.teacher.iloc[0]}.", ""]
        lines.append("| recipe | account | bytes | times smaller | change (95 %) | p50 (µs) |")
        lines.append("|---|---|---:|---:|---:|---:|")
        for row in rows.itertuples():
            change = f"{row.change:+.2%} ({row.low:+.2%} to {row.high:+.2%})"
            took = f"{row.p50_us:,.0f} ({row.p50_low_us:,.0f} to {row.p50_high_us:,.0f})"
            account = row.account + (", 99 given" if row.protocol == "given negatives" else "")
            said = f": {row.chosen or 'nothing is certain'}" if row.recipe == "searched" else ""
            cells = [
                row.recipe + said,
                account,
                f"{row.bytes:,}",
                f"{row.ratio:.1f}x",
                change,
                took,
            ]
            lines.append("| " + " | ".join(cells) + " |")
        parts.append("\n".join([*lines, ":::"]))
    lines = ["**How often the search broke its promise** to lose at most 1 %, on users who had no "
             "part in the choice:", "",
             "| data | account | confidence | broken (95 %) | surely | times smaller, median |",
             "|---|---|---:|---:|---:|---:|"]  # fmt: skip
    for row in calibration.itertuples():
        broken = f"{row.broken} of {row.promises} ({row.broken_low:.0%} to {row.broken_high:.0%})"
        ratio = "none made" if pd.isna(row.median_ratio) else f"{row.median_ratio:.1f}x"
        cells = [row.data, row.account, f"{row.confidence:.0%}", broken, str(row.surely_broken)]
        lines.append("| " + " | ".join([*cells, ratio]) + " |")
    parts.append("\n".join(lines))
    return "\n\n".join(parts)


def span(low: float, high: float, digits: int = 0) -> str:
    """Return a range in words: one number where both ends look the same.

    Example:
        >>> span(13.1, 39.3), span(3.87, 3.88, 1)
        ('13 to 39', '3.9')
    """
    ends = [f"{end:.{digits}f}" for end in (low, high)]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def chosen(front: pd.DataFrame) -> tuple[pd.Series, pd.DataFrame]:
    """Return what rows 2 and 3 of the first page show, by rule.

    The first is the recipe that all data sets certify, and of several the smallest. The second has
    a row for each data set: its smallest file whose mean change is within one percent.
    """
    found = summary(front[front.recipe != "searched"]).sort_values("self-contained min")
    same = found[(found.certified == found.data_sets) & (found.recipe != "float32")]
    near = one_file(front[front.recipe != "searched"])
    near = near[near.change >= -BUDGET].sort_values("ratio").groupby("data").tail(1)
    return same.iloc[-1], near


def one_file(front: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of files with all users, all items ranked, with the time of float32."""
    rows = front[(front.protocol == "full ranking") & (front.account == "self-contained")]
    before = rows[rows.recipe == "float32"].set_index("data").p50_us
    return rows.assign(faster=rows.data.map(before) / rows.p50_us)


def _one_of(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def first_screen(front: pd.DataFrame, speed: pd.DataFrame) -> tuple[str, str]:
    """Return the claim with its four rows, and below them how that was measured, in Markdown."""
    same, near = chosen(front)
    rows, names = one_file(front), sorted(front.data.unique())
    searched, best = rows[rows.recipe == "searched"], near.loc[near.change.idxmax()]
    name, ways = NAMES.get(same.recipe, same.recipe), sorted(set(near.recipe))
    smaller = span(same["self-contained min"], same["self-contained max"], 1)
    claim = (
        f"**On {len(names)} data sets, {name} make a recommender {smaller} times smaller at the "
        f"same ranking quality, and the smallest files that lose at most 1 % are "
        f"{span(near.ratio.min(), near.ratio.max())} times smaller.**"
    )
    changes = (
        f"{same.change:+.1%} ({same.low:+.1%} to {same.high:+.1%})",
        f"{near.change.min():+.1%} to {near.change.max():+.1%}",
    )
    times = [
        span(ratios.min(), ratios.max(), 1)
        for ratios in (rows[rows.recipe == same.recipe].faster, near.faster, speed.search)
    ]
    table = [
        "| | times smaller | change of NDCG@10 | times faster |",
        "|---|---:|---:|---:|",
        "| **start**: 32 bits a number | 1x | 0 | 1x |",
        f"| **smaller at the same quality**: {name} | {smaller}x | {changes[0]} | {times[0]}x |",
        f"| **smallest within 1 %**: {_one_of(NAMES.get(way, way) for way in ways)} | "
        f"{span(near.ratio.min(), near.ratio.max())}x | {changes[1]} | {times[1]}x |",
        f"| **fastest**: an exact 8-bit search | 1x | 0 | {times[2]}x |",
    ]
    below = (
        f"Data sets: {', '.join(names)}; {front.seeds.max()} models (seeds) each. Where there are "
        f"two numbers, they are the smallest and the largest of the data sets, and in brackets the "
        f"95 % interval of the mean over them. All unseen items are ranked; changes are paired, on "
        f"the same users. Bytes are those of one file with all users. Row 3 takes the smallest of "
        f"{front.recipe.nunique() - 2} ways for each data set, judged by the same users, which "
        f"flatters it: the intervals of its changes reach down to {near.low.min():+.1%}. (The gain "
        f"is on {best.data}, where the start ranks badly: NDCG@10 {best.start_ndcg:.4f}.) A search "
        f"that decides on other users, and keeps only what is certain, ends at "
        f"{span(searched.ratio.min(), searched.ratio.max(), 1)}x with "
        f"{searched.change.min():+.1%} or more. For the times, each row changes one thing: rows 2 "
        f"and 3 the tables, under the same search; row 4 the search over the same tables, from a "
        f"matrix product in NumPy, in {speed.run.nunique()} runs; it gains nothing with "
        f"{speed['items'].min():,} items and most with many. What the framework costs before all "
        f"this is in chapter 5. Measured {front.date.max()}; {front.machine.iloc[-1]}."
    )
    return claim + "\n\n" + "\n".join(table), below


def three_ratios(front: pd.DataFrame, speed: pd.DataFrame) -> str:
    """Return where the time goes, one change a row, in Markdown."""
    rows = one_file(front)
    steps = [
        ("framework", "`predict` of Keras", "a matrix product in NumPy", speed.framework),
        ("search", "a matrix product in NumPy", "an exact search over 8-bit codes", speed.search),
    ]
    steps += [
        ("tables", "float32, in that search", f"{name}, in that search", ratios)
        for name in ("8-bit rows", "trained for the file", "half the dimensions, 4 bits")
        if len(ratios := rows[rows.recipe == name].faster)
    ]
    lines = ["| what changes | from | to | times faster, least to most |", "|---|---|---|---:|"]
    lines += [
        f"| {what} | {before} | {after} | {span(ratio.min(), ratio.max(), 1)}x |"
        for what, before, after, ratio in steps
        if ratio.notna().any()  # the framework is timed on a quiet machine alone
    ]
    said = (
        f"Over {speed.data.nunique()} data sets with {speed['items'].min():,} to "
        f"{speed['items'].max():,} items and 128 dimensions; framework and search over "
        f"{speed.run.nunique()} runs, too. The ten best of the catalogue for one user, one thread. "
        f"Measured {speed.date.max()}; {speed.machine.iloc[-1]}."
    )
    return "\n".join([*lines, "", said])


def points(front: pd.DataFrame) -> pd.DataFrame:
    """Return what the picture shows: one row a recipe, with its family."""
    found, rows = summary(front).set_index("recipe"), one_file(front)
    middle = np.exp(rows.assign(log=np.log(rows.ratio)).groupby("recipe").log.mean())
    columns = ["change", "low", "high", "self-contained min", "self-contained max"]
    return pd.DataFrame(
        {"family": family, "recipe": name, "ratio": middle[name], **found.loc[name, columns]}
        for family, (_, names) in FAMILIES.items()
        for name in names
        if name in found.index
    )


def fingerprint(shown: pd.DataFrame) -> str:
    """Return what the picture stores in itself, so that a test knows which numbers it is of."""
    return hashlib.sha256(shown.round(5).to_csv(index=False).encode()).hexdigest()[:16]


def draw(shown: pd.DataFrame, path: Path) -> None:
    """Draw quality against size, with the name of each family beside its last point."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    from recsys_lib.notebook import COLORS, setup, style

    setup(keras=False)
    fig, ax = plt.subplots(figsize=(6.0, 3.6))
    for family, rows in shown.groupby("family", sort=False):
        look, (move, side) = style(FAMILIES[family][0]), LABELS.get(family, ((7, 0), "left"))
        rows = rows.sort_values("ratio")
        height = 100 * rows.change
        of_one_kind = family in ("rounded rows: 8, 4 and 2 bits", "fewer dimensions")
        ax.plot(rows.ratio, height, **look if of_one_kind else look | {"linestyle": ""})
        bars = 100 * np.array([rows.change - rows.low, rows.high - rows.change])
        wide = [rows.ratio - rows["self-contained min"], rows["self-contained max"] - rows.ratio]
        ax.errorbar(
            rows.ratio, height, bars, np.array(wide), fmt="none", color=look["color"], alpha=0.4
        )
        place = rows.ratio.iloc[-1], height.iloc[-1]
        ax.annotate(family, place, move, ha=side, va="center", textcoords="offset points",
                    color=look["color"], fontsize=9)  # fmt: skip
    ax.axhline(-100 * BUDGET, color=COLORS["baseline"], linestyle="--", linewidth=0.8)
    ax.text(1.02, -100 * BUDGET - 0.4, "1 % lost", color=COLORS["baseline"], fontsize=8, va="top")
    ax.plot([1], [0], "x", color=COLORS["baseline"])
    ax.annotate("start", (1, 0), (4, 5), textcoords="offset points", color=COLORS["baseline"])
    ax.set(xscale="log", xlim=(0.95, 64), xlabel="times smaller, one file with all users")
    ax.set(ylabel="change of NDCG@10 [%]", ylim=(-29, 6))
    ax.set_xticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
    ax.minorticks_off()
    fig.savefig(path, dpi=150, metadata={"Description": fingerprint(shown), "Software": None})
    plt.close(fig)


def between_markers(text: str, content: str, name: str) -> str:
    """Return a page with what stands between two markers replaced.

    Raises:
        ValueError: the markers are missing or in the wrong order.
    """
    start, end = (f"<!-- {name}: {place} -->" for place in ("start", "end"))
    before, found_start, rest = text.partition(start)
    _, found_end, after = rest.partition(end)
    if not found_start or not found_end:
        raise ValueError(f"a page lacks the lines {start!r} and {end!r}: expected both")
    return f"{before}{start}\n\n{content}\n\n{end}{after}"


def stored() -> dict[str, Any]:
    """Return the rows of the three benchmarks."""
    front = pd.read_csv(RESULTS / "front.csv", keep_default_na=False)
    return {"front": front} | {
        name: pd.read_csv(RESULTS / f"{name}.csv") for name in ("speed", "calibration")
    }


def pages() -> dict[Path, str]:
    """Return what each page should say."""
    rows = stored()
    top, below = first_screen(rows["front"], rows["speed"])
    parts = {name: {FIRST: top, BELOW: below} for name in ("README.md", "book/index.md")}
    parts["book/results.md"] = {
        "times": three_ratios(rows["front"], rows["speed"]),
        LONG: table(rows["front"]) + "\n\n" + details(rows["front"], rows["calibration"]),
    }
    found = {}
    for name, contents in parts.items():
        path = ROOT / name
        found[path] = path.read_text(encoding="utf-8")
        for marker, content in contents.items():
            found[path] = between_markers(found[path], content, marker)
    return found


def parts_of(text: str) -> list[str]:
    """Return the paragraphs and the cells of a page whose paragraphs have one line each."""
    return [part.strip() for line in text.splitlines() for part in line.split("|")]


def main() -> int:
    """Write the pages and the picture."""
    from translations import follow_numbers

    try:
        for path, text in pages().items():
            before = parts_of(path.read_text(encoding="utf-8"))
            path.write_text(text, encoding="utf-8")
            if path.name == "index.md" and len(before) == len(parts_of(text)):
                follow_numbers("book/index", zip(before, parts_of(text), strict=True))
        draw(points(stored()["front"]), FIGURE)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
