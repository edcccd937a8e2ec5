"""Rules of the house that a reader of the code relies on: rooms, imports, names, pages."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "recsys_lib"


def _tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # a dataclass looks for its module
    spec.loader.exec_module(module)
    return module


draw_house, set_address = _tool("draw_house"), _tool("set_address")
# The order in which data flows; a room may import only from rooms before it.
ROOMS = tuple(draw_house.ROOMS)
LIGHT = (
    *("data", "evaluation", "models", "objectives", "notebook", "recipe", "compression.tfmot"),
    *("compression.pruning", "compression.quantization", "compression.embedding_tables"),
)
MOST_LINES, MOST_FILES = 13_000, 130
MODULES = sorted(PACKAGE.rglob("*.py"))
PAGES = [*sorted((ROOT / "book").rglob("*.md")), *sorted(ROOT.glob("*.md"))]
TEXT_SUFFIXES = {".py", ".md", ".yml", ".toml", ".txt", ".cfg", ".sh", ".css", ".bib", ".po"}
TEXT_SUFFIXES |= {".ipynb"}
# A number with a unit that somebody measured once: such numbers are computed, never typed.
MEASURED = re.compile(
    r"\b\d+(\.\d+)?\s?(ms|µs|us|MB|KB|KiB|MiB|x faster|× faster|x smaller|× smaller)\b"
)
# Written in two pieces, so that this file passes its own test.
MACHINE_PATH = re.compile(r"(?<![\w.~])/(?:work|tmp|root|home)" + r"/\w")


each_module = pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
each_page = pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)


def _room(module) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else None


def _imported(path):
    """Names of all modules that a file imports, at its top or inside a function."""
    package = ".".join(path.relative_to(ROOT).parent.parts)
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base]).rstrip(".")
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


@each_module
def test_a_room_imports_only_from_rooms_before_it(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    assert own in ROOMS, f"{own} is not a room of the house: add it to the order on purpose"
    before = {*ROOMS[: ROOMS.index(own) + 1], None}
    later = {name for name in _imported(path) if _room(name) not in before}
    assert not later, f"{own} may not import {sorted(later)}"


@each_module
def test_no_tf_keras_attribute(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        uses = (
            isinstance(node, ast.Attribute)
            and node.attr == "keras"
            and isinstance(node.value, ast.Name)
            and node.value.id in {"tf", "tensorflow"}
        )
        assert not uses, f"tf.keras in line {getattr(node, 'lineno', '?')}: import keras instead"
    assert not any(name.startswith("tensorflow.keras") for name in _imported(path))


def _docstring_lines(path):
    """Return the numbers of the lines of all docstrings in a file."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        line
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, documented) and ast.get_docstring(node)
        for line in range(node.body[0].lineno, node.body[0].end_lineno + 1)
    }


@each_module
def test_files_are_short(path):
    lines = len(path.read_text(encoding="utf-8").splitlines()) - len(_docstring_lines(path))
    assert lines <= 250, f"{lines} lines without docstrings: a file does one thing"


def test_the_library_is_small():
    """Blank lines, comments and docstrings are not counted."""
    lines = 0
    for path in MODULES:
        left_out = _docstring_lines(path)
        code = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        lines += sum(n not in left_out and not re.match(r"\s*(#|$)", line) for n, line in code)
    assert lines <= MOST_LINES
    assert len(MODULES) <= MOST_FILES


def test_the_picture_of_the_rooms_is_of_today():
    stored = draw_house.PICTURE.read_text(encoding="utf-8")
    assert stored == draw_house.draw(), "run tools/draw_house.py"


def test_import_is_quick_and_light():
    code = (
        "import sys, time; start = time.perf_counter(); import recsys_lib; "
        "seconds = time.perf_counter() - start; import json; "
        "print(json.dumps([seconds, 'tensorflow' in sys.modules]))"
    )
    runs = [json.loads(subprocess.check_output([sys.executable, "-c", code])) for _ in range(3)]
    assert min(seconds for seconds, _ in runs) < 0.5
    assert not any(has_tensorflow for _, has_tensorflow in runs)


@pytest.mark.parametrize("module", LIGHT)
def test_rooms_import_without_tensorflow(module):
    code = f"import sys, recsys_lib.{module}; print({{'tensorflow', 'keras'}} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def _texts():
    folders = ("recsys_lib", "tests", "tools", "benchmarks", "book", "notebooks", "exercises")
    folders += (".github", ".ci")
    inside = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    files = [path for path in [*ROOT.iterdir(), *inside] if path.is_file()]
    return [
        path
        for path in files
        if (path.suffix in TEXT_SUFFIXES or path.name in {"Makefile", "run"})
        and ".ipynb_checkpoints" not in path.parts
    ]


def test_no_machine_paths():
    found = [
        f"{path.relative_to(ROOT)}: {match.group(0)}"
        for path in _texts()
        for match in MACHINE_PATH.finditer(path.read_text(encoding="utf-8"))
    ]
    assert not found


def test_the_address_and_the_version_stand_in_one_place():
    places = set_address.read().places()
    wrong = [
        f"{path.relative_to(ROOT)}: {found[0]}"
        for path in _texts()
        for pattern, wanted in places.items()
        for found in re.finditer(pattern, path.read_text(encoding="utf-8"))
        if found[0] != wanted
    ]
    assert not wrong, "run tools/set_address.py"
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\n## {version} " in (ROOT / "CHANGELOG.md").read_text("utf-8")


@each_page
def test_pages_type_no_measurements(path):
    found = [match.group(0) for match in MEASURED.finditer(path.read_text(encoding="utf-8"))]
    assert not found, "compute these in a notebook and glue them"


@each_page
def test_links_of_pages_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_every_chapter_and_page_is_in_the_table_of_contents():
    listed = set(re.findall(r"(?:file|root): (\S+)", (ROOT / "_toc.yml").read_text("utf-8")))
    pages = [*(ROOT / "book").rglob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
    written = {str(page.relative_to(ROOT).with_suffix("")) for page in pages}
    assert listed == written


def test_the_example_in_the_readme_runs(capsys):
    """A newcomer copies it literally."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    mine = [block for block in blocks if "from_frame" in block]
    assert len(mine) == 1
    frame = pd.DataFrame(
        {"customer": [n % 30 for n in range(300)], "sku": [n % 41 for n in range(300)]}
    )
    namespace: dict[str, object] = {"frame": frame}
    exec(compile(mine[0], "README.md", "exec"), namespace)
    assert "RankingResult" in capsys.readouterr().out
