"""What is made from stored notebooks and built pages; what keeps bad ones from being published."""

import json
import re
from pathlib import Path

import from_notebooks
import make_slides
import nbformat
import pytest
import run_notebooks
import try_readme
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
<div class="cell"><div class="cell_input"><div class="highlight"><pre>def f()</pre></div></div>
<div class="cell_output"><blockquote>Small.</blockquote></div></div></div></section>
<section id="when-this-fails"><h2>When this fails</h2><p><strong>A row.</strong></p></section>
<section id="summary"><h2>Summary</h2><ul><li>round</li></ul></section>
<section id="exercises"><h2>Exercises</h2><div class="cell tag_hide-cell"><details>
<div class="cell_input"><div class="highlight"><pre># Solution 1</pre></div></div></details>
</div></section></section></article>
"""


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


def test_slides_are_chosen_by_the_kind_of_cell():
    article = BeautifulSoup(PAGE, "html.parser").article
    made = [slide.html() for slide in make_slides.slides_of(article)]
    order = ["A question?", "do it", "Two numbers.", "x = 1", 'src="images/a.png"', "def f()"]
    order += ["Small.", "A row.", "round"]
    assert len(made) == len(order)
    assert all(part in slide for part, slide in zip(order, made, strict=True))
    assert not re.search(r"plot\(\)|Guess|Solution|#", "".join(made))


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
