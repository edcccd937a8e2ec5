"""Links, anchors and the head lines of each page, read without a browser."""

import functools
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "html"
PAGES = [p for p in sorted(SITE.rglob("*.html")) if p.parent.name != "_static"]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
BASE, EDITIONS = CONFIG["html"]["baseurl"], CONFIG["sphinx"]["config"]["editions"]
ABOVE = {SITE, *(SITE / language for language in EDITIONS)}
WRITTEN = [p for p in PAGES if p.parent not in ABOVE]  # neither search nor index

NAMED = re.compile(r"[Cc]hapters? 0?(\d+)|第 (\d+) 章")
each_written = pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)


@functools.cache
def _read(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@functools.cache
def _anchors(path):
    if not path.exists():
        return set()
    return {tag["id"] for tag in _read(path).select("[id]")} | {"", "top"}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(SITE)))
def test_links_lead_somewhere_and_anchors_are_unique(path):
    broken = []
    for tag in _read(path).select("[href], [src]"):
        target = tag.get("href") or tag.get("src") or ""
        parts = urlsplit(str(target))
        if parts.scheme or parts.netloc:
            continue
        file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        has_anchor = file.suffix != ".html" or unquote(parts.fragment) in _anchors(file)
        if not (file.exists() and has_anchor):
            broken.append(target)
    assert not broken
    names = [tag["id"] for tag in _read(path).select("[id]")]
    assert len(set(names)) == len(names), sorted({n for n in names if names.count(n) > 1})


@each_written
def test_page_describes_itself(path):
    head = _read(path).head
    address = BASE + path.relative_to(SITE).as_posix()
    meta = {tag.get("name") or tag.get("property"): tag.get("content") for tag in head("meta")}
    assert 20 <= len(meta["description"]) <= 210
    assert meta["og:title"] and meta["og:url"] == address
    assert (SITE / meta["og:image"].removeprefix(BASE)).is_file()
    assert head.select_one('link[rel="canonical"]')["href"] == address
    assert (path.parent / head.select_one('link[rel="icon"]')["href"].split("?")[0]).exists()
    footer = _read(path).select_one(".bd-footer-content").get_text(" ")
    assert re.search(r"Last updated on \d\d \w+ 20\d\d|20\d\d-\d\d-\d\d", footer)
    assert re.search(r"(Version|版本) \d+\.\d+", footer)


def test_the_sitemap_lists_all_pages_and_a_missing_one_leads_back():
    listed = re.findall(r"<loc>(.*?)</loc>", (SITE / "sitemap.xml").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(BASE + p.relative_to(SITE).as_posix() for p in WRITTEN)
    page = _read(SITE / "404.html")
    assert not page.select("script, link, img"), "it is shown at any depth"
    for link in page("a"):
        assert (SITE / link["href"].removeprefix(BASE)).is_file()


@each_written
def test_chapters_are_named_by_their_number(path):
    """A link that says chapter 14 leads to chapter 14, and the side bar has all numbers."""
    for link in _read(path).select("article a.internal"):
        if said := NAMED.fullmatch(link.get_text(" ").strip()):
            assert re.search(rf"(^|/|)0?{said[1] or said[2]}-[^/]+\.html", link["href"]), link
    for link in _read(path).select("nav.bd-docs-nav a.internal"):
        if number := re.search(r"(?:^|/)(\d\d)-[^/]+\.html", link["href"]):
            assert link.get_text().strip().startswith(f"{int(number[1])}. "), link
