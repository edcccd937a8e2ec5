"""One letter, one meaning: each formula uses the letters that book/notation.md explains."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTATION = ROOT / "book" / "notation.md"
PAGES = [
    *sorted((ROOT / "notebooks").glob("*.ipynb")),
    *sorted((ROOT / "book").rglob("*.md")),
    *sorted((ROOT / "exercises").glob("*.md")),
]
FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![\\\w])\$([^$\n]+?)\$(?!\w)", re.DOTALL)
GREEK = "alpha|beta|gamma|Delta|lambda|mu|pi|theta|sigma|tau|phi|rho|eta|kappa|omega"
WORDS = re.compile(r"\\(?:text|mathrm|operatorname|begin|end|mathbb)\s*\{[^{}]*\}")
# A letter, and whether it belongs to a user, to an item or to zero.
SYMBOL = re.compile(r"(<\w+>|[A-Za-z])'?(?:_\{?([ui0])\b\}?(?![\w,]))?")


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


def _markdown(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def test_symbols_are_read_from_formulas():
    text = (
        r"`$x$` $$\hat w_u = \sum_{i \in S_u} \mathrm{relu}(\lambda h_{ij})$$ and $z_0$, $9 or $5"
    )
    letters = {"w", "w_u", "i", "S", "S_u", "<lambda>", "h", "j", "z", "z_0"}
    assert _symbols(text) == letters


def test_each_letter_has_one_row():
    rows = [_symbols(row[0]) - {"u", "i"} for row in _rows("Symbols")[1:]]
    indexed = [symbol for row in rows for symbol in row if "_" in symbol]
    plain = [s for row in rows for s in row if not any(x.startswith(f"{s}_") for x in indexed)]
    assert sorted(indexed) == sorted(set(indexed))
    assert sorted(plain) == sorted(set(plain))


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_letters_are_explained(path):
    known = set().union(*(_symbols(row[0]) for row in _rows("Symbols")))
    for chapter, letters in _rows("Letters of single chapters"):
        if path == NOTATION or path.name in chapter:
            known |= _symbols(letters)
    unknown = _symbols(_markdown(path)) - known
    assert not unknown, f"book/notation.md does not explain {sorted(unknown)}"
