"""What a reader's browser need not load: icons that no page shows, the index before a search.

The theme brings two thousand icons, as drawings in a script of 1.5 MB and again as fonts with a
style for each; the pages show about twenty, and the drawings are enough. The index of the search
belongs to the page of the search, where Sphinx loads it by itself, and the styles of cards and tabs
to pages that have some.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util import logging

ICONS = Path("_static") / "scripts" / "fontawesome.js"
STYLES = Path("_static") / "styles" / "pydata-sphinx-theme.css"
# "magnifying-glass":[512,512,[128269,"search"],"f002","M416 ..."], as the theme's script has it.
ICON = re.compile(
    r'(?:"([a-z0-9-]+)"|([a-z0-9]+)):\[\d+,\d+,(\[[^\]]*\]),"[0-9a-f]+",'
    r'(?:"[^"]*"|\["[^"]*","[^"]*"\])\],?'
)
FONT_ICON = re.compile(r'(?:\.fa-[a-z0-9-]+::?before,?)+\{content:"[^"]*"\}')
USED = re.compile(r"\bfa-([a-z0-9-]+)")
SEARCH = re.compile(
    r'\s*<script src="[^"]*(?:searchtools|language_data|searchindex)\.js"></script>'
)
CARDS = re.compile(r'\s*<link [^>]*href="[^"]*sphinx-design[^"]*\.css[^"]*"[^>]*>')

logger = logging.getLogger(__name__)


def keep_icons(script: str, used: set[str]) -> str:
    """Return the theme's script with those icons alone that are used under one of their names.

    Raises:
        ValueError: the script is not what this extension knows, and no icon was found.
    """

    def kept(icon: re.Match[str]) -> str:
        names = {icon[1] or icon[2], *re.findall(r'"([^"]+)"', icon[3])}
        return icon[0] if names & used else ""

    lighter, found = ICON.subn(kept, script)
    if not found:
        raise ValueError("the theme's icons are written in another way: expected name:[512,512,...")
    return lighter


def _make_lighter(app: Sphinx, exception: Exception | None) -> None:
    out = Path(app.outdir)
    if exception or app.builder.name != "html":
        return
    scripts = [p.read_text(encoding="utf-8") for p in (out / "_static").glob("**/*theme*.js")]
    used = {name for text in scripts for name in USED.findall(text)}
    for page in out.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        used.update(USED.findall(text))
        lighter = text if page.name == "search.html" else SEARCH.sub("", text)
        if not re.search(r'class="[^"]*\bsd-', text):
            lighter = CARDS.sub("", lighter)
        if lighter != text:
            page.write_text(lighter, encoding="utf-8")
    icons, styles = out / ICONS, out / STYLES
    try:
        icons.write_text(keep_icons(icons.read_text(encoding="utf-8"), used), encoding="utf-8")
        styles.write_text(FONT_ICON.sub("", styles.read_text(encoding="utf-8")), encoding="utf-8")
    except (OSError, ValueError) as error:
        logger.warning("all icons stay: %s", error)


def setup(app: Sphinx) -> dict[str, Any]:
    """Run when the pages are written."""
    app.connect("build-finished", _make_lighter)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
