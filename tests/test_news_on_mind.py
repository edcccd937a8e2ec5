"""The cells of chapter 22 that run on MIND, on a sample in its format that was written by hand."""

import ast
import json
from pathlib import Path

import pytest

CHAPTER = Path(__file__).resolve().parent.parent / "notebooks" / "22-news.ipynb"
NEWS = {f"N{number}": f"Article {number}" for number in range(1, 13)}
# What each reader clicks, the earliest first; the last click of each lies in the last hours.
READERS = {
    "U1": "N1 N2 N4 N7 N9 N5",
    "U2": "N1 N3 N5 N8 N10 N6",
    "U3": "N2 N1 N4 N9 N11 N6",
    "U4": "N3 N1 N6 N10 N12 N5",
    "U5": "N1 N2 N5 N7 N11 N4",
    "U6": "N3 N2 N8 N12 N10 N4",
}


@pytest.fixture
def mind_home(tmp_path, monkeypatch):
    folder = tmp_path / "mind"
    folder.mkdir()
    lines = [f"{key}\tnews\tlocal\t{title}\t\t\t[]\t[]" for key, title in NEWS.items()]
    (folder / "news.tsv").write_text("\n".join(lines) + "\n")
    shown, number = [], 0
    for place, (reader, clicks) in enumerate(READERS.items()):
        clicks = clicks.split()
        for turn, click in enumerate(clicks):
            number += 1
            last = turn == len(clicks) - 1
            day, hour = (14, 9 + place % 3) if last else (11 + turn % 2, 8 + place)
            others = " ".join(f"{key}-0" for key in NEWS if key != click)
            when = f"11/{day}/2019 {hour}:15:00 AM"
            shown.append(f"{number}\t{reader}\t{when}\t\t{click}-1 {others}")
    (folder / "behaviors.tsv").write_text("\n".join(shown) + "\n")
    monkeypatch.setenv("RECSYS_DATA_HOME", str(tmp_path))
    return folder


@pytest.fixture(scope="module")
def chapter():
    """Return the chapter's imports and definitions, and the source of the cell that seeks MIND."""
    cells = json.loads(CHAPTER.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    kept: list[ast.stmt] = []
    for source in sources:
        for node in ast.parse(source.replace("%pip", "pass  #")).body:
            if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef):
                kept.append(node)
    names: dict[str, object] = {"__name__": "chapter"}
    exec(compile(ast.Module(kept, []), str(CHAPTER), "exec"), names)
    (cell,) = [source for source in sources if "folder_of_mind = " in source]
    return names, cell


def test_both_experiments_run_on_mind(chapter, mind_home):
    names, _ = chapter
    two, by_age = names["mind_case"](mind_home)
    assert list(two.index) == ["popularity", "iALS", "iALS, tempered"]
    assert list(two.columns) == ["click test", "even test"]
    assert list(by_age.columns) == [0, 6, 12, 24]
    assert "popular lately" in by_age.index
    for table in (two, by_age):
        assert table.notna().all(axis=None) and (table >= 0).all(axis=None)
    assert by_age.to_numpy().max() > 0


def test_the_cell_runs_with_and_without_files(chapter, mind_home, tmp_path, capsys, monkeypatch):
    names, cell = chapter
    exec(cell, names)
    assert "even test" in capsys.readouterr().out
    monkeypatch.setenv("RECSYS_DATA_HOME", str(tmp_path / "empty"))
    exec(cell, names)
    assert capsys.readouterr().out.count("\n") == 1
