"""What is made from stored notebooks and built pages; what keeps bad ones from being published."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parent.parent


PAGE = """\
<article><section id="t"><h1>8. Title<a class="headerlink">#</a></h1>
<p>One sentence.</p><p><em>A question?</em></p><ul><li>do it</li></ul>
<section id="toy"><h2>By hand</h2><p>Two numbers.</p>
<div class="cell"><div class="cell_input"><div class="highlight"><pre>x = 1</pre></div></div></div>
<div class="cell tag_hide-input">
<details><div class="cell_input"><div class="highlight"><pre>plot()</pre></div></div></details>
<div class="cell_output"><figure><img src="../_images/a.png" alt="a line"/></figure></div></div>
</section>
<section id="m"><h2>Method</h2><form class="predict">Guess!</form><div class="predict-result">
<div class="cell">
<div class="cell_input"><div class="highlight"><pre>def f(): pass</pre></div></div>
<div class="cell_output"><blockquote>Small.</blockquote></div></div></div></section>
<section id="when-this-fails"><h2>When this fails</h2><p><strong>A row.</strong></p></section>
<section id="summary"><h2>Summary</h2><ul><li>round</li></ul></section>
<section id="exercises"><h2>Exercises</h2><div class="cell tag_hide-cell">
<details>
<div class="cell_input"><div class="highlight"><pre># Solution 1</pre></div></div></details>
</div></section></section></article>
"""


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def notebook(folder: Path, **changes: Any) -> Path:
    """Write a notebook with one run cell."""
    cell = nbformat.v4.new_code_cell("1", execution_count=1)
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="Checked: fine")]
    cell.update(changes)
    path = folder / "chapter.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    return path


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, None),
        ({"execution_count": None}, "one run"),
        ({"text": "Not checked on synthetic data: fine"}, "synthetic"),
        ({"name": "stderr", "text": "SYNTHETIC data takes its place"}, "synthetic"),
        ({"output_type": "error"}, "error"),
    ],
)
def test_pages_from_a_bad_run_are_not_published(
    tmp_path: Path, changes: dict[str, Any], problem: str | None
) -> None:
    tool = load("tools/run_notebooks.py")
    output = {"output_type": "stream", "name": "stdout", "text": "Checked: fine"}
    if changes.get("output_type") == "error":
        output = {"output_type": "error", "ename": "E", "evalue": "", "traceback": []}
    elif "execution_count" not in changes:
        output |= changes
    count = changes.get("execution_count", 1)
    path = notebook(tmp_path, outputs=[nbformat.from_dict(output)], execution_count=count)
    found = tool.problem_of_stored(path)
    assert found is None if problem is None else problem in found


def test_a_takeaway_is_quoted_from_its_section(tmp_path: Path) -> None:
    quotes = load("book/_ext/from_notebooks.py")
    said = {"output_type": "display_data", "data": {"text/markdown": "> **Takeaway.** Four\nbits."}}
    cells = [
        {"cell_type": "markdown", "source": ["# 1. A title\n", "\n", "## The race, as ratios\n"]},
        {"cell_type": "code", "source": ["takeaway()"], "outputs": [said]},
    ]
    path = tmp_path / "01-x.ipynb"
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    assert quotes.takeaways(path) == [("the-race-as-ratios", "Four bits.")]


def test_slides_are_chosen_by_the_kind_of_cell() -> None:
    slides = load("tools/make_slides.py")
    article = BeautifulSoup(PAGE, "html.parser").article
    made = [slide.html() for slide in slides.slides_of(article)]
    order = ["A question?", "do it", "Two numbers.", "x = 1", 'src="images/a.png"', "def f()"]
    order += ["Small.", "A row.", "round"]
    assert len(made) == len(order)
    assert all(part in slide for part, slide in zip(order, made, strict=True))
    assert not any(
        "plot()" in slide or "Guess" in slide or "Solution" in slide or "#" in slide
        for slide in made
    )


def test_the_lines_of_the_decision_page_run(tmp_path: Path, capsys: Any) -> None:
    """From a file of sales to a compressed file and an answer, as the page has it."""
    number = load("tools/try_readme.py").run(ROOT / "book" / "which-technique.md", tmp_path)
    assert number == 1
    assert (tmp_path / "shop.model").stat().st_size > 100
    assert "RankingResult" in capsys.readouterr().out
