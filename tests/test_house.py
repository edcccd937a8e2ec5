"""Rules of the house that a reader of the code relies on: rooms, imports, sizes, names."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import draw_house
import pytest
import set_address

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "recsys_lib"
# The order in which data flows; a room may import only from rooms before it.
ROOMS = tuple(draw_house.ROOMS)
HEAVY = {"tensorflow", "keras", "numba", "faiss", "ray", "matplotlib"}
LIGHT = (
    *("data", "evaluation", "models", "objectives", "notebook", "recipe", "serving", "text"),
    *("compression.pruning", "compression.quantization", "compression.embedding_tables"),
    "compression.tfmot",
)
MOST_LINES, MOST_FILES = 13_000, 130
MODULES = sorted(PACKAGE.rglob("*.py"))
TEXT_SUFFIXES = {".py", ".md", ".yml", ".toml", ".txt", ".cfg", ".sh", ".css", ".bib", ".po"}
TEXT_SUFFIXES |= {".ipynb"}
# Written in two pieces, so that this file passes its own test.
MACHINE_PATH = r"(?<![\w.~])/(?:work|tmp|root|home)" + r"/\w"


def _imported(path):
    """Names of all modules that a file imports, at its top or inside a function."""
    package = path.relative_to(ROOT).parent.parts
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *filter(None, [node.module])])
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def _docstring_lines(path):
    """Return the numbers of the lines of all docstrings in a file."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        line
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, documented) and ast.get_docstring(node)
        for line in range(node.body[0].lineno, node.body[0].end_lineno + 1)
    }


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_is_short_and_imports_only_from_rooms_before_its_own(path):
    text = path.read_text(encoding="utf-8")
    lines = len(text.splitlines()) - len(_docstring_lines(path))
    assert lines <= 250, f"{lines} lines without docstrings: a file does one thing"
    assert not re.search(r"\b(tf|tensorflow)\.keras\b|from tensorflow import keras", text)
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own != "__init__":
        assert own in ROOMS, f"{own} is no room of the house: add it to the order on purpose"
        rooms = {name.split(".")[1] for name in _imported(path) if name.startswith("recsys_lib.")}
        later = rooms & {*ROOMS[ROOMS.index(own) + 1 :]}
        assert not later, f"{own} may not import {sorted(later)}"


def test_the_library_is_small():
    """Blank lines, comments and docstrings are not counted."""
    lines = 0
    for path in MODULES:
        left_out = _docstring_lines(path)
        code = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        lines += sum(n not in left_out and not re.match(r"\s*(#|$)", line) for n, line in code)
    assert lines <= MOST_LINES and len(MODULES) <= MOST_FILES


def test_the_picture_of_the_rooms_is_of_today():
    stored = draw_house.PICTURE.read_text(encoding="utf-8")
    assert stored == draw_house.draw(), "run tools/draw_house.py"


@pytest.mark.alone
def test_imports_are_quick_and_light():
    code = (
        "import sys, time; start = time.perf_counter(); import recsys_lib; "
        "seconds = time.perf_counter() - start; import importlib, json; loaded = {{}}\n"
        "for name in {0}:\n"
        "    importlib.import_module('recsys_lib.' + name)\n"
        "    loaded[name] = sorted({1} & set(sys.modules))\n"
        "print(json.dumps([seconds, loaded]))"
    )
    runs = [
        json.loads(subprocess.check_output([sys.executable, "-c", code.format(names, HEAVY)]))
        for names in ((), (), LIGHT)
    ]
    assert min(seconds for seconds, _ in runs) < 0.5
    assert runs[-1][1] == {name: [] for name in LIGHT}


def _texts():
    folders = ("recsys_lib", "tests", "tools", "benchmarks", "book", "notebooks", "exercises")
    folders += (".github", ".ci")
    inside = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    return {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for path in [*ROOT.iterdir(), *inside]
        if path.is_file() and (path.suffix in TEXT_SUFFIXES or path.name in {"Makefile", "run"})
        if ".ipynb_checkpoints" not in path.parts
    }


def test_the_address_and_the_version_stand_in_one_place_and_no_path_of_a_machine():
    places = set_address.read().places() | {MACHINE_PATH: None}
    wrong = [
        f"{path}: {found[0]}"
        for path, text in _texts().items()
        for pattern, wanted in places.items()
        for found in re.finditer(pattern, text)
        if found[0] != wanted
    ]
    assert not wrong, "a path of one machine, or an address: run tools/set_address.py"
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert set_address.read().ref == f"v{version}", "what is installed is what the pages describe"
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\n## {version} " in (ROOT / "CHANGELOG.md").read_text("utf-8")
