"""Link a term of the glossary where a page uses it first."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

# Words that mean other things as often, in English and in Chinese.
TOO_COMMON = {"batch", "cross", "fold", "importance", "mask", "negative", "recall", "score"}
TOO_COMMON |= {"批次", "折", "重要性", "掩码", "负例", "召回率", "分数", "轮", "分组", "教师"}
NAME = re.compile(r" \(.*\)$|（.*）$")  # what follows the term itself
NOT_IN = (
    *(nodes.reference, nodes.title, nodes.literal, nodes.literal_block, nodes.math, nodes.raw),
    *(nodes.caption, nodes.term, nodes.table, addnodes.pending_xref, addnodes.desc),
)


class GlossaryLinks(SphinxPostTransform):
    """Runs before references are resolved."""

    default_priority = 5
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        """Replace the first use of each term."""
        page = self.env.docname
        if not page.startswith("notebooks/"):
            return
        terms = {
            NAME.sub("", term).lower(): term
            for (kind, term) in self.env.get_domain("std").objects
            if kind == "term"
        }
        terms = {short: term for short, term in terms.items() if short not in TOO_COMMON}
        if self.config.language != "en":  # the translated glossary keeps the English terms, too
            terms = {short: term for short, term in terms.items() if not short.isascii()}
        if not terms:
            return
        longest_first = sorted(terms, key=len, reverse=True)
        edge = r"\b" if self.config.language == "en" else ""  # Chinese has none between words
        named = re.compile(
            rf"{edge}({'|'.join(map(re.escape, longest_first))}){edge}", re.IGNORECASE
        )
        for text in list(self.document.findall(nodes.Text)):
            if named.search(text) and not _inside(text):
                text.parent.replace(text, list(self._pieces(str(text), named, terms)))

    def _pieces(self, text: str, named: re.Pattern[str], terms: dict[str, str]) -> Any:
        end = 0
        for found in named.finditer(text):
            term = terms.pop(found[0].lower(), None)
            if term is None:
                continue
            yield nodes.Text(text[end : found.start()])
            link = nodes.inline("", found[0], classes=["glossary-link"])
            target = {"refdomain": "std", "reftype": "term", "reftarget": term}
            yield addnodes.pending_xref(
                "", link, refdoc=self.env.docname, refexplicit=True, refwarn=True, **target
            )
            end = found.end()
        yield nodes.Text(text[end:])


def _inside(node: nodes.Node) -> bool:
    while node.parent is not None:
        node = node.parent
        classes = getattr(node, "attributes", {}).get("classes", ())
        if isinstance(node, NOT_IN) or {"cell_output", "quiz"} & set(classes):
            return True  # the choices of a quiz are buttons
    return False


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the transform."""
    app.add_post_transform(GlossaryLinks)
    # Sphinx forgets the terms in its search index where their page is not built anew.
    app.connect("env-get-outdated", lambda *of_pages: ["book/glossary"])
    return {"parallel_read_safe": True, "parallel_write_safe": True}
