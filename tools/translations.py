"""Translations of the book: the catalogues of its pages, and the edition made from them.

Usage: translations.py           (after a change of any page: brings book/locale up to date)
       translations.py check     (stops where they are not up to date; a test does)
       translations.py build     (the translated pages, on top of the built book; `make book` does)

A catalogue has the messages of one page, in the order of the page. A message that is new, or whose
words changed, is marked `fuzzy` or empty until somebody translates it; where only its numbers
changed, its translation takes the new ones. Which pages are translated says `editions` in
_config.yml.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import re
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import normalize, read_po

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
LOCALE = ROOT / "book" / "locale"
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
EDITIONS: dict[str, list[str]] = CONFIG["sphinx"]["config"]["editions"]
TITLES = {"zh_CN": "实时推荐系统"}
DATES = {"zh_CN": "%Y-%m-%d"}
SITE = "site"  # the texts of the extensions
# Made when the book is built, from docstrings or stored rows: nothing to translate.
MADE = re.compile(r"book/(api|results|notebook-runs)\b")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
HEADER = """\
# {what}
# Made by tools/translations.py; only the lines of msgstr are written by hand.
msgid ""
msgstr "Content-Type: text/plain; charset=utf-8\\n"
"""


class Entry(NamedTuple):
    """What a catalogue says about a message."""

    text: str = ""
    fuzzy: bool = False


def catalogue(language: str, page: str) -> Path:
    """Return the file with the translations of a page."""
    return LOCALE / language / "LC_MESSAGES" / f"{page}.po"


def read(path: Path) -> dict[str, Entry]:
    """Return the messages of a catalogue, in its order."""
    if not path.exists():
        return {}
    found = read_po(io.BytesIO(path.read_bytes()))
    return {str(m.id): Entry(str(m.string), m.fuzzy) for m in found if m.id}


def write(path: Path, entries: dict[str, Entry], what: str) -> None:
    """Write a catalogue, a line for each text."""
    parts = [HEADER.format(what=what)]
    for message, (text, fuzzy) in entries.items():
        mark = "#, fuzzy\n" if fuzzy else ""
        lines = (f"{key} {normalize(value, width=0)}" for key, value in
                 (("msgid", message), ("msgstr", text)))  # fmt: skip
        parts.append(mark + "\n".join(lines) + "\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts), encoding="utf-8")


def run_sphinx(builder: str, out: Path, pages: Iterable[str] = (), **settings: Any) -> None:
    """Run Sphinx with the settings of the book and others; stop where it warns."""
    from jupyter_book.sphinx import build_sphinx

    files = [str(next(ROOT.glob(f"{page}.*"))) for page in pages]
    with contextlib.redirect_stdout(io.StringIO()):
        failed = build_sphinx(
            str(ROOT), str(out), noconfig=True, path_config=str(ROOT / "_config.yml"),
            confoverrides={"latex_individualpages": False, **settings}, builder=builder,
            doctreedir=str(out.parent / ".doctrees"), filenames=files,
            warningiserror=True, keep_going=True, quiet=True,
        )  # fmt: skip
    if failed:
        raise SystemExit(f"Sphinx has failed for {out.relative_to(ROOT)}: {failed}")


def messages() -> dict[str, list[str]]:
    """Return the messages of all pages, and those of the extensions for the translated ones."""
    out = BUILD / "gettext" / "pot"
    extensions = [*(ROOT / "book" / "_ext").glob("*.py"), ROOT / "_config.yml"]
    known = is_younger(out.parent / ".doctrees" / "environment.pickle", extensions)
    shutil.rmtree(out if known else out.parent, ignore_errors=True)
    # Of an output it takes the picture, which has an alternative text.
    run_sphinx("gettext", out, nb_mime_priority_overrides=[("gettext", "image/png", 1)])
    found = {}
    for path in sorted(out.rglob("*.pot")):
        page = path.relative_to(out).with_suffix("").as_posix()
        if "/" in page and not MADE.match(page):
            found[page] = list(read(path))
    pages = dict.fromkeys(page for pages in EDITIONS.values() for page in pages)
    said = filter(None, dict.fromkeys(_site_messages(pages)))
    return found | {SITE: list(said)}


def _site_messages(pages: Iterable[str]) -> Iterable[str]:
    """Yield what extensions and scripts write on translated pages."""
    for path in sorted((ROOT / "book" / "_ext").glob("*.py")):
        code = path.read_text(encoding="utf-8")
        yield from re.findall(r'\bsay\(\s*[\'"]([^\'"{}]*(?:\{\d\}[^\'"{}]*)*)[\'"]\s*\)', code)
        for block in re.findall(r"^SAID = \((.*?)^\)$", code, re.MULTILINE | re.DOTALL):
            yield from re.findall(r'"(.+)"', block)
    asked = tomllib.loads((ROOT / "book" / "predictions.toml").read_text(encoding="utf-8"))
    for page in pages:
        name = page.removeprefix("notebooks/")
        yield from (asked.get(name, {}).get(key, "") for key in ("text", "unit"))
        quiz = ROOT / "book" / "quizzes" / f"{name[:2]}.toml"
        if name != page and quiz.exists():
            for question in tomllib.loads(quiz.read_text(encoding="utf-8"))["question"]:
                yield question["ask"]
                for choice in (question["right"], *question["wrong"]):
                    yield from choice


def renumber(before: str, after: str, text: str) -> str | None:
    """Return a translation with the numbers of a message that changed in nothing else.

    Example:
        >>> renumber("On 5 sets, 3.9 times", "On 6 sets, 4 times", "在 5 个数据集上，3.9 倍")
        '在 6 个数据集上，4 倍'
        >>> renumber("On 5 sets", "On 6 data sets", "在 5 个数据集上") is None
        True
    """
    old, new = NUMBER.findall(before), NUMBER.findall(after)
    if NUMBER.sub("0", before) != NUMBER.sub("0", after):
        return None
    if text and sorted(old) != sorted(NUMBER.findall(text)):
        return None
    waiting: dict[str, list[str]] = {}
    for number, changed in zip(old, new, strict=True):
        waiting.setdefault(number, []).append(changed)
    return NUMBER.sub(lambda found: waiting[found[0]].pop(0), text)  # of no text, none


def merge(wanted: Iterable[str], known: dict[str, Entry], translated: bool) -> dict[str, Entry]:
    """Return the messages that a page has now, each with what is known about it."""
    wanted = list(wanted)
    left = {message: entry for message, entry in known.items() if message not in set(wanted)}
    merged = {}
    for message in wanted:
        entry = known.get(message)
        if entry is None:
            entry = _follow(message, left) if translated else Entry()
        if not entry.text and translated and not _has_words(message):
            entry = Entry(message)
        merged[message] = entry
    return merged


def _follow(message: str, left: dict[str, Entry]) -> Entry:
    """Return the translation of the message that this one replaces."""
    for before, entry in left.items():
        if not entry.fuzzy and (text := renumber(before, message, entry.text)):
            return Entry(text)
    near = difflib.get_close_matches(message, left, n=1, cutoff=0.7)
    return Entry(left[near[0]].text, True) if near and left[near[0]].text else Entry()


def _has_words(message: str) -> bool:
    """Return whether more than code, roles and numbers has to be translated."""
    return bool(re.search(r"[a-z]{2}", re.sub(r"(\{[\w:]+\})?`[^`]*`", "", message)))


def update() -> None:
    """Bring all catalogues up to date, and say which of them a translator has to look at."""
    found = messages()
    for language, pages in EDITIONS.items():
        for page, wanted in found.items():
            path, translated = catalogue(language, page), page in (*pages, SITE)
            entries = merge(wanted, read(path), translated)
            write(path, entries, f"{page}, {language}")
            open_ones = [m for m, entry in entries.items() if entry.fuzzy or not entry.text]
            if translated and open_ones:
                print(f"{path.relative_to(ROOT)}: {len(open_ones)} to translate", file=sys.stderr)
        for path in (LOCALE / language).rglob("*.po"):
            page = path.relative_to(LOCALE / language / "LC_MESSAGES").with_suffix("").as_posix()
            if page not in found:
                path.unlink()


def check() -> None:
    """Stop with the catalogues that are not of today: their texts, their number or their names."""
    found, stale = messages(), []
    for language in EDITIONS:
        there = set((LOCALE / language).rglob("*.po"))
        for page, wanted in found.items():
            path = catalogue(language, page)
            if path not in there or list(read(path)) != wanted:
                stale.append(path)
            there.discard(path)
        stale += sorted(there)
    if stale:
        names = ", ".join(str(path.relative_to(LOCALE)) for path in stale)
        raise SystemExit(f"Not of today: {names}. Run make translations.")


def follow_numbers(page: str, pairs: Iterable[tuple[str, str]]) -> None:
    """Give the messages of a page new numbers, where a tool wrote them into its text."""
    renamed = dict(pairs)
    for language in EDITIONS:
        path, entries = catalogue(language, page), {}
        if not path.exists():
            continue
        for message, entry in read(path).items():
            after = renamed.get(message, message)
            text = renumber(message, after, entry.text)
            known = text is None  # as it is: other words changed, too
            entries[message if known else after] = entry if known else entry._replace(text=text)
        write(path, entries, f"{page}, {language}")


def is_younger(made: Path, sources: Iterable[Path]) -> bool:
    """Return whether a file exists and is younger than others."""
    return made.exists() and made.stat().st_mtime > max(path.stat().st_mtime for path in sources)


def is_current(language: str) -> bool:
    """Return whether an edition is younger than everything it is made from."""
    sources = [path for path in (ROOT / "book").rglob("*") if path.suffix not in {".md", ".pyc"}]
    sources += [BUILD / ".doctrees" / "environment.pickle", ROOT / "_config.yml", Path(__file__)]
    return is_younger(BUILD / "html" / language / "index.html", sources)


def build(language: str) -> None:
    """Make the pages of an edition, put them into the built book, and show the links to them."""
    out, site = BUILD / language / "html", BUILD / "html"
    if not is_current(language):
        shutil.rmtree(out.parent, ignore_errors=True)
        # All other pages are as they were read for the book in English.
        shutil.copytree(BUILD / ".doctrees", out.parent / ".doctrees")
        for glued in (BUILD / "jupyter_execute").rglob("*.glue.json"):
            copy = out.parent / glued.relative_to(BUILD)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(glued, copy)
        compiled = out.parent / "locale"
        for page in (*EDITIONS[language], SITE):
            path = compiled / catalogue(language, page).relative_to(LOCALE).with_suffix(".mo")
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                write_mo(file, _translated(read(catalogue(language, page))))
        run_sphinx(
            "html", out, EDITIONS[language], language=language, locale_dirs=[str(compiled)],
            html_baseurl=f"{CONFIG['html']['baseurl']}{language}/", html_use_index=False,
            html_title=TITLES[language], html_domain_indices=False,
            html_last_updated_fmt=DATES[language],
        )  # fmt: skip
        shutil.rmtree(site / language, ignore_errors=True)
        leave_out = shutil.ignore_patterns("mathjax", "play")  # the book has them
        shutil.copytree(out, site / language, ignore=leave_out)
    for page in EDITIONS[language]:
        path = site / f"{page}.html"
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r'(<a class="language-switch"[^>]*) hidden>', r"\1>", text), "utf-8")


def _translated(entries: dict[str, Entry]) -> Catalog:
    result = Catalog()
    for message, (text, fuzzy) in entries.items():
        if text and not fuzzy:
            result.add(message, text)
    return result


def main() -> int:
    """Do what the command line asks for."""
    what, *languages = sys.argv[1:] or ["update"]
    if unknown := set(languages) - set(EDITIONS):
        print(f"There is no edition {', '.join(unknown)}: {', '.join(EDITIONS)}", file=sys.stderr)
        return 2
    steps: dict[str, Callable[[], object]] = {
        "update": update,
        "check": check,
        "build": lambda: [build(language) for language in languages or EDITIONS],
    }
    if what not in steps:
        print(__doc__, file=sys.stderr)
        return 2
    steps[what]()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
