"""Ask for a guess before a chapter's main result, and open the result after it.

The questions stand in book/predictions.toml and their answers in the notebooks' outputs. Here the
outputs that give the answer away are put into one box, with the question above it. The box is open:
book/_static/predict.js closes it where scripts run. A cell of the notebook that asks the same, for
those who read it in JupyterLab, is left out of the page.
"""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from predictions import MARK, Axis, Question, find_axis, load_questions, read_notebook, resolve
from sphinx.application import Sphinx
from sphinx.locale import get_translation
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

FILE = "book/predictions.toml"
logger = logging.getLogger(__name__)
say = get_translation("site")  # in the language of the book that is built


class AskFirst(SphinxPostTransform):
    """Runs when hidden cells are folded and checks are gathered."""

    default_priority = 800
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        """Put the question above the first output that answers it."""
        source = Path(self.env.doc2path(self.env.docname))
        entry = load_questions(Path(self.env.srcdir) / FILE).get(source.stem)
        if entry is None or source.suffix != ".ipynb":
            return
        notebook = read_notebook(source)
        try:
            question = resolve(entry, notebook)
            axis = find_axis(entry, notebook) if "figure" in entry else None
        except LookupError as error:
            logger.warning("no question: %s", error, location=self.env.docname)
            return
        for quote in list(self.document.findall(nodes.block_quote)):
            if quote.astext().startswith(MARK):
                quote.parent.remove(quote)
        names = [cell["id"] for cell in notebook["cells"]]
        shown = {names[c["cell_index"]]: c for c in self.document.findall(_is_cell)}
        if question.cell not in shown:
            logger.warning("cell %s is not shown", question.cell, location=self.env.docname)
            return
        if axis is not None:
            for image in shown[entry["figure"]["cell"]].findall(nodes.image):
                image["classes"].append("predict-figure")
        self._wrap(shown[question.cell], _form(question, axis))

    def _wrap(self, cell: nodes.container, form: str) -> None:
        section = cell.parent
        place = section.index(cell)
        waiting = section.children[place + 1 :]
        del section.children[place + 1 :]
        outputs = [c for c in cell.children if "cell_output" in c.get("classes", [])]
        if len(outputs) < len(cell.children):  # what computes the answer stays in view
            shown = nodes.container(classes=cell["classes"])
            for output in outputs:
                cell.remove(output)
                shown.append(output)
            waiting.insert(0, shown)
        else:
            waiting.insert(0, cell)
            section.remove(cell)
        section.append(nodes.raw("", form + '<div class="predict-result">', format="html"))
        section.extend(waiting)
        section.append(nodes.raw("", "</div>", format="html"))


def _is_cell(node: nodes.Node) -> bool:
    return isinstance(node, nodes.container) and "cell_index" in node


def _form(question: Question, axis: Axis | None) -> str:
    facts: dict[str, Any] = {
        "answer": question.answer,
        "unit": question.unit and str(say(question.unit)),
        "digits": question.digits,
    }
    facts["axis"] = axis and vars(axis)
    if question.choices:
        facts["values"] = [value for _, value in question.choices]
        ask = f"<fieldset><legend>{say('Your guess')}</legend>"
        for place, (text, _) in enumerate(question.choices):
            box = f'<input type="radio" name="guess" value="{place}" required>'
            ask += f"<label>{box} <span>{escape(str(say(text)))}</span></label>"
        ask += "</fieldset>"
    else:
        facts |= {"low": question.low, "high": question.high, "log": question.log}
        ask = (
            f'<label for="predict-guess">{say("Your guess")}</label> '
            '<output for="predict-guess"></output>'
            '<input id="predict-guess" name="guess" type="range" min="0" max="200" value="100">'
        )
    return (
        f'<form class="predict" hidden data-facts="{escape(json.dumps(facts))}">'
        f'<p id="predict-question"><strong>{say(MARK)}</strong> '
        f"{escape(str(say(question.text)))}</p>{ask}"
        f'<p><button type="submit">{say("Show what was measured")}</button> '
        f'<button type="button" class="predict-skip">{say("Skip")}</button> '
        f'<button type="button" class="predict-never">{say("Never ask")}</button></p></form>'
        '<div class="predict-said" role="status" tabindex="-1" hidden></div>'
    )


def _add_script(app: Sphinx, pagename: str, template: str, context: Any, doctree: Any) -> None:
    if Path(pagename).name in load_questions(Path(app.srcdir) / FILE):
        app.add_js_file("predict.js")


def _depend(app: Sphinx, doctree: nodes.document) -> None:
    app.env.note_dependency(str(Path(app.srcdir) / FILE))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the transform and the script."""
    app.add_post_transform(AskFirst)
    app.connect("html-page-context", _add_script)
    app.connect("doctree-read", _depend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
