"""Put the question of each chapter into its notebook, before the cell that answers it.

Usage: guess_cells.py [NN ...]        (after book/predictions.toml or a stored output changed)

For those who read in JupyterLab or Colab. On the page the question is a form, and this cell is left
out of it (book/_ext/predict.py).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book" / "_ext"))

from predictions import MARK, find_cell, load_questions, read_notebook, resolve  # noqa: E402

CELL = "guess-first"  # id of the cell


def with_question(notebook: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """Return a notebook with its question before the cell that shows the answer."""
    question = resolve(entry, notebook)
    lines = [f"> **{MARK}** {question.text}"]
    lines += [">", *(f"> - {text}" for text, _ in question.choices)] if question.choices else []
    source = "\n".join(lines).splitlines(keepends=True)
    cell = {
        "cell_type": "markdown",
        "id": CELL,
        "metadata": {"tags": ["predict"]},
        "source": source,
    }
    cells = [old for old in notebook["cells"] if old["id"] != CELL]
    cells.insert(cells.index(find_cell(question.cell, notebook)), cell)
    return notebook | {"cells": cells}


def main() -> None:
    """Write the notebooks whose question changed."""
    for name, entry in load_questions(ROOT / "book" / "predictions.toml").items():
        path = ROOT / "notebooks" / f"{name}.ipynb"
        if sys.argv[1:] and name[:2] not in sys.argv[1:]:
            continue
        before = read_notebook(path)
        after = with_question(before, entry)
        if after != before:
            text = json.dumps(after, ensure_ascii=False, indent=1) + "\n"
            path.write_text(text, encoding="utf-8")
            print(path.name)


if __name__ == "__main__":
    main()
