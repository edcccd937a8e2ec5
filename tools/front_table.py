"""The table of recipes over several data sets, from ``benchmarks/results/front.csv``.

Usage: front_table.py            (after `python benchmarks/front.py`)

Writes between two marker lines of README.md, book/index.md and book/results.md. No figure in it is
typed: all are computed here from the rows of the benchmark. results.md also gets one table for each
data set and the calibration of the search.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from readme_table import between_markers

ROOT = Path(__file__).resolve().parent.parent
FRONT = ROOT / "benchmarks" / "results" / "front.csv"
CALIBRATION = ROOT / "benchmarks" / "results" / "calibration.csv"
PAGES = ("README.md", "book/index.md", "book/results.md")
START, END = "<!-- front: start -->", "<!-- front: end -->"
BUDGET = 0.01
ACCOUNTS = ("self-contained", "items and histories", "items")


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


def table(front: pd.DataFrame, refuted: bool = True) -> str:
    """Give the recipes that hold on all data sets, and under them the others, in Markdown.

    Without ``refuted``, those that some data set refutes are named in a line and have no rows.

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
        "NDCG@10 (95 %) | worst data set (95 %) |" + " refuted by |" * refuted,
        "|---|---:|---:|---:|---:|" + "---|" * refuted,
    ]
    titles = ("within 1 % on all of them", "refuted by none, not certain", "refuted by some")
    kinds = np.select([found.holds, found.refuted == ""], titles[:2], titles[2])
    for title in titles if refuted else titles[:2]:
        part = found[(kinds == title) & (found.recipe != "float32")]
        lines.append(f"| **{title}** |" + " |" * (4 + refuted))
        for _, row in part.sort_values("self-contained min").iterrows():
            ratios = [
                f"{row[f'{account} min']:.1f} to {row[f'{account} max']:.1f}x"
                for account in ("self-contained", "items")
            ]
            mean = f"{row.change:+.1%} ({row.low:+.1%} to {row.high:+.1%})"
            worst = f"{row.worst_change:+.1%} ({row.worst_low:+.1%} to {row.worst_high:+.1%})"
            cells = [row.recipe, *ratios, mean, f"{row.worst}: {worst}"]
            cells += [row.refuted or "none"] * refuted
            lines.append("| " + " | ".join(cells) + " |")
    users = front.groupby("data").users.max()
    fallen = "; ".join(sorted(found.recipe[kinds == titles[2]]))
    if not refuted:
        lines += ["", f"Refuted by some, with a loss of surely more than 1 %: {fallen}."]
    lines += ["", (
        f"{len(names)} data sets ({', '.join(f'{n}: {users[n]:,} users' for n in names)}), "
        f"{front.seeds.max()} models each, all unseen items ranked; changes are paired, against "
        f"the same model in float32, on the same users for every row. Times smaller: against the "
        f"float32 file of the same kind, smallest and largest of the data sets; with the bytes of "
        f"the histories that items only need, see the results page. Measured {front.date.max()}; "
        f"{front.machine.iloc[-1]}."
    )]  # fmt: skip
    return "\n".join(lines)


def details(front: pd.DataFrame, calibration: pd.DataFrame | None) -> str:
    """Give one table a data set, and how often the search broke its promise."""
    parts = []
    for name, rows in front.groupby("data", sort=True):
        first = rows[(rows.recipe == "float32") & (rows.account == "self-contained")]
        start = ", ".join(f"{row.start_ndcg:.4f} ({row.protocol})" for row in first.itertuples())
        head = f"**{name}**: {rows.users.max():,} users; NDCG@10 of float32 {start}"
        lines = [f"{head}; teacher: {rows.teacher.iloc[0]}.", ""]
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
        parts.append("\n".join(lines))
    if calibration is not None:
        lines = ["**How often the search broke its promise** to lose at most 1 %, on users who had "
                 "no part in the choice:", "",
                 "| data | account | confidence | broken (95 %) | surely | times smaller, median |",
                 "|---|---|---:|---:|---:|---:|"]  # fmt: skip
        for row in calibration.itertuples():
            broken = (
                f"{row.broken} of {row.promises} ({row.broken_low:.0%} to {row.broken_high:.0%})"
            )
            ratio = "none made" if pd.isna(row.median_ratio) else f"{row.median_ratio:.1f}x"
            cells = [row.data, row.account, f"{row.confidence:.0%}", broken, str(row.surely_broken)]
            lines.append("| " + " | ".join([*cells, ratio]) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def pages() -> dict[Path, str]:
    """Give what each page should say."""
    front = pd.read_csv(FRONT, keep_default_na=False)
    calibration = pd.read_csv(CALIBRATION) if CALIBRATION.exists() else None
    found = {}
    for name in PAGES:
        content = table(front, refuted=name.endswith("results.md"))
        if name.endswith("results.md"):
            content += "\n\n" + details(front, calibration)
        path = ROOT / name
        found[path] = between_markers(path.read_text(encoding="utf-8"), content, START, END)
    return found


def main() -> int:
    """Write the pages."""
    try:
        for path, text in pages().items():
            path.write_text(text, encoding="utf-8")
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
