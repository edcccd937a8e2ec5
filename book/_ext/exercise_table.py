"""The directive ``exercise-table``: the programming exercises, from the headers of their files."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
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


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("exercise-table", ExerciseTable)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
