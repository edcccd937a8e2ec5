"""Print the built book as one PDF file: links, bookmarks, page numbers, all figures and formulas.

Usage: make_pdf.py [--site _build/html] [--out _build/FILE.pdf] [--only NAME ...]

All pages become one page in the order of the table of contents, MathJax sets its formulas, and a
headless Chromium prints it. Solutions are unfolded; code that only draws, and checks, stay out.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml
from bs4 import BeautifulSoup, Tag

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DROPPED = (
    ".headerlink, button, script, details.checks, .cell:not(.tag_hide-cell) > details.hide, "
    ".predict, .predict-said"
)
TEXT_WIDTH = 643  # pixels of CSS between the margins of A4
FIT = """() => {
  for (const formula of document.querySelectorAll("mjx-container[display='true']")) {
    const share = formula.parentElement.clientWidth / formula.scrollWidth;
    if (share < 1) formula.style.fontSize = `${95 * share}%`;
  }
}"""
FOOTER = (
    '<div style="width: 100%; text-align: center; font: 8pt sans-serif; color: #444">'
    '<span class="pageNumber"></span></div>'
)


def pages_in_order() -> list[tuple[str, list[str]]]:
    """Return each part's caption with its pages, from the table of contents."""
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    parts = [("", [contents["root"]])]
    for part in contents["parts"]:
        parts.append((part["caption"], [chapter["file"] for chapter in part["chapters"]]))
    return parts


def anchor(page: str, fragment: str = "") -> str:
    """Return the anchor in the one page of what was a page, or a place in it."""
    name = page.replace("/", "-")
    return f"{name}--{fragment}" if fragment else name


def chapter(site: Path, page: str, known: set[str]) -> Tag:
    """Return the text of a page, with anchors and addresses that hold in the one page."""
    file = site / f"{page}.html"
    soup = BeautifulSoup(file.read_text(encoding="utf-8"), "html.parser")
    article = soup.select_one("article.bd-article")
    assert article is not None, page
    for part in article.select(DROPPED):
        part.decompose()
    for details in article.find_all("details"):
        details["open"] = ""
    for tag in article.select("[id]"):
        tag["id"] = anchor(page, tag["id"])
    for link in article.select("a[href]"):
        parts = urlsplit(link["href"])
        if parts.scheme or parts.netloc:
            continue
        target = page
        if parts.path:
            target = (file.parent / unquote(parts.path)).resolve().relative_to(site).as_posix()
            target = target.removesuffix(".html")
        if target in known:
            link["href"] = "#" + anchor(target, unquote(parts.fragment))
        else:  # a file to download, the index of names
            link.unwrap()
    for image in article.select("img[src]"):
        if not urlsplit(image["src"]).scheme:
            image["src"] = (file.parent / unquote(image["src"])).resolve().as_uri()
        image.attrs.pop("loading", None)
    for level in (5, 4, 3, 2, 1):
        for heading in article.find_all(f"h{level}"):
            heading.name = f"h{level + 1}"
    article.name = "section"
    article["class"] = ["chapter"]
    article["id"] = anchor(page)
    return article


def whole_book(site: Path, only: list[str]) -> str:
    """Return the one page that holds all of the book's."""
    first = site / "book" / "index.html"
    soup = BeautifulSoup(first.read_text(encoding="utf-8"), "html.parser")
    linked = [tag["href"].split("?")[0] for tag in soup.select('link[rel="stylesheet"][href]')]
    styles = [
        f'<link rel="stylesheet" href="{(first.parent / name).resolve().as_uri()}">'
        for name in linked
    ]
    parts = pages_in_order()
    if only:
        parts = [(name, [p for p in pages if any(o in p for o in only)]) for name, pages in parts]
    known = {page for _, pages in parts for page in pages}
    style = (ROOT / "tools" / "pdf.css").read_text(encoding="utf-8")
    book = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["title"]
    body, contents = [], []
    for caption, pages in parts:
        if caption and pages:
            body.append(f'<h1 class="part">{caption}</h1>')
            contents.append(f"<p><b>{caption}</b></p>")
        for page in pages:
            text = chapter(site, page, known)
            title = text.find("h2")
            assert title is not None, page
            contents.append(f'<p><a href="#{anchor(page)}">{title.get_text().strip()}</a></p>')
            body.append(str(text))
    mathjax = (site / "_static" / "mathjax" / "tex-chtml.js").as_uri()
    return (
        '<!DOCTYPE html>\n<html lang="en" data-theme="light" data-mode="light"><head>'
        f'<meta charset="utf-8"><title>{book}</title>\n{"".join(styles)}\n<style>{style}</style>\n'
        '<script>window.MathJax = {options: {processHtmlClass: "math", ignoreHtmlClass: '
        f'"bd-article", enableMenu: false}}}};</script>\n<script defer src="{mathjax}"></script>\n'
        f'</head><body><main class="bd-article">\n<div class="title"><h1>{book}</h1>'
        f"<p>Version {version('recsys-lib')}</p></div>\n"
        f'<div class="chapter contents"><h1>Contents</h1>{"".join(contents)}</div>\n'
        f"{''.join(body)}\n</main></body></html>\n"
    )


def print_pdf(page_file: Path, out: Path) -> dict[str, int]:
    """Print a page; return how many figures and formulas are on it."""
    from playwright.sync_api import sync_playwright

    browser_path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser_path is None:
        sys.exit(f"no browser: install one of {', '.join(BROWSERS)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path)
        page = browser.new_page(viewport={"width": TEXT_WIDTH, "height": 900})
        page.set_default_timeout(900_000)
        page.goto(page_file.as_uri())
        page.evaluate("async () => await MathJax.startup.promise")
        page.emulate_media(media="print")
        page.evaluate(FIT)
        found = page.evaluate(
            """() => ({
              figures: document.querySelectorAll("img").length,
              missing: [...document.images].filter((i) => !i.complete || !i.naturalWidth).length,
              formulas: document.querySelectorAll("mjx-container").length,
              unset: document.querySelectorAll(".math:not(:has(mjx-container))").length
                + document.querySelectorAll("mjx-merror").length,
              dead: [...document.querySelectorAll("a[href^='#']")].filter(
                (a) => !document.getElementById(decodeURIComponent(a.hash.slice(1)))).length,
            })"""
        )
        page.pdf(
            path=out,
            format="A4",
            margin={"top": "18mm", "bottom": "20mm", "left": "20mm", "right": "20mm"},
            print_background=True,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOTER,
            outline=True,
            tagged=True,
        )
        browser.close()
    return found


def main() -> int:
    """Make the PDF; fail if a figure, a formula or a link is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--site", type=Path, default=ROOT / "_build" / "html")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "_build" / "recommenders-in-real-time.pdf"
    )
    parser.add_argument("--only", nargs="*", default=[], help="parts of page names")
    options = parser.parse_args()
    page_file = options.out.with_suffix(".html")
    page_file.write_text(whole_book(options.site.resolve(), options.only), encoding="utf-8")
    found = print_pdf(page_file.resolve(), options.out)
    page_file.unlink()
    size = options.out.stat().st_size / 2**20
    counts = ", ".join(f"{number} {name}" for name, number in found.items())
    print(f"{options.out}: {size:.1f} MiB; {counts}")
    return int(any(found[name] for name in ("missing", "unset", "dead")))


if __name__ == "__main__":
    raise SystemExit(main())
