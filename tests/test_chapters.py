"""Rules for the notebooks: one clean run, the template, figures that everybody can read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# The address that follows is checked in test_house.py.
SETUP = """\
import importlib.util

# In Colab: fetch the book's library
if importlib.util.find_spec("recsys_lib") is None:
    %pip install -q "recsys-lib @ git+https://github.com/"""
LAST_SECTIONS = ["When this fails", "Summary", "Exercises", "Further reading"]
LOG_NOISE = ("cpu_feature_guard", "cudart_stub", "oneDNN", "cuda_executor", "computation_placer")
MACHINE_PATH = re.compile(r"(?<![\w.~])/(?:work|tmp|root|home)" + r"/\w")
MEASURED = re.compile(
    r"\b\d+(\.\d+)?\s?(ms|µs|us|MB|KB|KiB|MiB|x faster|× faster|x smaller|× smaller)\b"
)

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def _cells(path: Path, kind: str) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == kind and "".join(cell["source"]).strip()]


def _source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def _prose(path: Path) -> str:
    return "\n\n".join(_source(cell) for cell in _cells(path, "markdown"))


def test_outputs_come_from_one_clean_run(path: Path) -> None:
    code = _cells(path, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        for output in cell["outputs"]:
            text = json.dumps(output)
            assert output["output_type"] != "error", f"stored error: {output['ename']}"
            assert output.get("name") != "stderr", f"stored warning: {output['text']}"
            assert not MACHINE_PATH.search(text), "a path of one machine in an output"
            assert not any(noise in text for noise in LOG_NOISE), "log lines of TensorFlow"


def test_outputs_are_small_and_need_no_scripts(path: Path) -> None:
    assert path.stat().st_size <= 1_000_000
    kinds = {kind for c in _cells(path, "code") for o in c["outputs"] for kind in o.get("data", {})}
    assert not kinds & {"image/svg+xml", "application/javascript"}
    assert not any("widget" in kind for kind in kinds), "no widgets: pass progress=False"
    assert not any("<script" in json.dumps(cell["outputs"]) for cell in _cells(path, "code"))


def test_figures_have_caption_and_alternative_text(path: Path) -> None:
    names = []
    for cell in _cells(path, "code"):
        figures = sum("image/png" in output.get("data", {}) for output in cell["outputs"])
        if not figures:
            continue
        assert figures == 1, "one figure a cell: a caption belongs to one"
        shown = cell["metadata"].get("mystnb", {})
        assert len(shown.get("image", {}).get("alt", "")) >= 30, "alt: chart type, axes, trend"
        assert len(shown.get("figure", {}).get("caption", "")) >= 20
        names.append(shown["figure"].get("name", ""))
        others = [o for o in cell["outputs"] if "image/png" not in o.get("data", {})]
        assert not others, "the figure is the only output of its cell"
    assert len(set(names)) == len(names) and all(names)


def test_first_cells_and_last_sections_follow_the_template(path: Path) -> None:
    first = _source(_cells(path, "markdown")[0])
    assert re.match(r"# \S.*\n\n\S", first), "title, then one sentence"
    if number := re.match(r"\d+", path.stem):
        assert first.startswith(f"# {int(number[0])}. "), "a chapter's title has its number"
    assert len(re.findall(r"^# ", _prose(path), flags=re.MULTILINE)) == 1
    opening = _prose(path).split("\n## ")[0]
    assert re.search(r"^\*[^*]+\?\*$", opening, flags=re.MULTILINE), "a question in italics"
    assert "**Objectives.**" in opening
    goals = opening.split("**Objectives.**")[1].split("**At a glance.**")[0]
    assert 3 <= len(re.findall(r"^- ", goals, flags=re.MULTILINE)) <= 5
    assert "**At a glance.**" in opening
    setup = _source(_cells(path, "code")[0])
    assert setup.startswith(SETUP) and "\nsetup(" in setup
    assert re.findall(r"^## (.+)$", _prose(path), flags=re.MULTILINE)[-4:] == LAST_SECTIONS
    assert any("takeaway(" in _source(cell) for cell in _cells(path, "code"))


def test_every_exercise_has_a_folded_solution(path: Path) -> None:
    exercises = re.findall(r"\*\*Exercise (\d+)\.\*\*", _prose(path))
    assert exercises == [str(n + 1) for n in range(len(exercises))]
    assert 3 <= len(exercises) <= 5
    solved = re.findall(r"<details>\s*<summary>Solution (\d+)</summary>", _prose(path))
    for cell in _cells(path, "code"):
        if match := re.match(r"# Solution (\d+)", _source(cell)):
            assert "hide-cell" in cell["metadata"].get("tags", []), "solutions are folded"
            solved.append(match.group(1))
    assert set(solved) == set(exercises)


def test_prose_types_no_measurements(path: Path) -> None:
    found = [match.group(0) for match in MEASURED.finditer(_prose(path))]
    assert not found, "compute these and show them with takeaway()"


def test_links_lead_somewhere_and_metadata_is_normal(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", _prose(path)):
        if not target.startswith(("http://", "https://", "attachment:")):
            assert (path.parent / target).exists(), f"link to {target}"
    for number, target in re.findall(r"\[[Cc]hapters? (\d+)\]\((\d+)-", _prose(path)):
        assert int(number) == int(target), f"chapter {number} is not {target}"
    metadata = json.loads(path.read_text(encoding="utf-8"))["metadata"]
    assert metadata["kernelspec"]["name"] == "python3"
    assert set(metadata) - {"run"} == {"kernelspec", "language_info"}, "make notebooks cleans this"
