"""What a reader has to load: a page of its own, and what all pages share."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

SITE = Path(__file__).resolve().parents[2] / "_build" / "html"
SHARED = ("_static", "searchindex.js")
ICONS = """() => ({
  waiting: document.querySelectorAll("i[class*='fa-']").length,
  drawn: document.querySelectorAll("svg.svg-inline--fa path").length,
  unknown: document.querySelectorAll("svg.svg-inline--fa animate").length,
})"""


def loaded(browser: Any, name: str) -> tuple[int, int, Any]:
    """Return the bytes of a page with all its pictures, of what it shares, and its icons."""
    page, files = browser.new_page(), set()
    page.on("request", lambda request: files.add(request.url.split("?")[0].split("#")[0]))
    page.goto((SITE / name).as_uri())
    page.evaluate("async () => window.MathJax && await MathJax.startup.promise")
    files.update(page.evaluate("[...document.images].map((image) => image.src)"))  # all, at once
    page.wait_for_load_state("networkidle")
    icons = page.evaluate(ICONS)
    page.close()
    paths = [Path(unquote(urlsplit(url).path)) for url in files if url.startswith("file:")]
    sizes = {path.relative_to(SITE).as_posix(): path.stat().st_size for path in paths}
    shared = sum(size for path, size in sizes.items() if path.startswith(SHARED))
    return sum(sizes.values()) - shared, shared, icons


@pytest.mark.parametrize(
    ("name", "most"), [("book/index.html", 5e5), ("notebooks/08-quantization.html", 1.5e6)]
)
def test_a_page_is_light(browser: Any, name: str, most: float) -> None:
    own, shared, icons = loaded(browser, name)
    assert own < most
    assert shared < 2e6
    assert icons["drawn"] > 5 and not icons["waiting"] and not icons["unknown"]


def test_no_page_is_heavy() -> None:
    pages = {page.name: page.stat().st_size for page in SITE.rglob("*.html")}
    pictures = max(
        sum(file.stat().st_size for file in set(SITE.glob("_images/*.png")) if file.name in text)
        + page.stat().st_size
        for page in (SITE / "notebooks").glob("*.html")
        if (text := page.read_text(encoding="utf-8"))
    )
    assert pictures < 1.5e6
    assert max(pages.values()) < 1e6
