"""Guess, then see: every chapter asks, hides its result and opens it. The front to look through.

Pictures and formulas are not loaded: they are looked at elsewhere.
"""

import json
import re
from pathlib import Path

import pytest

SITE = Path(__file__).resolve().parents[2] / "_build" / "html"
CHAPTERS = sorted((SITE / "notebooks").glob("*.html"))


@pytest.fixture
def page(open_page):
    phone = {"width": 360, "height": 800}
    return open_page("notebooks/00-in-ten-minutes.html", skip=r"mathjax|\.png$", viewport=phone)


@pytest.mark.parametrize("part", range(3))
def test_every_chapter_asks_and_answers(page, part):
    """From the keyboard: guess, see, and find it so again; skip, and be asked no more."""
    assert len(CHAPTERS) > 25
    for chapter in CHAPTERS[part::3]:
        page.goto(chapter.as_uri(), wait_until="domcontentloaded")
        form, said, result = (page.locator(f".predict{end}") for end in ("", "-said", "-result"))
        assert form.is_visible() and not said.is_visible(), chapter.stem
        assert result.get_attribute("hidden") is not None
        facts = json.loads(form.get_attribute("data-facts") or "")
        form.locator("input").first.focus()
        page.keyboard.press("Space" if "values" in facts else "ArrowRight")
        page.keyboard.press("Enter")
        assert said.is_visible() and not form.is_visible(), chapter.stem
        assert result.is_visible()
        answer = facts["values"][facts["answer"]] if "values" in facts else facts["answer"]
        text = said.inner_text()
        told = re.findall(r": (-?\d[\d,]*(?:\.\d+)?)", text)
        away = min(abs(float(number.replace(",", "")) - answer) for number in told)
        assert away <= 0.501 / 10 ** facts["digits"], (chapter.stem, text)
        assert "measured" in text.lower() and "your guess" in text.lower()
        width = page.evaluate("document.scrollingElement.scrollWidth")
        assert width <= 360, (chapter.stem, width)


def test_a_guess_is_kept_and_skipping_too(page):
    form, said = page.locator(".predict"), page.locator(".predict-said")
    page.goto(CHAPTERS[2].as_uri(), wait_until="domcontentloaded")
    form.locator("button[type=submit]").click()
    page.reload(wait_until="domcontentloaded")
    assert "You guessed" in said.inner_text()
    said.locator("button").click()
    assert form.is_visible()
    form.locator(".predict-never").click()
    page.goto(CHAPTERS[4].as_uri(), wait_until="domcontentloaded")
    assert said.is_visible() and not form.is_visible()
    page.evaluate("localStorage.clear()")


def test_without_scripts_everything_is_there(open_page):
    page = open_page(CHAPTERS[2], java_script_enabled=False)
    assert page.locator(".predict-result").is_visible()
    assert not page.locator(".predict").is_visible()


def test_the_front_is_looked_through(page):
    page.goto((SITE / "book" / "results.html").as_uri(), wait_until="domcontentloaded")
    marks, said = page.locator(".front-chart path"), page.locator(".front-said")
    every = marks.count()
    page.locator("input[name=technique]").first.uncheck()
    assert 0 < marks.count() < every
    marks.first.focus()
    first = said.inner_text()
    assert re.search(r"times smaller, NDCG@10 .\d+\.\d\d\s%", first)
    page.keyboard.press("ArrowRight")
    assert said.inner_text() != first
    page.select_option("#front-set", index=1)
    assert marks.count() > 20
    page.locator("input[name=account]").first.uncheck()
    assert all("items only" in mark.get_attribute("aria-label") for mark in marks.all()[:5])
