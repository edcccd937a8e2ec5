"""Make a set of slides from each chapter of the built book.

Usage: make_slides.py [--site _build/html] [--out _build/slides] [part of a file name ...]

What a slide shows is chosen by the kind of cell: title and question, the drawing, the toy, the cell
with the method, figures, takeaways, what fails, the summary. Checks, solutions and code that only
draws stay out. The folder needs no network: reveal.js and MathJax are copied into it.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

from bs4 import BeautifulSoup, Tag

ROOT = Path(__file__).resolve().parent.parent
MOST_LINES, MOST_WORDS = 40, 130  # of code and of text that fit on a slide
PARTS = ("reveal.css", "reveal.js", "reset.css", "theme/white.css")
END = ("summary", "exercises", "further-reading", "quiz")
PAGE = """\
<!DOCTYPE html>
<html lang="en" data-theme="light">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: slides</title>
<link rel="stylesheet" href="static/reset.css">
<link rel="stylesheet" href="static/reveal.css">
<link rel="stylesheet" href="static/white.css">
<link rel="stylesheet" href="static/pygments.css">
<link rel="stylesheet" href="static/slides.css">
</head>
<body>
<div class="reveal"><div class="slides">
{slides}
</div></div>
<script src="static/reveal.js"></script>
<script src="static/notes.js"></script>
<script src="static/slides.js"></script>
{math}</body>
</html>
"""
LIST = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Slides</title>
<style>
body {{ font: 1.1rem/1.6 system-ui, sans-serif; max-width: 42rem; margin: 3rem auto; }}
body {{ padding: 0 1rem; }}
</style>
</head>
<body>
<h1>Slides of the chapters</h1>
<ul>
{rows}</ul>
</body>
</html>
"""
MATH = """\
<script>window.MathJax = {options: {processHtmlClass: "math", ignoreHtmlClass: "reveal"}};</script>
<script defer src="static/mathjax/tex-chtml.js"></script>
"""


@dataclass(frozen=True)
class Slide:
    """A heading, what stands below it, and what the speaker may say."""

    heading: str
    body: str
    notes: str = ""

    def html(self) -> str:
        """Return it as reveal.js reads it."""
        notes = f'<aside class="notes">{escape(self.notes)}</aside>' if self.notes else ""
        return f"<section>\n{self.heading}\n{self.body}\n{notes}</section>"


def slides_of(article: Tag) -> list[Slide]:
    """Return the slides of a chapter, given the article of its page."""
    chapter = article.find("section")
    assert isinstance(chapter, Tag)
    for question in chapter.select(".predict, .predict-said"):
        question.decompose()
    for answer in chapter.select(".predict-result"):
        answer.unwrap()
    slides = [*_opening(chapter)]
    sections = [s for s in chapter.find_all("section") if s["id"] not in END]
    code = _chosen_code(sections)
    for number, section in enumerate(sections):
        notes = " ".join(p.get_text(" ") for p in section.find_all("p", recursive=False))[:900]
        heading = f"<h2>{_inner(section.find(re.compile('h[23]')))}</h2>"
        if section["id"] == "when-this-fails":
            slides += _failures(section, heading, notes)
            continue
        if number == 0:
            slides += _idea(section, heading, notes)
        for cell in section.find_all("div", class_="cell", recursive=False):
            for part in _shown(cell, cell in code):
                slides.append(Slide(heading, part, notes))
    summary = chapter.find("section", id="summary")
    if isinstance(summary, Tag) and (points := summary.find("ul")):
        slides.append(Slide("<h2>Summary</h2>", _html(points)))
    return slides


def _opening(chapter: Tag) -> Iterator[Slide]:
    paragraphs = chapter.find_all("p", recursive=False)
    question = next(p for p in paragraphs if p.find("em") and not p.find("strong"))
    said = f'<p class="question">{_inner(question)}</p>\n<p>{_inner(paragraphs[0])}</p>'
    yield Slide(f"<h1>{_inner(chapter.find('h1'))}</h1>", said)
    if goals := chapter.find("ul", recursive=False):
        yield Slide("<h2>After this chapter you can</h2>", _html(goals))
    for figure in chapter.select(":scope > .cell figure"):
        yield Slide("<h2>In, through, out</h2>", _html(figure))


def _idea(section: Tag, heading: str, notes: str) -> Iterator[Slide]:
    parts = []
    for part in section.find_all(recursive=False):
        if part.name in ("div", "section") and "math" not in part.get("class", ()):
            break
        if part.name in ("p", "ul", "ol", "div", "table"):
            parts.append(part)
    body, words = "", 0
    for part in parts:
        words += len(part.get_text(" ").split())
        if words > MOST_WORDS and body:
            break
        body += _html(part)
    if body:
        yield Slide(heading, body, notes)


def _chosen_code(sections: list[Tag]) -> list[Tag]:
    """Return the cells of the toy, of the method and of the library, where they fit."""
    cells = []
    for section in sections:
        for cell in section.find_all("div", class_="cell", recursive=False):
            source = cell.select_one(":scope > .cell_input pre")
            if source and len(source.get_text().strip().splitlines()) <= MOST_LINES:
                cells.append((section, cell, source.get_text()))
    toy = [cell for section, cell, _ in cells if section is sections[0]][:1]
    defines = re.compile(r"^(def|class) ", re.MULTILINE)
    method = [cell for _, cell, text in cells if defines.search(text)][:1]
    library = [c for s, c, _ in cells if "library" in s.find(re.compile("h[23]")).get_text()][:1]
    return [*toy, *method, *library]


