"""The README's table is what the stored run of chapter 14 says."""

from __future__ import annotations

import base64
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("readme_table", ROOT / "tools" / "readme_table.py")
assert spec is not None and spec.loader is not None
readme_table = importlib.util.module_from_spec(spec)
spec.loader.exec_module(readme_table)


def notebook() -> dict[str, Any]:
    texts = {"all-run": "2026-01-02; a machine"}
    for prefix in ("all-whole", "all-items"):
        for name in readme_table._COLUMNS:
            texts[f"{prefix}-0-{name}"] = f"{prefix} {name}"
    kind = "application/papermill.record/text/plain"
    outputs = [
        {"data": {kind: repr(text)}, "metadata": {"scrapbook": {"name": key}}}
        for key, text in texts.items()
    ]
    shown = {"metadata": {"mystnb": {"figure": {"name": "fig-all-front"}}}}
    image = {"data": {"image/png": base64.b64encode(b"a picture").decode()}}
    return {"cells": [{"metadata": {}, "outputs": outputs}, shown | {"outputs": [image]}]}


def test_table_and_figure_come_from_the_notebook() -> None:
    found = notebook()
    text = readme_table.table(readme_table.glued(found))
    assert "| all-items step | all-items ndcg | all-items bytes |" in text
    assert text.endswith("Measured 2026-01-02; a machine.")
    assert readme_table.figure(found) == b"a picture"


def test_only_what_is_between_the_markers_changes() -> None:
    start, end = readme_table.START, readme_table.END
    once = readme_table.between_markers(f"a\n{start}\nold\n{end}\nb\n", "new")
    assert once == f"a\n{start}\n\nnew\n\n{end}\nb\n"
    assert readme_table.between_markers(once, "new") == once


def test_what_is_missing_is_named() -> None:
    for word, call in (
        ("results", lambda: readme_table.table({})),
        ("figure", lambda: readme_table.figure({"cells": []})),
        ("lines", lambda: readme_table.between_markers("text", "new")),
    ):
        with pytest.raises(ValueError, match=word):
            call()


def test_what_is_shown_is_what_the_stored_run_says() -> None:
    stored = json.loads(readme_table.CHAPTER.read_text(encoding="utf-8"))
    text = readme_table.README.read_text(encoding="utf-8")
    content = readme_table.table(readme_table.glued(stored))
    assert content.count("\n|") > 10, "the cumulative tables are missing"
    assert readme_table.between_markers(text, content) == text, "run tools/readme_table.py"
    assert readme_table.figure(stored) == readme_table.FIGURE.read_bytes(), "run the same"
    shown = readme_table.FIGURE.relative_to(ROOT).as_posix()
    first_screen = text[: text.index("```bash")]
    assert f"]({shown})" in first_screen and readme_table.START in first_screen
