"""Write the table and the figure that the README and the index page show, from chapter 14.

Usage: readme_table.py            (after `make notebooks ONLY=14`)

The table goes between two marker lines of README.md, and is printed; the figure goes to
book/figures/compression-front.png. Both are what the stored run of the chapter says, and the line
under the table says when that was and on which machine.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CHAPTER = ROOT / "notebooks" / "14-all-together.ipynb"
FIGURE = ROOT / "book" / "figures" / "compression-front.png"
README = ROOT / "README.md"
START, END = "<!-- compression table: start -->", "<!-- compression table: end -->"
_FIGURE_NAME = "fig-all-front"
_COLUMNS = ("step", "ndcg", "bytes", "ratio", "p50", "p99")
_HEADER = ("step", "NDCG@10", "bytes", "times smaller", "p50 (µs)", "p99 (µs)")


def glued(notebook: dict[str, Any]) -> dict[str, str]:
    """Give the texts that a notebook has stored for pages, by key."""
    found = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            key = output.get("metadata", {}).get("scrapbook", {}).get("name")
            for kind, text in output.get("data", {}).items():
                if key and kind.endswith("text/plain"):
                    found[key] = "".join(text).strip("'\"")
    return found


def table(texts: dict[str, str]) -> str:
    """Give the cumulative tables of both kinds of file in Markdown.

    Raises:
        ValueError: the notebook has not been run.
    """
    if "all-run" not in texts:
        raise ValueError("chapter 14 has no stored results: run `make notebooks ONLY=14` first")
    lines = ["| " + " | ".join(_HEADER) + " |", "|---|" + "---:|" * (len(_HEADER) - 1)]
    for prefix, title in (
        ("all-whole", "one file with all users"),
        ("all-items", "items only, users by their history"),
    ):
        lines.append(f"| **{title}** |" + " |" * (len(_HEADER) - 1))
        row = 0
        while f"{prefix}-{row}-step" in texts:
            lines.append(
                "| " + " | ".join(texts[f"{prefix}-{row}-{name}"] for name in _COLUMNS) + " |"
            )
            row += 1
    run = texts["all-run"]
    said = (
        "NDCG@10 against 99 given negatives, with 95 % intervals over users; one model. Items only"
    )
    said += " leaves out the users' histories, which a service then has to keep."
    return "\n".join([*lines, "", f"{said} Measured {run}."])


def figure(notebook: dict[str, Any]) -> bytes:
    """Give the PNG of the front.

    Raises:
        ValueError: there is none.
    """
    for cell in notebook["cells"]:
        named = cell["metadata"].get("mystnb", {}).get("figure", {}).get("name") == _FIGURE_NAME
        for output in cell.get("outputs", []) if named else []:
            if "image/png" in output.get("data", {}):
                return base64.b64decode("".join(output["data"]["image/png"]))
    raise ValueError("chapter 14 has no stored figure: run `make notebooks ONLY=14` first")


def between_markers(text: str, content: str, start: str = START, end: str = END) -> str:
    """Replace what stands between the markers.

    Raises:
        ValueError: the markers are missing or in the wrong order.
    """
    before, found_start, rest = text.partition(start)
    _, found_end, after = rest.partition(end)
    if not found_start or not found_end:
        raise ValueError(f"a page lacks the lines {start!r} and {end!r}: expected both")
    return f"{before}{start}\n\n{content}\n\n{end}{after}"


def main() -> int:
    """Write both, and print the table."""
    notebook = json.loads(CHAPTER.read_text(encoding="utf-8"))
    try:
        content, image = table(glued(notebook)), figure(notebook)
        text = between_markers(README.read_text(encoding="utf-8"), content)
        FIGURE.write_bytes(image)
        README.write_text(text, encoding="utf-8")
        print(content)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
