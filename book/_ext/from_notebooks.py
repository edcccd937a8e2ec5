"""What pages take from the stored notebooks when the book is built, so that nobody types it.

``{takeaway}`` quotes the computed sentence of a section, ``{chapter-runs}`` lists what every
notebook needs and how its stored run ended, ``{data-sets}`` shows the cards of the data sets.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

from recsys_lib.notebook import ran_on_synthetic_data

SAID = re.compile(r"^>?\s*\*\*Takeaway\.\*\*\s*")
AT_A_GLANCE = re.compile(r"^- (Time|Data|Prerequisites|Memory): (.+)$", re.MULTILINE)


@cache
def _cells(path: Path, changed: float) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def cells_of(path: Path) -> list[dict[str, Any]]:
    """Return the cells of a notebook, read once for each of its versions."""
    return _cells(path, path.stat().st_mtime)


def slug(heading: str) -> str:
    """Return the anchor that MyST gives to a heading.

    Example:
        >>> slug("The race, as ratios")
        'the-race-as-ratios'
    """
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def takeaways(path: Path) -> list[tuple[str, str]]:
    """Return the anchor of its section and the text of each takeaway, in order."""
    found, section = [], ""
    for cell in cells_of(path):
        if cell["cell_type"] == "markdown":
            for heading in re.findall(r"^#{1,4} (.+)$", "".join(cell["source"]), re.MULTILINE):
                section = slug(heading)
        for output in cell.get("outputs", ()):
            text = "".join(output.get("data", {}).get("text/markdown", ""))
            if SAID.match(text):
                found.append((section, " ".join(SAID.sub("", text).split())))
    return found


class FromNotebooks(SphinxDirective):
    """Reads notebooks, and has its page built again when they change."""

    def notebooks(self) -> list[Path]:
        """Return all chapters in order."""
        return [self.read(path) for path in sorted(Path(self.env.srcdir).glob("notebooks/*.ipynb"))]

    def read(self, path: Path) -> Path:
        """Return a path of which the page now depends."""
        self.env.note_dependency(str(path))
        return path

    def markdown(self, text: str) -> list[nodes.Node]:
        """Return a text as it would be parsed on the page."""
        holder = nodes.container()
        lines = StringList(text.splitlines(), source=self.env.doc2path(self.env.docname))
        self.state.nested_parse(lines, 0, holder)
        return holder.children

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[nodes.Node]:
        """Return a table of Markdown cells."""
        lines = [head, ["---"] * len(head), *rows]
        box = nodes.container(classes=["words"])
        box += self.markdown("\n".join(f"| {' | '.join(line)} |" for line in lines))
        return [box]


class Takeaway(FromNotebooks):
    """The takeaway of one section, or the n-th one of it."""

    required_arguments = 1
    option_spec: ClassVar = {"number": directives.positive_int}

    def run(self) -> list[nodes.Node]:
        """Quote it, with a link to where it was computed."""
        name, _, section = self.arguments[0].partition("#")
        path = self.read((Path(self.env.doc2path(self.env.docname)).parent / name).resolve())
        texts = [text for anchor, text in takeaways(path) if anchor == section]
        number = self.options.get("number", 1)
        if len(texts) < number:
            raise self.error(f"{path.name} has {len(texts)} takeaways under #{section}")
        chapter = re.match(r"\d+", path.stem)
        where = f"chapter {int(chapter[0])}" if chapter else path.stem
        quote = nodes.block_quote("", classes=["takeaway"])
        quote += self.markdown(f"{texts[number - 1]}\n\n[As measured in {where}]({name}#{section})")
        return [quote]


class ChapterRuns(FromNotebooks):
    """What each notebook needs, and how the run ended whose outputs are stored."""

    def run(self) -> list[nodes.Node]:
        """List them."""
        head = ("notebook", "time", "data", "stored run")
        return self.table(head, [self._row(path) for path in self.notebooks()])

    def _row(self, path: Path) -> tuple[str, ...]:
        cells = cells_of(path)
        opening = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
        title = re.match(r"# ([^:\n]+)", opening)
        glance = dict(AT_A_GLANCE.findall(opening))
        data = re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", glance.get("Data", "")).split(";")[0]
        code = [c for c in cells if c["cell_type"] == "code" and "".join(c["source"]).strip()]
        outputs = [output for cell in code for output in cell["outputs"]]
        said = "".join("".join(output.get("text", "")) for output in outputs)
        if any(output["output_type"] == "error" for output in outputs):
            status = "failed"
        elif ran_on_synthetic_data(outputs):
            status = "synthetic data"
        elif any(cell["execution_count"] is None for cell in code):
            status = "not complete"
        else:
            checks = len(re.findall(r"^Checked: ", said, re.MULTILINE))
            status = f"complete: {len(code)} cells" + (f", {checks} claims" if checks else "")
        assert title is not None, path
        measured = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("run", {})
        time = glance.get("Time", "").split(";")[0].replace(" on 2 cores", "").split(" (")[0]
        if measured:
            memory = f"{measured['bytes'] / 1e9:.1f} GB"
            time = f"{measured['seconds']} s on {measured['cores']} cores, {memory}"
        return f"[{title[1]}](../notebooks/{path.name})", time, data, status


class DataSets(FromNotebooks):
    """The cards of the data sets, with a line of the page for each: ``name: text``."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """List them."""
        path = self.read(Path(self.env.srcdir) / "recsys_lib" / "data" / "catalogue.toml")
        cards = tomllib.loads(path.read_text(encoding="utf-8"))
        without = dict(line.split(": ", 1) for line in self.content if ": " in line)
        if set(without) != set(cards):
            raise self.error(f"expected a line for each of {', '.join(cards)}")
        rows = [
            (f"`{name}`: [{card['title']}]({card['source']})", card["licence"], without[name])
            for name, card in cards.items()
        ]
        return self.table(("what, and where", "terms", "without it"), rows)


class Published(SphinxRole):
    """A link to something that is published beside the pages: ``{published}`text <address>```."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return the link."""
        text, target = re.fullmatch(r"(.+) <(.+)>", self.text).groups()
        return [nodes.reference("", text, refuri=self.config.html_baseurl + target)], []


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("takeaway", Takeaway)
    app.add_directive("chapter-runs", ChapterRuns)
    app.add_directive("data-sets", DataSets)
    app.add_role("published", Published())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
