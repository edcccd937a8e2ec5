"""Rules for the pages: one clean run, the template, figures for all readers, explained letters."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTATION = ROOT / "book" / "notation.md"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = [*NOTEBOOKS, *sorted((ROOT / "book").rglob("*.md"))]
PAGES += [*sorted((ROOT / "exercises").glob("*.md")), *sorted(ROOT.glob("*.md"))]
# The address that follows is checked in test_house.py.
SETUP = """\
import importlib.util

# In Colab: fetch the book's library
if importlib.util.find_spec("recsys_lib") is None:
    %pip install -q "recsys-lib @ git+https://github.com/"""
LAST_SECTIONS = ["When this fails", "Summary", "Exercises", "Further reading"]
LOG_NOISE = ("cpu_feature_guard", "cudart_stub", "oneDNN", "cuda_executor", "computation_placer")
# A number with a unit that somebody measured once: such numbers are computed, never typed.
MEASURED = re.compile(
    r"\b\d+(\.\d+)?\s?(ms|µs|us|MB|KB|KiB|MiB|x faster|× faster|x smaller|× smaller)\b"
)
FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![\\\w])\$([^$\n]+?)\$(?!\w)", re.DOTALL)
GREEK = "alpha|beta|gamma|Delta|lambda|mu|pi|theta|sigma|tau|phi|rho|eta|kappa|omega"
WORDS = re.compile(r"\\(?:text|mathrm|operatorname|begin|end|mathbb)\s*\{[^{}]*\}")
# A letter, and whether it belongs to a user, to an item or to zero.
SYMBOL = re.compile(r"(<\w+>|[A-Za-z])'?(?:_\{?([ui0])\b\}?(?![\w,]))?")
DECLARED = re.compile(r"(\$[^$]+\$)(\\\*)?")
# Letters of the table of symbols that mean something else in a chapter: habits of its field.
HABITS = {
    "03-objectives": {"q_i", "t"},  # the log Q correction; the label of a stored figure
    "12-knowledge-distillation": {"t", "s", "q", "q_i"},  # teacher, student, KL(p, q)
    "15-faster-training": {"m", "q_i"},  # Adam; the log Q correction
    "16-retrieval": {"M"},  # the largest norm
    "20-serving": {"<lambda>", "<mu>", "L", "W"},  # theory of queues
}

each_page = pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def _cells(path, kind):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == kind and "".join(cell["source"]).strip()]


def _source(cell):
    return "".join(cell["source"])


def _prose(path):
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    return "\n\n".join(_source(cell) for cell in _cells(path, "markdown"))


@each_notebook
def test_a_chapter_of_more_than_two_minutes_says_why(path):
    line = re.search(r"^- Time: (.*)", _prose(path), re.M)[1]
    seconds = re.match(r"(\d+) seconds", line)
    assert seconds is None or int(seconds[1]) <= 120 or ";" in line


@each_notebook
def test_exercises_are_numbered_and_say_how_hard_they_are(path):
    marks = re.findall(r"\*\*Exercise (\d+)\.?\*\* ?(\S*)", _prose(path))
    assert [int(number) for number, _ in marks] == list(range(1, len(marks) + 1))
    assert 3 <= len(marks) <= 5 and {mark for _, mark in marks} <= {"★", "★★", "★★★"}


