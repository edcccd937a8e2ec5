"""What the pages of the book have beyond Sphinx and its theme; an extension named in _config.yml.

Chapters that are named by their number become links. A folded cell says what is behind it. Each
page describes itself to search engines and to those who share it. The text of all pages comes
with the book, so that the search shows it from disk, where a browser may not fetch files.
"""

from __future__ import annotations

import html
import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup
from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode, depart_HideCellInput
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.locale import get_translation
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

# "chapter 14", "Chapters 6 to 13", "chapters 03, 08 and 16"; not "chapter 3 of" another book.
NAMED = re.compile(r"\b[Cc]hapters?\s\d+(?:(?:, and|,| and| to| or)\s\d+)*\b(?! of\b)|第 \d+ 章")
NO_LINKS = (nodes.reference, nodes.title, nodes.literal, nodes.literal_block, nodes.math)
# A role that docutils writes and that WAI-ARIA no longer has, and what it was.
OLD_ROLE, NEW_ROLE = ' role="doc-biblioentry"', ' role="listitem"'
# The parameters of a signature with a line for each: a list, and none of definitions.
SIGNATURE = re.compile(r"<dl>\s*(<dd><em class=\"sig-param\">.*?</dd>)\s*</dl>", re.DOTALL)
PICTURE = "_images/compression-front.png"
WHAT = {"all": "code and output", "output": "the output"}  # is behind a folded cell
SNIPPET = 300  # characters of a section that a hit in its title shows

logger = logging.getLogger(__name__)
say = get_translation("site")  # in the language of the book that is built


class ChapterLinks(SphinxTransform):
    """Make a link of each chapter that the text names by its number."""

    default_priority = 500

    def apply(self, **kwargs: Any) -> None:
        """Replace the texts."""
        found = (re.fullmatch(r"notebooks/(\d+)-.*", name) for name in self.env.found_docs)
        chapters = {int(match[1]): match[0] for match in found if match}
        for text in list(self.document.findall(nodes.Text)):
            if NAMED.search(text) and not _inside(text, (*NO_LINKS, addnodes.pending_xref)):
                text.parent.replace(text, list(self._pieces(str(text), chapters)))

    def _pieces(self, text: str, chapters: dict[int, str]) -> Any:
        end = 0
        for named in NAMED.finditer(text):
            numbers = list(re.finditer(r"\d+", named[0]))
            for number in numbers:
                # One chapter: the word is part of the link.
                start = named.start() + (0 if len(numbers) == 1 else number.start())
                stop = named.end() if len(numbers) == 1 else named.start() + number.end()
                target = chapters.get(int(number[0]))
                if target is None:
                    logger.warning("there is no chapter %s", number[0], location=self.env.docname)
                if target in (None, self.env.docname):
                    continue
                yield nodes.Text(text[end:start])
                link = nodes.inline("", text[start:stop], classes=["doc"])
                yield addnodes.pending_xref(
                    "",
                    link,
                    refdoc=self.env.docname,
                    refdomain="std",
                    reftype="doc",
                    reftarget=f"/{target}",
                    refexplicit=True,
                    refwarn=True,
                )
                end = stop
        yield nodes.Text(text[end:])


def _inside(node: nodes.Node, kinds: tuple[type, ...]) -> bool:
    while node.parent is not None:
        node = node.parent
        if isinstance(node, kinds):
            return True
    return False


class FoldedCells(SphinxPostTransform):
    """Let the line above a folded cell say what is behind it."""

    default_priority = 198  # before myst_nb makes the line
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        """Set the texts."""
        for cell in self.document.findall(nodes.container):
            if cell.get("nb_element") != "cell_code" or not cell.get("hide_mode"):
                continue
            source = cell.children[0].astext() if cell.children else ""
            what, number = WHAT.get(cell["hide_mode"], "the code"), ""
            if solution := re.match(r"# Solution (\d+)", source):
                what, number = "solution {0}", solution[1]
            elif "\nsetup(" in source:
                what = "the setup"
            for do in ("Show", "Hide"):
                cell[f"prompt_{do.lower()}"] = str(say(f"{do} {what}")).format(number)


def _visit_folded(self: Any, node: nodes.Element) -> None:
    """Write what myst_nb writes, without the label that hides the line from screen readers."""
    classes = " ".join(node["classes"])
    self.body.append(f'<details class="admonition hide {classes}">\n<summary>\n')
    for state, prompt in (("collapsed", "prompt_show"), ("expanded", "prompt_hide")):
        self.body.append(f'<p class="{state} admonition-title">{html.escape(node[prompt])}</p>\n')
    self.body.append("</summary>\n")


