"""The built book, from disk, in a headless Chromium."""

import re
import shutil
from pathlib import Path

import pytest

SITE = Path(__file__).resolve().parents[2] / "_build" / "html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def browser():
    """Return one browser for all tests of a worker."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert path, f"no browser: install one of {', '.join(BROWSERS)}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """Return a function that opens a page; its errors, and what it asks the network, fail the test.

    With ``skip``, files of such names are not loaded, and nobody waits for the others.
    """
    pages, faults = [], []

    def open_page(path, query="", skip="", **options):
        path, page = SITE / path, browser.new_page(**options)
        pages.append(page)
        home = (SITE if path.is_relative_to(SITE) else path.parent).as_uri()
        inside = (home, "data:", "blob:")
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda r: r.url.startswith(inside) or faults.append(f"asks {r.url}"))
        if skip:
            page.route(re.compile(skip, re.I), lambda route: route.abort())
        else:
            page.on("console", lambda m: faults.append(m.text) if m.type == "error" else 0)
        page.goto(path.as_uri() + query, wait_until="domcontentloaded" if skip else "load")
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not faults, "\n".join(faults)
