"""The programming exercises, from the headers of their files.

The directive ``exercise-table`` lists all of them; below the exercises of a chapter stand its own.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective

EXERCISES = Path(__file__).resolve().parents[2] / "exercises"
LEVELS = {"★": "★ easy", "★★": "★★ medium", "★★★": "★★★ hard"}


def read_header(path: Path) -> dict[str, str]:
    """Return Title, Chapter, Level, Learn and Source of an exercise."""
    title, *lines = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").splitlines()
    return {"Title": title.rstrip("."), **dict(line.split(": ", 1) for line in lines if line)}


class ExerciseTable(SphinxDirective):
    """A row for each exercise."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        self.env.note_reread()  # a new file changes it
        rows = ["| file | exercise | chapter | level | what you learn |", "|---|---|---|---|---|"]
        for path in sorted(EXERCISES.glob("ex*.py")):
            row = read_header(path)
            level = LEVELS[row["Level"]]
            title, where = row["Title"], f"chapter\u00a0{row['Chapter']}"
            rows.append(f"| `{path.stem}` | {title} | {where} | {level} | {row['Learn']} |")
        holder = nodes.Element()
        self.state.nested_parse(StringList(rows, source=self.env.docname), 0, holder)
        return holder.children


class ChapterExercises(SphinxTransform):
    """Name the programming exercises of a chapter below its other ones."""

    default_priority = 400

    def apply(self, **kwargs: Any) -> None:
        """Add a paragraph."""
        number = re.match(r"notebooks/(\d+)-", self.env.docname)
        files = sorted(EXERCISES.glob(f"ex{number[1]}_*.py")) if number else []
        sections = [s for s in self.document.findall(nodes.section) if "exercises" in s["ids"]]
        if not files or not sections:
            return
        line = nodes.paragraph("", "In code: ")
        for path in files:
            header = read_header(path)
            line += [nodes.literal("", path.stem), nodes.Text(f" ({LEVELS[header['Level']]}), ")]
        line += addnodes.pending_xref(
            "",
            nodes.inline("", "how to work on them", classes=["doc"]),
            refdoc=self.env.docname,
            refdomain="std",
            reftype="doc",
            reftarget="/book/exercises",
            refexplicit=True,
            refwarn=True,
        )
        line += nodes.Text(".")
        sections[0] += line


def setup(app: Sphinx) -> dict[str, Any]:
    """Register both."""
    app.add_directive("exercise-table", ExerciseTable)
    app.add_transform(ChapterExercises)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
