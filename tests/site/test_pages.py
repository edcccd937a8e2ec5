"""Each page as a reader meets it: wide and narrow, light and dark, without a network."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "html"
CHECKS = (Path(__file__).parent / "checks.js").read_text(encoding="utf-8")
# The index.html above the pages only sends its reader on; what lies in _static is of the theme.
PAGES = [p for p in sorted(SITE.rglob("*.html")) if p.parent.name != "_static"]
PAGES = [p for p in PAGES if p.name != "index.html" or p.parent.name == "book"]
LOOKS = [(width, theme) for width in (1280, 360) for theme in ("light", "dark")]
# Leaves one word of each colour in the code: contrast is slow to find out, word by word.
THIN_OUT = """() => {
  const seen = new Set();
  for (const word of document.querySelectorAll("div.highlight span, dt.sig span")) {
    const place = word.closest(".cell_output") ? "output" : "input";
    const kind = `${place} ${word.className} in ${word.parentElement.className}`;
    if (seen.has(kind) && !word.id) word.replaceWith(...word.childNodes);
    seen.add(kind);
  }
}"""


@pytest.fixture(scope="session")
def axe():
    from axe_playwright_python.sync_playwright import Axe

    return Axe()


def violations(axe, page, theme):
    """Return what axe-core finds against WCAG A and AA; of the dark, only the contrast."""
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
    rules = {"type": "rule", "values": ["color-contrast"]}
    options = {
        "runOnly": rules if theme == "dark" else {"type": "tag", "values": tags},
        # Experimental in axe: the name of a control is the text that is seen.
        "rules": {} if theme == "dark" else {"label-content-name-mismatch": {"enabled": True}},
        "resultTypes": ["violations"],
        "preload": False,  # it would fetch style sheets
    }
    found = axe.run(page, options=options).response["violations"]
    return [f"{v['id']} ({len(v['nodes'])}): {v['nodes'][0]['html'][:200]}" for v in found]


def look(page, width, theme):
    """Show the page in a width and a theme."""
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=theme)
    page.wait_for_function(
        "theme => (document.documentElement.dataset.theme || theme) === theme", arg=theme
    )


def test_there_is_a_book():
    assert len(PAGES) > 30, "make book first"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(SITE)))
def test_page(open_page, axe, path):
    page, faults = open_page(path), []
    page.set_default_timeout(120_000)
    page.evaluate("async () => window.MathJax && await MathJax.startup.promise")
    page.evaluate("document.querySelectorAll('details').forEach((box) => (box.open = true))")
    page.evaluate("document.querySelector('.predict-result')?.removeAttribute('hidden')")
    page.add_style_tag(content="* { transition: none !important }")
    for width, theme in LOOKS:
        look(page, width, theme)
        faults += [f"{width} {theme}: {fault}" for fault in page.evaluate(CHECKS)]
    page.evaluate(THIN_OUT)
    # What is around the text is the same on all pages: the short ones are looked at in all ways.
    is_short = path.parent.name == "book"
    for width, theme in LOOKS if is_short else [(1280, "light"), (360, "dark")]:
        look(page, width, theme)
        faults += [f"{width} {theme}: {fault}" for fault in violations(axe, page, theme)]
    assert not faults, "\n" + "\n".join(faults)


def test_the_search_shows_text_from_disk(open_page):
    page = open_page("search.html", "?q=quantization")
    page.wait_for_function("() => /found \\d+/.test(document.body.innerText)")
    hits = page.evaluate(
        """() => [...document.querySelectorAll("ul.search > li")].map((hit) => ({
          title: hit.querySelector("a").innerText,
          target: hit.querySelector("a").getAttribute("href"),
          text: hit.querySelector("p.context")?.innerText || "",
          described: hit.innerText,
        }))"""
    )
    places = [hit["target"].split("/")[0] for hit in hits]
    assert places[0] == "notebooks", "chapters come first"
    assert places == sorted(places, key=lambda place: place != "notebooks")
    assert "quantiz" in hits[0]["text"].lower()
    named = [hit["described"] for hit in hits]
    assert len(set(named)) == len(named), "two hits look the same"
    assert any(hit["title"].lower() == "glossary: quantization" for hit in hits)
    for hit in hits:
        assert (SITE / hit["target"].split("#")[0]).exists()
        assert hit["text"] or hit["described"] != hit["title"], f"a bare title: {hit}"
