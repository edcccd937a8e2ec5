"""The catalogues of messages: up to date, and faithful in everything but the language."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
spec = importlib.util.spec_from_file_location("translations", ROOT / "tools" / "translations.py")
assert spec is not None and spec.loader is not None
tool = importlib.util.module_from_spec(spec)
sys.modules["translations"] = tool
spec.loader.exec_module(tool)

TRANSLATED = [
    (language, page) for language, pages in tool.EDITIONS.items() for page in (*pages, tool.SITE)
]
# What a translation keeps, whatever it does with the words.
KEPT = {
    "role": r"\{[\w:]+\}`[^`]*`",
    "code": r"(?<!\})`[^`]+`",
    "link": r"\]\([^)]*\)",
    "formula": r"\$[^$]+\$",
    "number": r"\d+(?:[.,]\d+)*",
    "place": r"\{\d\}",
}
each_translated = pytest.mark.parametrize(("language", "page"), TRANSLATED)


def kept(text: str) -> dict[str, list[str]]:
    """Return what a text has of each kind; a role is no code, too."""
    found, left = {}, text
    for kind, pattern in KEPT.items():
        found[kind] = sorted(re.findall(pattern, left))
        if kind in ("role", "code"):
            left = re.sub(pattern, "", left)
    return found


@each_translated
def test_a_translated_page_is_translated_in_full(language: str, page: str) -> None:
    found = tool.read(tool.catalogue(language, page))
    assert len(found) > 10, "no catalogue: make translations"
    open_ones = [message for message, entry in found.items() if entry.fuzzy or not entry.text]
    assert not open_ones, "translate them, and take away the word fuzzy"


@each_translated
def test_a_translation_keeps_what_is_no_word(language: str, page: str) -> None:
    for message, entry in tool.read(tool.catalogue(language, page)).items():
        assert kept(entry.text) == kept(message), message


@pytest.mark.parametrize("language", tool.EDITIONS)
def test_translated_prose_is_in_its_language(language: str) -> None:
    for page in tool.EDITIONS[language]:
        found = tool.read(tool.catalogue(language, page))
        same = [m for m, entry in found.items() if entry.text == m and len(m.split()) > 3]
        assert not [message for message in same if not message.startswith("{")]
        for message, entry in found.items():
            if len(message) > 60 and not message.startswith("{"):
                assert re.search(r"[\u4e00-\u9fff]", entry.text), message


@pytest.mark.slow
def test_the_catalogues_are_of_today() -> None:
    """Sphinx reads all pages for it, in a process of its own: it looks through all objects."""
    command = [sys.executable, str(ROOT / "tools" / "translations.py"), "check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("before", "after", "text", "expected"),
    [
        ("9 to 39x", "3 to 40x", "9 到 39 倍", "3 到 40 倍"),
        ("3 models, 3 runs", "3 models, 4 runs", "3 个模型，3 次", "3 个模型，4 次"),
        ("2 of 1,000 users", "5 of 2,000 users", "1,000 个用户中的 2 个", "2,000 个用户中的 5 个"),
        ("3.9x", "3.9 to 4.0x", "3.9 倍", None),
        ("8 bits", "8 codes", "8 位", None),
        ("8 bits", "4 bits", "位", None),
    ],
)
def test_a_translation_takes_new_numbers_and_no_new_words(
    before: str, after: str, text: str, expected: str | None
) -> None:
    assert tool.renumber(before, after, text) == expected


def test_what_changed_waits_for_a_translator() -> None:
    known = {
        "Rank all items.": tool.Entry("给全部物品排序。"),
        "On 5 sets": tool.Entry("在 5 个数据集上"),
        "The interval of the mean over all users.": tool.Entry("对全部用户的均值的区间。"),
    }
    wanted = ["Rank all items.", "On 6 sets", "`make`", "The interval of the mean over people."]
    merged = tool.merge([*wanted, "Quite another sentence."], known, translated=True)
    assert list(merged) == [*wanted, "Quite another sentence."]
    assert merged["Rank all items."] == tool.Entry("给全部物品排序。")
    assert merged["On 6 sets"] == tool.Entry("在 6 个数据集上")
    assert merged["`make`"] == tool.Entry("`make`")
    assert merged["The interval of the mean over people."].fuzzy
    assert merged["Quite another sentence."] == tool.Entry()
    assert set(tool.merge(wanted, {}, translated=False).values()) == {tool.Entry()}


def test_a_catalogue_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = {
        'A "quoted" word': tool.Entry("带“引号”的词"),
        "0. Title\twith a tab": tool.Entry("0\\. 标题", True),
        " times": tool.Entry(),
    }
    path = tmp_path / "zh" / "page.po"
    tool.write(path, written, "page")
    assert tool.read(path) == written
    assert path.read_text("utf-8").count("#, fuzzy") == 1


def test_new_numbers_of_the_front_reach_its_translations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "LOCALE", tmp_path)
    path = tool.catalogue("zh_CN", "book/index")
    known = {"1.0x": tool.Entry("1.0 倍"), "Plan": tool.Entry("安排"), "2 s": tool.Entry()}
    tool.write(path, known, "front")
    pairs = [("1.0x", "1.3x"), ("Plan", "Plan"), ("2 s", "3 s"), ("old", "new")]
    tool.follow_numbers("book/index", pairs)
    assert tool.read(path) == {
        "1.3x": tool.Entry("1.3 倍"),
        "Plan": tool.Entry("安排"),
        "3 s": tool.Entry(),
    }
    assert list(tool.read(path)) == ["1.3x", "Plan", "3 s"]
