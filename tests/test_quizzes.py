"""The quizzes: one for each chapter, and choices that teach."""

import re
import tomllib
from pathlib import Path

import pytest
import quiz

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
# A figure with a unit that somebody measured; it would be wrong after the next run.
MEASURED = re.compile(r"\b\d+(\.\d+)?\s?(ms|µs|us|MB|KB|KiB|MiB)\b")


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_has_a_quiz(chapter):
    path = quiz.quiz_of(f"notebooks/{chapter}")
    assert path, f"no file for {chapter} in book/quizzes"
    entries = tomllib.loads(path.read_text(encoding="utf-8"))["question"]
    assert all(set(entry) == {"ask", "right", "wrong"} for entry in entries)
    assert 3 <= len(entries) <= 5
    for question in quiz.read_quiz(path):
        assert question["ask"].endswith(("?", "."))
        texts, verdicts, reasons = zip(*question["choices"], strict=True)
        assert sum(verdicts) == 1 and len(verdicts) >= 3
        assert len(set(texts)) == len(texts) and len(set(reasons)) == len(reasons)
        assert all(len(reason) >= 20 for reason in reasons), "an explanation teaches"
        assert not MEASURED.search(" ".join([question["ask"], *texts, *reasons]))


def test_nothing_but_the_content_gives_the_right_answer_away():
    questions = [q for path in quiz.QUIZZES.glob("*.toml") for q in quiz.read_quiz(path)]
    rights = [next(c for c in q["choices"] if c[1]) for q in questions]
    longest = sum(
        right[0] == max((c[0] for c in q["choices"]), key=len)
        for q, right in zip(questions, rights, strict=True)
    )
    first = sum(q["choices"][0][1] for q in questions)
    assert longest < len(questions) / 2 and first < len(questions) / 2
    assert len(list(quiz.QUIZZES.glob("*.toml"))) == len(CHAPTERS), "a quiz without a chapter"