def _shown(cell: Tag, with_code: bool) -> Iterator[str]:
    if "tag_hide-cell" in cell["class"]:
        return
    if with_code and (source := cell.select_one(":scope > .cell_input .highlight")):
        printed = cell.select_one(".cell_output .output.stream .highlight")
        short = printed and len(printed.get_text().splitlines()) <= 6
        yield _html(source) + (_html(printed) if printed and short else "")
    for figure in cell.select(".cell_output figure"):
        yield _html(figure)
    for quote in cell.select(".cell_output blockquote"):
        yield _html(quote)


def _failures(section: Tag, heading: str, notes: str) -> Iterator[Slide]:
    starts = [p.find() for p in section.find_all("p", recursive=False)]
    named = [s for s in starts if isinstance(s, Tag) and s.name == "strong"]
    named += section.select("section > h3")
    if named:
        points = "".join(f"<li>{_inner(name)}</li>" for name in named)
        yield Slide(heading, f"<ul>{points}</ul>", notes)
    for figure in section.select(".cell_output figure"):
        yield Slide(heading, _html(figure), notes)


def _clean(tag: Tag) -> Tag:
    copy = BeautifulSoup(str(tag), "html.parser")
    for part in copy.select(".headerlink, button, .caption-number"):
        part.decompose()
    for link in copy.find_all("a"):
        link.unwrap()
    for part in copy.select("[id]"):
        del part["id"]
    for image in copy.find_all("img"):
        image["src"] = "images/" + Path(image["src"]).name
        image.attrs = {name: image[name] for name in ("src", "alt") if image.get(name)}
    return copy


def _html(tag: Tag) -> str:
    return str(_clean(tag))


def _inner(tag: Tag | None) -> str:
    assert tag is not None
    found = _clean(tag).find()
    assert isinstance(found, Tag)
    return found.decode_contents()


def copy_parts(site: Path, out: Path) -> None:
    """Copy reveal.js, MathJax and the colours of code."""
    spec = importlib.util.find_spec("sphinx_revealjs")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("sphinx-revealjs, which brings reveal.js, is not installed: make setup")
    reveal = Path(spec.submodule_search_locations[0]) / "_static" / "revealjs"
    static = out / "static"
    static.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        text = (reveal / "dist" / part).read_text(encoding="utf-8")
        text = re.sub(r"@import url\([^)]*\);?", "", text)  # fonts that are not used
        text = re.sub(r"\s*//# sourceMappingURL=\S+", "", text)
        (static / Path(part).name).write_text(text, encoding="utf-8")
    shutil.copy(reveal / "plugin" / "notes" / "notes.js", static)
    shutil.copy(reveal / "LICENSE", static / "LICENSE-reveal.js")
    shutil.copy(site / "_static" / "pygments.css", static)
    for name in ("slides.css", "slides.js"):
        shutil.copy(ROOT / "tools" / name, static)
    mathjax = site / "_static" / "mathjax"
    (static / "mathjax").mkdir(exist_ok=True)
    shutil.copy(mathjax / "tex-chtml.js", static / "mathjax")
    fonts = Path("output") / "chtml" / "fonts"
    shutil.copytree(mathjax / fonts, static / "mathjax" / fonts, dirs_exist_ok=True)
    (out / "images").mkdir(exist_ok=True)


def make(page: Path, site: Path, out: Path) -> tuple[str, str, int]:
    """Write the slides of one page; return file name, title and number of slides."""
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    article = soup.select_one("article.bd-article")
    assert article is not None
    slides = slides_of(article)
    title = BeautifulSoup(slides[0].heading, "html.parser").get_text()
    assert soup.title is not None
    book = f'\n<p class="where">{escape(soup.title.get_text().split(" — ")[-1].strip())}</p>'
    slides[0] = replace(slides[0], body=slides[0].body + book)
    body = "\n".join(slide.html() for slide in slides)
    for name in sorted(set(re.findall(r'src="images/([^"]+)"', body))):
        shutil.copy(site / "_images" / name, out / "images")
    number = re.match(r"\d+", page.stem)
    name = f"{number[0] if number else page.stem}.html"
    math = MATH if re.search(r'class="math', body) else ""
    text = PAGE.format(title=escape(title), slides=body, math=math)
    (out / name).write_text(text, encoding="utf-8")
    return name, title, len(slides)


def main() -> int:
    """Make the slides of the chosen chapters, and a page that lists them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--site", type=Path, default=ROOT / "_build" / "html")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "slides")
    parser.add_argument("names", nargs="*", help="parts of file names; none: all chapters")
    options = parser.parse_args()
    pages = [
        page
        for page in sorted((options.site / "notebooks").glob("*.html"))
        if not options.names or any(name in page.stem for name in options.names)
    ]
    if not pages:
        print("no built chapter: make book", file=sys.stderr)
        return 1
    copy_parts(options.site, options.out)
    made = [make(page, options.site, options.out) for page in pages]
    rows = "".join(
        f'<li><a href="{name}">{escape(title)}</a> ({count} slides)</li>\n'
        for name, title, count in made
    )
    (options.out / "index.html").write_text(LIST.format(rows=rows), encoding="utf-8")
    print(f"{len(made)} sets, {sum(count for *_, count in made)} slides in {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
