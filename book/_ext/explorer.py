"""The directive ``front-explorer``: every measured point of quality against size, to look through.

The points are those of benchmarks/results: front.csv (recipes on five data sets) and recipes.csv
(every method of the book on one). Where scripts run, book/_static/explorer.js draws them; elsewhere
the page keeps its static figure and tables, and this is nothing.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

# What a method belongs to, by how its name begins; the first that fits.
TECHNIQUES = {
    "searched": "searched",
    "trained for the file": "trained for the file",
    "rate-distortion": "trained for the file",
    "transform": "transform coding",
    "half the dimensions": "fewer dimensions",
    "an eighth": "fewer dimensions",
    "fewer dimensions": "fewer dimensions",
    "weight pruning": "pruning",
    "fewer rows": "pruning",
    "one bit": "one bit",
    "product": "codebooks",
    "residual": "codebooks",
    "codebooks": "codebooks",
    "low rank": "structured tables",
    "mixed dimension": "structured tables",
    "distillation": "distillation",
    "start": "distillation",
    "": "rounding",
}
COLUMNS = ("technique", "recipe", "account", "ratio", "change", "low", "high", "bytes", "p50_us")


def technique_of(method: str) -> str:
    """Return the technique that a method belongs to."""
    return next(name for start, name in TECHNIQUES.items() if method.startswith(start))


def point_sets(folder: Path) -> list[dict[str, Any]]:
    """Return for each data set and protocol its points, as lists in the order of COLUMNS."""
    sets: dict[str, dict[str, Any]] = {}
    rows = _rows(folder / "recipes.csv")
    start = next(r for r in rows if r["method"] == "float32" and r["account"] == "self-contained")
    about = "iALS with 192 dimensions, one seed. Sizes against both tables in float32."
    every = sets.setdefault("ncf-ml-1m, every method", {"about": about, "points": []})
    for row in rows:
        if row["part"] != "front" or row["method"] == "float32":
            continue
        recipe = row["method"]
        if row["setting"] not in recipe:
            recipe += f": {row['setting']}"
        every["points"].append(
            [
                technique_of(row["method"]),
                recipe,
                row["account"],
                _short(float(start["bytes"]) / float(row["bytes"])),
                _short(float(row["ndcg"]) / float(start["ndcg"]) - 1),
                None,
                None,
                int(row["bytes"]),
                None,
            ]
        )
    for row in _rows(folder / "front.csv"):
        if row["recipe"] == "float32":
            continue
        about = (
            f"iALS with 128 dimensions, {row['seeds']} seeds, {int(row['users']):,} users, "
            f"{row['protocol']}. Sizes against the float32 file of the same account."
        )
        name = f"{row['data']}, {row['protocol']}"
        into = sets.setdefault(name, {"about": about, "points": []})
        values = [_short(float(row[key])) for key in ("ratio", "change", "low", "high")]
        into["points"].append(
            [
                technique_of(row["recipe"]),
                row["recipe"],
                row["account"],
                *values,
                int(float(row["bytes"])),
                _short(float(row["p50_us"])) if row["p50_us"] else None,
            ]
        )
    return [{"name": name, **rest} for name, rest in sets.items()]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _short(value: float) -> float:
    return float(f"{value:.4g}")


class FrontExplorer(Directive):
    """Put the place of the explorer and its points into the page."""

    def run(self) -> list[nodes.Node]:
        """Return it as HTML."""
        env = self.state.document.settings.env
        folder = Path(env.srcdir) / "benchmarks" / "results"
        for name in ("front.csv", "recipes.csv"):
            env.note_dependency(str(folder / name))
        data = json.dumps({"columns": COLUMNS, "sets": point_sets(folder)}, ensure_ascii=False)
        text = data.replace("</", "<\\/")
        place = '<div id="front-explorer" hidden></div>'
        script = f'<script type="application/json" id="front-points">{text}</script>'
        return [nodes.raw("", place + script, format="html")]


def _add_script(app: Sphinx, pagename: str, template: str, context: Any, doctree: Any) -> None:
    if 'id="front-explorer"' in context.get("body", ""):
        app.add_js_file("explorer.js")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive and its script."""
    app.add_directive("front-explorer", FrontExplorer)
    app.connect("html-page-context", _add_script)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
