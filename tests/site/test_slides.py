"""Slides of one chapter, made from its page, in a browser."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
STEPS = """async () => {
  await window.MathJax?.startup?.promise;
  const slides = [];
  for (let n = 0; n < Reveal.getTotalSlides(); n += 1) {
    Reveal.slide(n);
    await new Promise((done) => setTimeout(done, 50));
    const slide = Reveal.getCurrentSlide();
    const broken = [...slide.querySelectorAll("img")].some((i) => !i.naturalWidth || !i.alt);
    const unset = slide.querySelector(".math:not(:has(mjx-container)), mjx-merror");
    slides.push({
      text: slide.innerText, bottom: slide.getBoundingClientRect().bottom, broken, unset: !!unset,
      kinds: ["figure", "pre", "blockquote", ".question"].filter((k) => slide.querySelector(k)),
    });
  }
  return slides;
}"""


def test_slides_of_chapter_8(browser: Any, tmp_path: Path) -> None:
    tool = [sys.executable, str(ROOT / "tools" / "make_slides.py"), "--out", str(tmp_path), "08"]
    subprocess.run(tool, check=True, capture_output=True)
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    faults: list[str] = []
    page.on("console", lambda m: faults.append(m.text) if m.type == "error" else 0)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda r: r.url.startswith(("file:", "data:")) or faults.append(r.url))
    page.goto((tmp_path / "08.html").as_uri())
    slides = page.evaluate(STEPS)
    page.close()
    assert not faults
    kinds = {kind for slide in slides for kind in slide["kinds"]}
    assert kinds == {"figure", "pre", "blockquote", ".question"}
    for slide in slides:
        assert slide["bottom"] <= 720 and not slide["broken"] and not slide["unset"], slide["text"]
        assert "claim(" not in slide["text"] and "Solution" not in slide["text"]
