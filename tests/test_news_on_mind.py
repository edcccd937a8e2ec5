"""The cells of chapter 22 that run on MIND, on a sample in its format that was written by hand."""

import ast
import json
from pathlib import Path

CHAPTER = Path(__file__).resolve().parent.parent / "notebooks" / "22-news.ipynb"
NEWS = [f"N{number}" for number in range(1, 13)]
# What each reader clicks, the earliest first; the last click of each lies in the last hours.
READERS = {
    "U1": "N1 N2 N4 N7 N9 N5",
    "U2": "N1 N3 N5 N8 N10 N6",
    "U3": "N2 N1 N4 N9 N11 N6",
    "U4": "N3 N1 N6 N10 N12 N5",
    "U5": "N1 N2 N5 N7 N11 N4",
    "U6": "N3 N2 N8 N12 N10 N4",
}


def test_both_experiments_run_with_and_without_files(tmp_path, monkeypatch, capsys):
    folder, shown = tmp_path / "mind", []
    folder.mkdir()
    lines = [f"{key}\tnews\tlocal\tArticle {key}\t\t\t[]\t[]" for key in NEWS]
    (folder / "news.tsv").write_text("\n".join(lines) + "\n")
    for place, (reader, clicks) in enumerate(READERS.items()):
        for turn, click in enumerate(clicks.split()):
            day, hour = (14, 9 + place % 3) if turn == 5 else (11 + turn % 2, 8 + place)
            others = " ".join(f"{key}-0" for key in NEWS if key != click)
            when = f"11/{day}/2019 {hour}:15:00 AM"
            shown.append(f"{len(shown) + 1}\t{reader}\t{when}\t\t{click}-1 {others}")
    (folder / "behaviors.tsv").write_text("\n".join(shown) + "\n")

    # The chapter's imports and definitions, and the cell that seeks MIND.
    cells = json.loads(CHAPTER.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    nodes = [node for x in sources for node in ast.parse(x.replace("%pip", "pass  #")).body]
    kinds = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef
    kept: list[ast.stmt] = [node for node in nodes if isinstance(node, kinds)]
    names: dict[str, object] = {"__name__": "chapter"}
    exec(compile(ast.Module(kept, []), str(CHAPTER), "exec"), names)
    (cell,) = [source for source in sources if "folder_of_mind = " in source]

    two, by_age = names["mind_case"](folder)
    assert list(two.index) == ["popularity", "iALS", "iALS, tempered"]
    assert list(two.columns) == ["click test", "even test"]
    assert list(by_age.columns) == [0, 6, 12, 24] and "popular lately" in by_age.index
    for table in (two, by_age):
        assert table.notna().all(axis=None) and (table >= 0).all(axis=None)
    assert by_age.to_numpy().max() > 0
    for home, said in ((tmp_path, "even test"), (tmp_path / "empty", "")):
        monkeypatch.setenv("RECSYS_DATA_HOME", str(home))
        exec(cell, names)
        printed = capsys.readouterr().out
        assert said in printed and (said or printed.count("\n") == 1)
