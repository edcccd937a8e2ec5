"""Take the cells that check a chapter off its page, and leave one line with their number.

A cell with the tag ``checks`` holds ``claim(...)`` and ``assert`` statements: nbval runs it, a
reader of the page need not see it. All of a chapter's are listed behind one line before its
exercises, or at its end.
"""

from __future__ import annotations

import ast
from html import escape
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.locale import get_translation
from sphinx.transforms.post_transforms import SphinxPostTransform

CHECKED = "Checked: "
say = get_translation("site")  # in the language of the book that is built


class GatherChecks(SphinxPostTransform):
    """Runs before the transform that folds hidden cells."""

    default_priority = 198
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        """Replace the cells of one document."""
        cells = [c for c in self.document.findall(nodes.container) if "tag_checks" in c["classes"]]
        said, computed = [], 0
        for cell in cells:
            source, *outputs = cell.findall(nodes.literal_block)
            lines = "\n".join(output.astext() for output in outputs).splitlines()
            said += [line.removeprefix(CHECKED) for line in lines if line.startswith(CHECKED)]
            nodes_of_source = ast.walk(ast.parse(source.astext()))
            computed += sum(isinstance(node, ast.Assert) for node in nodes_of_source)
            cell.parent.remove(cell)
        if said or computed:
            self._place(nodes.raw("", self._line(said, computed), format="html"))

    def _place(self, line: nodes.Node) -> None:
        sections = list(self.document.findall(nodes.section))
        for section in sections:
            if "exercises" in section["ids"]:
                section.parent.insert(section.parent.index(section), line)
                return
        sections[0].append(line)

    @staticmethod
    def _line(said: list[str], computed: int) -> str:
        number = len(said) + computed
        items = "".join(f"<li>{escape(text)}</li>" for text in said)
        if computed:
            more = str(say("and {0} values, compared with what they must be")).format(computed)
            items += f"<li>{more}</li>"
        line = str(say("{0} statements of this chapter checked")).format(number)
        return (
            '<details class="admonition checks"><summary>&#10003; '
            f"{line}</summary><ul>{items}</ul></details>"
        )


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the transform."""
    app.add_post_transform(GatherChecks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