@each_notebook
def test_outputs_are_small_and_come_from_one_clean_run(path):
    code = _cells(path, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert path.stat().st_size <= 1_000_000
    for output in (output for cell in code for output in cell["outputs"]):
        text, kinds = json.dumps(output), set(output.get("data", {}))
        assert output["output_type"] != "error", f"stored error: {output['ename']}"
        assert output.get("name") != "stderr", f"stored warning: {output['text']}"
        assert not any(noise in text for noise in LOG_NOISE), "log lines of TensorFlow"
        assert not kinds & {"image/svg+xml", "application/javascript"} and "<script" not in text
        assert not any("widget" in kind for kind in kinds), "no widgets: pass progress=False"


@each_notebook
def test_figures_have_caption_and_alternative_text(path):
    names = []
    for cell in _cells(path, "code"):
        figures = ["image/png" in output.get("data", {}) for output in cell["outputs"]]
        if any(figures):
            assert figures == [True], "one figure a cell and no other output: a caption is of one"
            shown = cell["metadata"].get("mystnb", {})
            assert len(shown.get("image", {}).get("alt", "")) >= 30, "alt: chart type, axes, trend"
            assert len(shown.get("figure", {}).get("caption", "")) >= 20
            names.append(shown["figure"].get("name", ""))
    assert len(set(names)) == len(names) and all(names)


@each_notebook
def test_first_cells_and_last_sections_follow_the_template(path):
    first, prose = _source(_cells(path, "markdown")[0]), _prose(path)
    assert re.match(r"# \S.*\n\n\S", first), "title, then one sentence"
    if number := re.match(r"\d+", path.stem):
        assert first.startswith(f"# {int(number[0])}. "), "a chapter's title has its number"
    assert len(re.findall(r"^# ", prose, flags=re.MULTILINE)) == 1
    opening = prose.split("\n## ")[0]
    assert re.search(r"^\*[^*]+\?\*$", opening, flags=re.MULTILINE), "a question in italics"
    goals = re.search(r"\*\*Objectives\.\*\*(.*)\*\*At a glance\.\*\*", opening, flags=re.DOTALL)
    assert goals and 3 <= len(re.findall(r"^- ", goals[1], flags=re.MULTILINE)) <= 5
    setup = _source(_cells(path, "code")[0])
    assert setup.startswith(SETUP) and "\nsetup(" in setup
    assert re.findall(r"^## (.+)$", prose, flags=re.MULTILINE)[-4:] == LAST_SECTIONS
    assert any("takeaway(" in _source(cell) for cell in _cells(path, "code"))
    metadata = json.loads(path.read_text(encoding="utf-8"))["metadata"]
    assert metadata["kernelspec"]["name"] == "python3"
    assert set(metadata) - {"run"} == {"kernelspec", "language_info"}, "make notebooks cleans this"


@each_notebook
def test_every_exercise_has_a_folded_solution(path):
    exercises = re.findall(r"\*\*Exercise (\d+)\.\*\*", _prose(path))
    assert exercises == [str(n + 1) for n in range(len(exercises))]
    assert 3 <= len(exercises) <= 5
    solved = re.findall(r"<details>\s*<summary>Solution (\d+)</summary>", _prose(path))
    for cell in _cells(path, "code"):
        if match := re.match(r"# Solution (\d+)", _source(cell)):
            assert "hide-cell" in cell["metadata"].get("tags", []), "solutions are folded"
            solved.append(match.group(1))
    assert set(solved) == set(exercises)


@each_page
def test_pages_type_no_measurements_and_links_lead_somewhere(path):
    text = _prose(path)
    found = [match.group(0) for match in MEASURED.finditer(text)]
    assert not found, "compute these in a notebook: show them with takeaway(), or glue them"
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http://", "https://", "mailto:", "attachment:")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
    for number, target in re.findall(r"\[[Cc]hapters? (\d+)\]\((?:[./\w]*/)?(\d+)-", text):
        assert int(number) == int(target), f"chapter {number} is not {target}"


def test_every_chapter_and_page_is_in_the_table_of_contents():
    listed = set(re.findall(r"(?:file|root): (\S+)", (ROOT / "_toc.yml").read_text("utf-8")))
    pages = [page for page in PAGES if page.parent.name != "exercises" and page.parent != ROOT]
    assert listed == {str(page.relative_to(ROOT).with_suffix("")) for page in pages}


def _symbols(text):
    """Letters of all formulas in a text, and apart from them those with the index u, i or 0."""
    text, found = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL), set()
    for formula in (one or other for one, other in FORMULA.findall(text)):
        formula = re.sub(rf"\\({GREEK})(?![a-zA-Z])", r"<\1>", WORDS.sub(" ", formula))
        for letter, index in SYMBOL.findall(re.sub(r"\\[a-zA-Z]+", " ", formula)):
            found |= {letter, f"{letter}_{index}"} if index else {letter}
    return found


def _rows(heading):
    section = NOTATION.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table[2:]]


def test_each_letter_has_one_row():
    text = (
        r"`$x$` $$\hat w_u = \sum_{i \in S_u} \mathrm{relu}(\lambda h_{ij})$$ and $z_0$, $9 or $5"
    )
    letters = {"w", "w_u", "i", "S", "S_u", "<lambda>", "h", "j", "z", "z_0"}
    assert _symbols(text) == letters
    rows = [_symbols(row[0]) - {"u", "i"} for row in _rows("Symbols")[1:]]
    indexed = [symbol for row in rows for symbol in row if "_" in symbol]
    plain = [s for row in rows for s in row if not any(x.startswith(f"{s}_") for x in indexed)]
    for symbols in (indexed, plain):
        assert sorted(symbols) == sorted(set(symbols))


def test_a_chapter_takes_no_letter_that_has_a_meaning():
    """It may take one of HABITS, with a star; and it writes each letter that it declares."""
    owned = set().union(*(_symbols(row[0]) for row in _rows("Symbols")))
    prose, taken = {path.name: _symbols(_prose(path)) for path in PAGES}, {}
    for chapter, letters in _rows("Letters of single chapters"):
        page = Path(chapter.rpartition("(")[2].rstrip(")"))
        for letter, star in DECLARED.findall(letters):
            symbol = max(_symbols(letter), key=len)  # with its index, if it has one
            assert symbol in prose[page.name], f"{page.stem} does not write {letter}"
            assert bool(star) == (symbol.partition("_")[0] in owned), f"{page.stem}: {letter}{star}"
            if star:
                taken.setdefault(page.stem, set()).add(symbol)
    assert taken == HABITS


@pytest.mark.parametrize("path", [p for p in PAGES if p.parent != ROOT], ids=lambda p: p.stem)
def test_letters_are_explained(path):
    known = set().union(*(_symbols(row[0]) for row in _rows("Symbols")))
    for chapter, letters in _rows("Letters of single chapters"):
        if path == NOTATION or path.name in chapter:
            known |= _symbols(letters)
    unknown = _symbols(_prose(path)) - known
    assert not unknown, f"book/notation.md does not explain {sorted(unknown)}"