def _set_footer(app: Sphinx, config: Any) -> None:
    config.html_theme_options["extra_footer"] = str(say("Version {0}.")).format(
        version("recsys-lib")
    )


def _complete_page(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Add the head lines of a page and mend its roles."""
    if pagename == "search":
        app.add_js_file("search.js")
        app.add_js_file("search-text.js")
    if doctree is None:
        return
    body = context["body"].replace(OLD_ROLE, NEW_ROLE)
    context["body"] = SIGNATURE.sub(_list_parameters, body)
    first = next((p.astext() for p in doctree.findall(nodes.paragraph)), "")
    title = _title(doctree) or app.config.html_title
    text = " ".join(first.split())
    description = text if len(text) <= 200 else text[:200].rsplit(" ", 1)[0] + " ..."
    lines = {
        'name="description"': description,
        'property="og:title"': title,
        'property="og:description"': description,
        'property="og:type"': "article",
        'property="og:url"': context.get("pageurl") or "",
        'property="og:site_name"': app.config.html_title,
        'property="og:image"': app.config.html_baseurl + PICTURE,
        'property="og:image:alt"': str(
            say("Ranking quality against size for every method of the book")
        ),
        'name="twitter:card"': "summary_large_image",
    }
    context["metatags"] = context.get("metatags", "") + "".join(
        f'\n    <meta {name} content="{html.escape(value)}" />' for name, value in lines.items()
    )


def _list_parameters(found: re.Match[str]) -> str:
    items = found[1].replace("<dd>", "<li>").replace("</dd>", "</li>")
    return f'<ul class="sig-params">{items}</ul>'


def _title(doctree: nodes.document) -> str:
    """Return the first heading of a page."""
    return next((title.astext() for title in doctree.findall(nodes.title)), "")


def _other_pages(app: Sphinx) -> Any:
    if not app.config.editions.get(app.config.language):
        yield "404", {"start": app.config.html_baseurl}, "404.html"


def _write_texts(app: Sphinx, exception: Exception | None) -> None:
    """Write the addresses of all pages, and their text for the search."""
    if exception or app.builder.name != "html":
        return
    assert app.env is not None
    out, texts = Path(app.outdir), {}
    editions: dict[str, list[str]] = app.config.editions
    edition = editions.get(app.config.language)
    for name in sorted(edition or app.env.found_docs):
        page = BeautifulSoup((out / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
        texts[name] = page_text(page)
    text = f"const SEARCH_TEXTS = {json.dumps(texts, ensure_ascii=False)};\n"
    (out / "_static" / "search-text.js").write_text(text, encoding="utf-8")
    if edition:
        return  # the English book lists its pages
    names = [*texts, *(f"{code}/{name}" for code, pages in editions.items() for name in pages)]
    links = "".join(
        f"<url><loc>{app.config.html_baseurl}{name}.html</loc></url>\n" for name in names
    )
    (out / "sitemap.xml").write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{links}</urlset>\n',
        encoding="utf-8",
    )


def page_text(page: BeautifulSoup) -> str:
    """Return a page as the search reads it: all its text, then how each section begins."""
    article = page.select_one("article.bd-article")
    assert article is not None
    for part in article.select(".headerlink, script, style, summary"):
        part.decompose()
    parts = [f"<p>{_escaped(article)}</p>"]
    for section in article.select("section section[id], dt[id]"):
        more = section.find_next_sibling("dd") if section.name == "dt" else None
        text = " ".join(_escaped(part) for part in (section, more) if part)[:SNIPPET]
        parts.append(f'<p id="{section["id"]}">{text}</p>')
    return f'<div role="main">{"".join(parts)}</div>'


def _escaped(part: Any) -> str:
    return html.escape(" ".join(part.get_text(" ").split()), quote=False)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect it all."""
    app.add_transform(ChapterLinks)
    app.add_post_transform(FoldedCells)
    app.add_node(HideCodeCellNode, override=True, html=(_visit_folded, depart_HideCellInput))
    app.connect("config-inited", _set_footer)
    app.connect("html-page-context", _complete_page)
    app.connect("html-collect-pages", _other_pages)
    app.connect("build-finished", _write_texts)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
