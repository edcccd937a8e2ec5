"""Slides of one chapter, made from its page, in a browser."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STEPS = """async () => {
  await window.MathJax?.startup?.promise;
  const slides = [];
  for (let n = 0; n < Reveal.getTotalSlides(); n += 1) {
    Reveal.slide(n);
    await new Promise((done) => setTimeout(done, 50));
    const slide = Reveal.getCurrentSlide();
    const broken = [...slide.querySelectorAll("img")].some((i) => !i.naturalWidth || !i.alt);
    const unset = slide.querySelector(".math:not(:has(mjx-container)), mjx-merror, .predict");
    slides.push({
      text: slide.innerText, bottom: slide.getBoundingClientRect().bottom, broken, unset: !!unset,
      kinds: ["figure", "pre", "blockquote", ".question"].filter((k) => slide.querySelector(k)),
    });
  }
  return slides;
}"""


def test_slides_of_chapter_8(open_page, tmp_path):
    tool = [sys.executable, str(ROOT / "tools" / "make_slides.py"), "--out", str(tmp_path), "08"]
    subprocess.run(tool, check=True, capture_output=True)
    page = open_page(tmp_path / "08.html", viewport={"width": 1280, "height": 720})
    slides = page.evaluate(STEPS)
    kinds = {kind for slide in slides for kind in slide["kinds"]}
    assert kinds == {"figure", "pre", "blockquote", ".question"}
    for slide in slides:
        assert slide["bottom"] <= 720 and not slide["broken"] and not slide["unset"], slide["text"]
        assert "claim(" not in slide["text"] and "Solution" not in slide["text"]
