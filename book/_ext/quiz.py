"""Append to each chapter's page its quiz, from book/quizzes/NN.toml.

The page holds questions, choices and, folded, what each answer teaches; quiz.js makes buttons of
the choices, which answer at once. Without JavaScript, and in a PDF, the page is as it stands.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.locale import get_translation
from sphinx.transforms import SphinxTransform

QUIZZES = Path(__file__).resolve().parent.parent / "quizzes"
NUMBERS = ("No questions", "One question", "Two questions", "Three questions", "Four questions")
NUMBERS += ("Five questions",)
say = get_translation("site")  # in the language of the book that is built
MARKED = re.compile(r"`([^`]+)`|\*([^*]+)\*")


def quiz_of(docname: str) -> Path | None:
    """Return the file with the quiz of a page."""
    found = re.fullmatch(r"notebooks/(\d+|pitfalls)(?:-.*)?", docname)
    path = QUIZZES / f"{found[1]}.toml" if found else None
    return path if path and path.exists() else None


def read_quiz(path: Path) -> list[dict[str, Any]]:
    """Return questions with their choices (text, whether right, explanation).

    The order of the choices follows from their text: always the same, and no habit of an author.
    """
    questions = []
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["question"]:
        choices = [(entry["right"], True), *((wrong, False) for wrong in entry["wrong"])]
        choices.sort(key=lambda choice: hashlib.sha256(choice[0][0].encode()).digest())
        choices = [(text, is_right, why) for (text, why), is_right in choices]
        questions.append({"ask": entry["ask"], "choices": choices})
    return questions


class AppendQuiz(SphinxTransform):
    """Runs before the links to chapters are made."""

    default_priority = 400

    def apply(self, **kwargs: Any) -> None:
        """Add a section to the end of the page."""
        path = quiz_of(self.env.docname)
        first = next(self.document.findall(nodes.section), None)
        # Not for the pieces that a translation is parsed in.
        if path is None or first is None or not str(self.document["source"]).endswith(".ipynb"):
            return
        self.env.note_dependency(str(path))
        questions = read_quiz(path)
        about = "{0} on this chapter. Each has one right answer."
        number = str(say(NUMBERS[len(questions)]))
        first += nodes.section(
            "",
            nodes.title("", str(say("Quiz"))),
            nodes.paragraph("", str(say(about)).format(number)),
            *(_question(number, **question) for number, question in enumerate(questions, 1)),
            ids=["quiz"],
            names=["quiz"],
            classes=["quiz"],
        )


def _question(number: int, ask: str, choices: list[tuple[str, bool, str]]) -> nodes.Node:
    answers = []
    for _, is_right, why in choices:
        verdict = str(say("Right." if is_right else "Not right."))
        strong = nodes.strong("", verdict, classes=["right"] if is_right else [])
        answers.append([strong, nodes.Text(" "), *_inline(str(say(why)))])
    title = nodes.paragraph("", "", *_inline(f"{number}. {say(ask)}"), ids=[f"quiz-{number}"])
    return nodes.container(
        "",
        title,
        _letters([list(_inline(str(say(text)))) for text, _, _ in choices]),
        nodes.raw("", f"<details><summary>{say('Answers')}</summary>", format="html"),
        addnodes.only("", nodes.paragraph("", "Answers:"), expr="not html"),
        _letters(answers),
        nodes.raw("", "</details>", format="html"),
        classes=["quiz-question"],
    )


def _letters(items: list[list[nodes.Node]]) -> nodes.Node:
    rows = [nodes.list_item("", nodes.paragraph("", "", *item)) for item in items]
    return nodes.enumerated_list("", *rows, enumtype="upperalpha", prefix="", suffix=".")


def _inline(text: str) -> Iterator[nodes.Node]:
    """Yield a text with its `code` and *emphasis*."""
    end = 0
    for mark in MARKED.finditer(text):
        yield nodes.Text(text[end : mark.start()])
        yield nodes.literal("", mark[1]) if mark[1] else nodes.emphasis("", mark[2])
        end = mark.end()
    yield nodes.Text(text[end:])


def _add_files(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    if doctree is not None and quiz_of(pagename):
        app.add_js_file("quiz.js", loading_method="defer")
        app.add_css_file("quiz.css")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the transform, and the files of the pages with a quiz."""
    app.add_transform(AppendQuiz)
    app.connect("html-page-context", _add_files)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
