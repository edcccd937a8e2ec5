"""The book in a second language: some pages of it, in a folder of their own inside the book.

Such an edition is made on top of the finished English book (tools/translations.py build): only the
pages that `editions` in _config.yml lists are read again, with their catalogues from book/locale,
and written. A link to any other page leads to the English one. A page that exists in both has a
link to its twin; in the English book it is hidden until the twin has been built.
"""

from __future__ import annotations

import json
import re
from typing import Any, ClassVar

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import CONFIG_OK
from sphinx.locale import get_translation
from sphinx.search.zh import SearchChinese
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform

NAMES = {"en": "English", "zh_CN": "中文"}
CATALOGUE = "site"  # what the extensions write, and no page has
SOLUTION = re.compile(r"(?<=<summary>)Solution (\d+)(?=</summary>)")
# What scripts write, and extensions where they choose between texts.
SAID = (
    "your guess",
    "your guess: {0}",
    "measured",
    "Your guess is what was measured.",
    "Something else was measured.",
    "a factor of {0}",
    "You guessed {0}. Measured: {1}. Your guess is off by {2}.",
    "Guess first",
    "Guess again",
    "All {0} found, {1} of them at the first try.",
    "Glossary: {0}",
    "Start in ten minutes",
    "Guess first.",
    "One question",
    "Two questions",
    "Three questions",
    "Four questions",
    "Five questions",
    "{0} on this chapter. Each has one right answer.",
    "Right.",
    "Not right.",
    "Show the code",
    "Hide the code",
    "Show the output",
    "Hide the output",
    "Show code and output",
    "Hide code and output",
    "Show the setup",
    "Hide the setup",
    "Show solution {0}",
    "Hide solution {0}",
)
RANGE = re.compile(r"([+-]?[\d.,]+ ?%?) to ([+-]?[\d.,]+ ?%?)")
CJK = re.compile(r"[\u3400-\u9fff]+")


def say(text: str) -> str:
    """Return a text of an extension in the language of the book that is built."""
    return str(get_translation(CATALOGUE)(text))


def pages_of(config: Any) -> list[str]:
    """Return the pages of a second edition, or none when the whole book is built."""
    return list(config.editions.get(config.language, ()))


def _is_box(node: nodes.Node) -> bool:
    return isinstance(node, nodes.container | nodes.block_quote)


def _in_button(node: nodes.Node) -> bool:
    while (node := node.parent) is not None:
        if "sd-btn" in getattr(node, "attributes", {}).get("classes", ()):
            return True
    return False


class LeaveOutputs(SphinxTransform):
    """Computed sentences belong to no catalogue, as they change with every run; captions do."""

    default_priority = 5  # before messages are looked up

    def apply(self, **kwargs: Any) -> None:
        """Mark them."""
        for box in self.document.findall(_is_box):
            if {"cell_output", "takeaway"} & set(box["classes"]):
                for text in box.findall(nodes.TextElement):
                    if not isinstance(text, nodes.Inline):  # Sphinx removes those with the mark
                        text["translatable"] = isinstance(text, nodes.caption)


class SayTheRest(SphinxTransform):
    """Texts that Sphinx does not look up: parts of the book, buttons, the fold of a solution."""

    default_priority = 110  # when the contents stand on the first page

    def apply(self, **kwargs: Any) -> None:
        """Replace them."""
        if not pages_of(self.config):
            return
        for toctree in self.document.findall(addnodes.toctree):
            if toctree["caption"]:
                own = get_translation(self.env.docname)
                toctree["caption"] = str(own(toctree["caption"]))
        for text in list(self.document.findall(nodes.Text)):
            if _in_button(text):
                text.parent.replace(text, nodes.Text(say(text)))
        for raw in list(self.document.findall(nodes.raw)):
            said = SOLUTION.sub(lambda found: say("Solution {0}").format(found[1]), raw.astext())
            if said != raw.astext():
                raw.children = [nodes.Text(said)]


