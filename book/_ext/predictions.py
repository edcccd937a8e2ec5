"""Questions that a reader answers before seeing a result: book/predictions.toml, made whole.

No answer is typed. A value names where it is stored in the notebook:

- ``glue NAME``: a value that the notebook hands to the pages;
- ``table CELL; ROW; COLUMN``: a cell of a table in an output; ``A / B`` for a row of two headings;
- ``text CELL; REGEX``: the first group in the text of an output.

Of the text the first number counts. ``answer`` is arithmetic with these values, and ``text`` may
quote them, as in ``{rows:.0f}``.
"""

from __future__ import annotations

import base64
import io
import json
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from bs4 import BeautifulSoup
from PIL import Image

NUMBER = re.compile(r"[-+\u2212]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
MARK = "Guess first."  # how the question begins, in the notebook and on the page


@dataclass(frozen=True)
class Question:
    """A question with its answer.

    Args:
        cell: id of the cell whose output shows the answer first.
        text: what is asked.
        unit: behind a number, such as " %".
        digits: after the point.
        answer: what was measured; of a choice, its place among the choices.
        low, high: ends of the slider; None for a choice.
        log: whether the slider has equal factors instead of equal steps.
        choices: texts and what was measured for each; none for a slider.
    """

    cell: str
    text: str
    answer: float
    unit: str = ""
    digits: int = 0
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: list[tuple[str, float]] = field(default_factory=list)


def load_questions(path: Path) -> dict[str, dict[str, Any]]:
    """Return the entries of the file by name of the notebook."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def resolve(entry: dict[str, Any], notebook: dict[str, Any]) -> Question:
    """Return a question with the values that the notebook has stored.

    Raises:
        LookupError: a value is not where the entry says.
    """
    found = {name: find_value(place, notebook) for name, place in entry["values"].items()}
    common = {name: entry[name] for name in ("cell", "unit", "digits") if name in entry}
    common["text"] = entry["text"].format(**found)
    find_cell(entry["cell"], notebook)
    if "choices" in entry:
        measured = [(text, _compute(value, found)) for text, value in entry["choices"]]
        values = [value for _, value in measured]
        best = {"max": max, "min": min}[entry["pick"]](values)
        if values.count(best) != 1:
            raise LookupError(f"{entry['text']!r} has {values.count(best)} answers: expected one")
        return Question(answer=values.index(best), choices=measured, **common)
    answer, (low, high) = _compute(entry["answer"], found), entry["range"]
    if not low <= answer <= high:
        raise LookupError(f"{entry['text']!r} is {answer}: expected it from {low} to {high}")
    return Question(answer=answer, low=low, high=high, log=entry.get("log", False), **common)


def _compute(expression: str, values: dict[str, float]) -> float:
    return float(eval(expression, {"__builtins__": {}}, values))


def find_value(place: str, notebook: dict[str, Any]) -> float:
    """Return the number that is stored at a place, see the top of this file."""
    kind, _, rest = place.partition(" ")
    name, *path = [part.strip() for part in rest.split(";")]
    if kind == "glue":
        text = _glued(name, notebook)
    elif kind == "table":
        text = _in_table(find_cell(name, notebook), *path)
    else:
        text = _outputs(find_cell(name, notebook), "text/markdown", "text/plain")
    if kind != "table" and path:
        match = re.search(path[0], text)
        text = match[1] if match else ""
    number = NUMBER.search(text)
    if number is None:
        raise LookupError(f"{place!r}: there is no such number in the outputs")
    return float(number[0].replace(",", "").replace("\u2212", "-"))


def find_cell(name: str, notebook: dict[str, Any]) -> dict[str, Any]:
    """Return the cell with an id."""
    for cell in notebook["cells"]:
        if cell["id"] == name:
            return dict(cell)
    raise LookupError(f"there is no cell {name!r}")


def _glued(name: str, notebook: dict[str, Any]) -> str:
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if output.get("metadata", {}).get("scrapbook", {}).get("name") == name:
                return "".join(output["data"]["application/papermill.record/text/plain"])
    raise LookupError(f"nothing is glued as {name!r}")


def _outputs(cell: dict[str, Any], *kinds: str) -> str:
    texts = []
    for output in cell.get("outputs", []):
        data = output.get("data", {"text/plain": output.get("text", "")})
        texts += ["".join(data[kind]) for kind in kinds if kind in data]
    return "\n".join(texts)


def _in_table(cell: dict[str, Any], row: str, column: str) -> str:
    rows = [name.strip() for name in row.split(" / ")]
    for table in BeautifulSoup(_outputs(cell, "text/html"), "html.parser").find_all("table"):
        grid = _grid(table)
        columns = [i for line in grid for i, text in enumerate(line) if text == column]
        for line in grid:
            if columns and all(name in line[: len(line)] for name in rows):
                return line[columns[0]]
    raise LookupError(f"cell {cell['id']!r} has no row {row!r} with a column {column!r}")


def _grid(table: Any) -> list[list[str]]:
    """Return the texts of a table, those of spanning cells in each place that they span."""
    grid: dict[tuple[int, int], str] = {}
    lines = table.find_all("tr")
    for i, line in enumerate(lines):
        j = 0
        for cell in line.find_all(["th", "td"]):
            while (i, j) in grid:
                j += 1
            spans = int(cell.get("rowspan", 1)), int(cell.get("colspan", 1))
            text = " ".join(cell.get_text().split())
            grid |= {(i + a, j + b): text for a in range(spans[0]) for b in range(spans[1])}
            j += spans[1]
    width = 1 + max((j for _, j in grid), default=-1)
    return [[grid.get((i, j), "") for j in range(width)] for i in range(len(lines))]


def read_notebook(path: Path) -> dict[str, Any]:
    """Return a notebook as JSON has it."""
    return dict(json.loads(path.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Axis:
    """Where a number stands in a picture of a figure: at ``start + slope * number`` of its size.

    Args:
        side: "x", from the left, or "y", from the top.
        log: whether the logarithm of the number counts.
        start, slope: shares of the width or the height of the picture.
    """

    side: str
    log: bool
    start: float
    slope: float


def find_axis(entry: dict[str, Any], notebook: dict[str, Any]) -> Axis:
    """Return where a guess is to be drawn in the figure that an entry names.

    The numbers at the ticks are given, their places are looked for: ticks of seven pixels, outside
    the first line that bounds the axes. ``times`` is what a guess is multiplied by.

    Raises:
        LookupError: another number of ticks, or a figure that is not there.
    """
    figure, found = (
        entry["figure"],
        {k: find_value(v, notebook) for k, v in entry["values"].items()},
    )
    png = _outputs(find_cell(figure["cell"], notebook), "image/png")
    if not png:
        raise LookupError(f"cell {figure['cell']!r} has no figure")
    places, size = _ticks(png, figure["side"])
    values = np.array(figure["ticks"], float)
    if len(places) != len(values):
        raise LookupError(f"{figure['cell']!r} has {len(places)} ticks: expected {len(values)}")
    numbers = np.log(values) if figure.get("log") else values
    slope, start = np.polyfit(numbers, places / size, 1)
    if abs(start + slope * numbers - places / size).max() > 2 / size:
        raise LookupError(f"{figure['cell']!r}: its ticks are not where the numbers would be")
    times = _compute(str(figure.get("times", "1")), found)
    if figure.get("log"):
        return Axis(figure["side"], True, float(start + slope * np.log(times)), float(slope))
    return Axis(figure["side"], False, float(start), float(slope * times))


def _ticks(png: str, side: str) -> tuple[Any, int]:
    """Return the places of the ticks in pixels, by rising number, and the size along the axis."""
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("L")
    dark = np.asarray(image) < 110
    if side == "x":  # turned, so that the axis is the line on the left
        dark = dark[::-1].T
    length = dark.sum(axis=0)
    line = int(np.flatnonzero(length > 0.8 * length.max())[0])
    along = np.flatnonzero(dark[:, line])
    runs = np.split(along, np.flatnonzero(np.diff(along) > 1) + 1)
    first, last = max(runs, key=len)[[0, -1]]
    marks = np.flatnonzero(dark[:, line - 6 : line - 4].all(axis=1))
    marks = marks[(marks >= first - 1) & (marks <= last + 1)]  # without the other axis' words
    groups = np.split(marks, np.flatnonzero(np.diff(marks) > 1) + 1)
    places = np.array([group.mean() + 0.5 for group in groups if 0 < len(group) <= 3])
    return (places if side == "x" else places[::-1]), len(dark)
