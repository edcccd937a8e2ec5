"""Each question of the book has its one answer in the outputs that its chapter has stored."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
_spec = importlib.util.spec_from_file_location("predictions", ROOT / "book/_ext/predictions.py")
assert _spec and _spec.loader
predictions = importlib.util.module_from_spec(_spec)
sys.modules["predictions"] = predictions
_spec.loader.exec_module(predictions)
ENTRIES = predictions.load_questions(ROOT / "book" / "predictions.toml")


def _notebook(name):
    return predictions.read_notebook(ROOT / "notebooks" / f"{name}.ipynb")


def test_every_chapter_asks():
    assert set(ENTRIES) == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}


@pytest.mark.parametrize("name", ENTRIES)
def test_the_answer_is_stored(name):
    question = predictions.resolve(ENTRIES[name], _notebook(name))
    assert question.text.endswith("?")
    if question.choices:
        texts, values = zip(*question.choices, strict=True)
        assert len({*texts}) == len(texts) >= 3
        assert values.count(values[int(question.answer)]) == 1


@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if "figure" in entry])
def test_the_guess_has_a_place_in_the_figure(name):
    """The ticks are where the numbers say; what was measured lies inside the picture."""
    axis = predictions.find_axis(ENTRIES[name], _notebook(name))
    answer = predictions.resolve(ENTRIES[name], _notebook(name)).answer
    assert 0 < axis.start + axis.slope * (math.log(answer) if axis.log else answer) < 1


@pytest.mark.parametrize("name", ENTRIES)
def test_the_question_in_the_notebook_is_of_today(name):
    """Where there is one, tools/guess_cells.py wrote it, before the cell that answers it."""
    notebook = _notebook(name)
    cells = {cell["id"]: place for place, cell in enumerate(notebook["cells"])}
    if "guess-first" in cells:
        question = predictions.resolve(ENTRIES[name], notebook)
        assert cells["guess-first"] + 1 == cells[question.cell]
        source = "".join(notebook["cells"][cells["guess-first"]]["source"])
        assert all(text in source for text in (question.text, *dict(question.choices)))


def test_a_value_that_is_not_there_is_no_answer():
    table = (
        "<table><tr><th></th><th>b</th></tr><tr><th rowspan=2>x</th><td>1,234 us</td></tr></table>"
    )
    cell = {"id": "c", "outputs": [{"data": {"text/html": table, "text/plain": "ratio 3.5x"}}]}
    notebook = {"cells": [cell]}
    assert predictions.find_value("table c; x; b", notebook) == 1234
    assert predictions.find_value("text c; ratio (.*)x", notebook) == 3.5
    for place in ("table c; y; b", "table c; x; d", "text c; share (.*)", "text d; .", "glue a"):
        with pytest.raises(LookupError):
            predictions.find_value(place, notebook)
    entry = {"cell": "c", "text": "Which?", "values": {"a": "table c; x; b"}, "pick": "max"}
    with pytest.raises(LookupError, match="2 answers"):
        predictions.resolve(entry | {"choices": [["one", "a"], ["two", "a"]]}, notebook)
    with pytest.raises(LookupError, match="from 0 to 9"):
        predictions.resolve(entry | {"answer": "a", "range": [0, 9]}, notebook)
