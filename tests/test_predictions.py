"""Each question of the book has its one answer in the outputs that its chapter has stored."""

import math
from pathlib import Path

import predictions
import pytest

ROOT = Path(__file__).resolve().parent.parent
ENTRIES = predictions.load_questions(ROOT / "book" / "predictions.toml")


def _notebook(name):
    return predictions.read_notebook(ROOT / "notebooks" / f"{name}.ipynb")


@pytest.mark.parametrize("name", ENTRIES)
def test_the_answer_is_stored(name):
    question = predictions.resolve(ENTRIES[name], _notebook(name))
    assert question.text.endswith("?")
    if question.choices:
        texts, values = zip(*question.choices, strict=True)
        assert len({*texts}) == len(texts) >= 3
        assert values.count(values[int(question.answer)]) == 1


@pytest.mark.parametrize("name", ENTRIES)
def test_the_question_stands_in_the_notebook_and_in_the_figure(name):
    """Where tools/guess_cells.py wrote one, it is of today, before the cell that answers it."""
    entry, notebook = ENTRIES[name], _notebook(name)
    question = predictions.resolve(entry, notebook)
    cells = {cell["id"]: place for place, cell in enumerate(notebook["cells"])}
    if "guess-first" in cells:
        assert cells["guess-first"] + 1 == cells[question.cell]
        source = "".join(notebook["cells"][cells["guess-first"]]["source"])
        assert all(text in source for text in (question.text, *dict(question.choices)))
    if "figure" in entry:  # the ticks are where the numbers say; the answer lies inside
        axis = predictions.find_axis(entry, notebook)
        answer = math.log(question.answer) if axis.log else question.answer
        assert 0 < axis.start + axis.slope * answer < 1


def test_a_value_that_is_not_there_is_no_answer():
    assert set(ENTRIES) == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
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
