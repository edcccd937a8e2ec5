"""Each page as a reader meets it: wide and narrow, light and dark, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "html"
CHECKS = (Path(__file__).parent / "checks.js").read_text(encoding="utf-8")
WCAG = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
# The accessible name of a control begins as the text that is seen; axe calls this experimental.
AXE = {
    "runOnly": WCAG,
    "rules": {"label-content-name-mismatch": {"enabled": True}},
    "resultTypes": ["violations"],
}
# A page that only sends its reader on.
PAGES = sorted(p for p in SITE.rglob("*.html") if p != SITE / "index.html")
LOOKS = [(width, theme) for width in (1280, 360) for theme in ("light", "dark")]


@pytest.fixture(scope="session")
def axe() -> Any:
    from axe_playwright_python.sync_playwright import Axe

    return Axe()


def open_page(browser: Any, address: str, width: int, theme: str) -> tuple[Any, list[str]]:
    """Return an opened page and the list that its console errors and requests are added to."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
    faults: list[str] = []

    def see(request: Any) -> None:
        if not request.url.startswith((SITE.as_uri(), "data:", "blob:")):
            faults.append(f"asks for {request.url}")

    page.on("request", see)
    page.on("console", lambda m: faults.append(f"console: {m.text}") if m.type == "error" else 0)
    page.on("pageerror", lambda error: faults.append(f"console: {error}"))
    page.goto(address)
    page.evaluate("async () => window.MathJax && await MathJax.startup.promise")
    return page, faults


def test_there_is_a_book() -> None:
    assert len(PAGES) > 30, "make book first"


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: f"{look[0]}-{look[1]}")
@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(SITE)))
def test_page(browser: Any, axe: Any, path: Path, look: tuple[int, str]) -> None:
    page, faults = open_page(browser, path.as_uri(), *look)
    try:
        assert page.evaluate("document.documentElement.dataset.theme || 'none'") in (
            look[1],
            "none",
        )
        faults += page.evaluate(CHECKS)
        for violation in axe.run(page, options=AXE).response["violations"]:
            first = violation["nodes"][0]["html"][:200]
            faults.append(f"{violation['id']} ({len(violation['nodes'])}): {first}")
    finally:
        page.close()
    assert not faults, "\n" + "\n".join(faults)


def test_the_search_shows_text_from_disk(browser: Any) -> None:
    address = f"{(SITE / 'search.html').as_uri()}?q=quantization"
    page, faults = open_page(browser, address, 1280, "light")
    page.wait_for_function("() => /found \\d+/.test(document.body.innerText)")
    hits = page.evaluate(
        """() => [...document.querySelectorAll("ul.search > li")].map((hit) => ({
          title: hit.querySelector("a").innerText,
          target: hit.querySelector("a").getAttribute("href"),
          text: hit.querySelector("p.context")?.innerText || "",
          described: hit.innerText,
        }))"""
    )
    page.close()
    assert not faults, faults
    places = [hit["target"].split("/")[0] for hit in hits]
    assert places[0] == "notebooks", "chapters come first"
    assert places == sorted(places, key=lambda place: place != "notebooks")
    assert "quantiz" in hits[0]["text"].lower()
    named = [hit["described"] for hit in hits]
    assert len(set(named)) == len(named), "two hits look the same"
    assert any(hit["title"] == "Glossary: quantization" for hit in hits)
    for hit in hits:
        assert (SITE / hit["target"].split("#")[0]).exists()
        assert hit["text"] or hit["described"] != hit["title"], f"a bare title: {hit}"
