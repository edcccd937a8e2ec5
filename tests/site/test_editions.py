"""The pages in a second language: complete, linked both ways, found by their search."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "html"
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
EDITIONS: dict[str, list[str]] = CONFIG["sphinx"]["config"]["editions"]
TWINS = [(language, page) for language, pages in EDITIONS.items() for page in pages]
CJK = re.compile(r"[\u4e00-\u9fff]")

each_twin = pytest.mark.parametrize(("language", "page"), TWINS)


def read(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@each_twin
def test_twins_lead_to_each_other(browser: Any, language: str, page: str) -> None:
    english = SITE / f"{page}.html"
    twin = SITE / language / f"{page}.html"
    tab = browser.new_page(viewport={"width": 360, "height": 800})
    for start, end, name in ((english, twin, "中文"), (twin, english, "English")):
        tab.goto(start.as_uri(), wait_until="domcontentloaded")
        link = tab.locator("a.language-switch")
        assert link.is_visible() and link.inner_text() == name
        link.click(no_wait_after=True)
        tab.wait_for_url(end.as_uri(), wait_until="domcontentloaded")
    assert tab.evaluate("document.documentElement.lang") == "en"
    tab.close()


def test_pages_without_a_twin_have_no_link() -> None:
    twins = {SITE / f"{page}.html" for _, page in TWINS}
    others = [path for path in (SITE / "book").glob("*.html") if path not in twins]
    assert len(others) > 10
    for path in others:
        assert not read(path).select("a.language-switch")


@each_twin
def test_a_page_speaks_its_language(language: str, page: str) -> None:
    """All of it: text, side bar, folds; not code, names and what the code printed."""
    soup = read(SITE / language / f"{page}.html")
    assert soup.html is not None
    assert soup.html["lang"] == language.replace("_", "-")
    article = soup.select_one("article.bd-article")
    assert article is not None
    for part in article.select(".cell_output, .checks li, pre, script, .bibliography"):
        part.decompose()
    wanted = article.select("h1, h2, h3, p, li, dt, dd, summary, figcaption, button, img[alt]")
    texts = [tag.get("alt") or tag.get_text(" ") for tag in wanted]
    assert len(texts) > 20
    english = [text for text in texts if len(re.findall(r"[a-z]{3,}", str(text))) > 6]
    assert not [text for text in english if not CJK.search(str(text))]
    captions = soup.select("nav.bd-docs-nav p.caption")
    assert captions and all(CJK.search(caption.get_text()) for caption in captions)


@each_twin
def test_other_pages_are_those_in_english(language: str, page: str) -> None:
    path = SITE / language / f"{page}.html"
    links = [link["href"].split("#")[0] for link in read(path).select("nav.bd-docs-nav a")]
    targets = {(path.parent / link).resolve() if link != "" else path for link in links}
    inside = {target for target in targets if (SITE / language) in target.parents}
    assert inside <= {SITE / language / f"{name}.html" for name in EDITIONS[language]}
    assert SITE / "notebooks" / "14-all-together.html" in targets - inside


def test_terms_of_the_glossary_are_linked_in_their_language() -> None:
    links = read(SITE / "zh_CN/notebooks/00-in-ten-minutes.html").select("a .glossary-link")
    assert len(links) >= 8
    assert all(CJK.search(link.get_text()) for link in links)


@pytest.mark.parametrize(
    ("asked", "found"),
    [("知识蒸馏", False), ("变换编码", True), ("排序质量", True), ("iALS", True), ("剪枝", True)],
)
def test_the_search_finds_words_of_the_language(browser: Any, asked: str, found: bool) -> None:
    tab, faults = browser.new_page(), []
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.goto(f"{(SITE / 'zh_CN' / 'search.html').as_uri()}?q={asked}")
    tab.wait_for_function(
        "() => !/\\.$/.test(document.querySelector('#search-results h2').innerText)"
    )
    tab.wait_for_timeout(300)
    hits = tab.evaluate(
        """() => [...document.querySelectorAll("ul.search > li")].map((hit) =>
          [hit.querySelector("a").getAttribute("href"), hit.innerText])"""
    )
    tab.close()
    assert not faults
    assert bool(hits) == found
    for target, text in hits:
        assert (SITE / "zh_CN" / target.split("#")[0]).exists()
        assert CJK.search(text)