class SayRanges(SphinxPostTransform):
    """Figures that a chapter has computed may be two: "82 to 96"."""

    default_priority = 900  # when they are in their places
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        """Replace the word between them."""
        if not pages_of(self.config):
            return
        for text in list(self.document.findall(nodes.Text)):
            if found := RANGE.fullmatch(text):
                text.parent.replace(text, nodes.Text(say("{0} to {1}").format(*found.groups())))


class Pairs(SearchChinese):
    """Finds Chinese without a dictionary: by all pairs of neighbouring characters."""

    js_splitter_code: ClassVar[str] = r"""
var splitQuery = (query) => query.split(/[^\p{Letter}\p{Number}_]+/gu)
  .flatMap((part) => part.match(/[\u3400-\u9fff]+|[^\u3400-\u9fff]+/g) || [])
  .flatMap((part) => /[\u3400-\u9fff]{2}/.test(part)
    ? [...part].slice(1).map((character, place) => part[place] + character) : [part]);
"""

    def split(self, input: str) -> list[str]:
        """Return the words and the pairs of a text."""
        words = self.latin1_letters.findall(input)
        self.latin_terms.extend(words)
        runs = CJK.findall(input)
        return words + [run[at : at + 2] for run in runs for at in range(max(1, len(run) - 1))]


def _begin(app: Sphinx, config: Any) -> None:
    if pages_of(config):
        app.add_message_catalog(CATALOGUE, config.locale_dirs[0])
        app.add_search_language(Pairs)


def _on_top_of_english(app: Sphinx) -> None:
    here = pages_of(app.config)
    if not here or app.builder.name != "html":
        return
    assert app.env is not None
    app.env.config_status = CONFIG_OK  # all other pages stay as they were read
    app.config.mathjax_path = f"../../_static/{app.config.mathjax_path}"  # one copy is enough
    own = app.builder.get_target_uri

    def target(docname: str, typ: str | None = None) -> str:
        elsewhere = docname in app.env.found_docs and docname not in here
        return ("../" if elsewhere else "") + own(docname, typ)

    app.builder.get_target_uri = target
    app.builder.load_indexer = lambda docnames: None  # there is none, and none is missing


def _read_again(app: Sphinx, *args: Any) -> list[str]:
    return pages_of(app.config)


def _link_the_twin(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Give a page the address of its twin, and say so to search engines."""
    here, up = pages_of(app.config), "../" * pagename.count("/")
    base, own = str(app.config.html_baseurl), app.config.language
    twins = {
        code: f"{up}{code}/{pagename}.html"
        for code, pages in app.config.editions.items()
        if pagename in pages and not here
    }
    if here:
        base = base.removesuffix(f"{own}/")
        if doctree is not None or pagename == "search":
            twins = {"en": f"{up}../{pagename}.html"}
        words = json.dumps({text: say(text) for text in SAID}, ensure_ascii=False)
        app.add_js_file(None, body=f"Object.assign(Documentation.TRANSLATIONS, {words});")
    context["twins"] = [
        {"code": code.replace("_", "-"), "name": NAMES[code], "href": href, "hidden": not here}
        for code, href in twins.items()
    ]
    if twins and doctree is not None:
        places = {"en": f"{base}{pagename}.html"}
        places |= {
            code.replace("_", "-"): f"{base}{code}/{pagename}.html"
            for code, pages in app.config.editions.items()
            if pagename in pages
        }
        context["metatags"] = context.get("metatags", "") + "".join(
            f'\n    <link rel="alternate" hreflang="{code}" href="{place}" />'
            for code, place in places.items()
        )


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect it all."""
    app.add_config_value("editions", {}, "html", [dict])
    app.add_transform(LeaveOutputs)
    app.add_transform(SayTheRest)
    app.add_post_transform(SayRanges)
    app.connect("config-inited", _begin)
    app.connect("builder-inited", _on_top_of_english)
    app.connect("env-get-outdated", _read_again)
    app.connect("html-page-context", _link_the_twin)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
