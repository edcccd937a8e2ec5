"""What is made from stored notebooks and built pages; what keeps bad ones from being published."""

import json
import re
from pathlib import Path

import from_notebooks
import nbformat
import pytest
import run_notebooks
import try_readme

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("output", "count", "problem"),
    [
        ({}, 1, None),
        ({}, None, "one run"),
        ({"text": "Not checked on synthetic data: fine"}, 1, "synthetic"),
        ({"name": "stderr", "text": "SYNTHETIC data takes its place"}, 1, "synthetic"),
        ({"output_type": "error", "ename": "E", "evalue": "", "traceback": []}, 1, "error"),
    ],
)
def test_pages_from_a_bad_run_are_not_published(tmp_path, output, count, problem):
    if "ename" not in output:
        output = {"output_type": "stream", "name": "stdout", "text": "Checked: fine"} | output
    outputs = [nbformat.from_dict(output)]
    cell = nbformat.v4.new_code_cell("1", execution_count=count, outputs=outputs)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "chapter.ipynb")
    found = run_notebooks.problem_of_stored(tmp_path / "chapter.ipynb")
    assert found is None if problem is None else problem in found


def test_a_takeaway_is_quoted_from_its_section(tmp_path):
    said = {"output_type": "display_data", "data": {"text/markdown": "> **Takeaway.** Four\nbits."}}
    cells = [
        {"cell_type": "markdown", "source": ["# 1. A title\n", "\n", "## The race, as ratios\n"]},
        {"cell_type": "code", "source": ["takeaway()"], "outputs": [said]},
    ]
    path = tmp_path / "01-x.ipynb"
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    assert from_notebooks.takeaways(path) == [("the-race-as-ratios", "Four bits.")]


@pytest.mark.parametrize(
    "page", ["README.md", pytest.param("book/which-technique.md", marks=pytest.mark.slow)]
)
def test_the_lines_that_a_newcomer_copies_run(page, tmp_path, capsys, monkeypatch):
    """From a table or a file of sales to metrics; on the second page to a compressed file, too."""
    lines = [x for x in try_readme.examples(ROOT / page) if re.search(r"from_frame|sales\.csv", x)]
    monkeypatch.setattr(try_readme, "examples", lambda page: lines)
    assert try_readme.run(ROOT / page, tmp_path) == len(lines) == 1
    assert "RankingResult" in capsys.readouterr().out
    assert page == "README.md" or (tmp_path / "shop.model").stat().st_size > 100
