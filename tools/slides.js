// A slide with more than fits is made smaller.
function fit(slide) {
  slide.style.zoom = 1;
  const space = Reveal.getConfig().height * 0.96;
  if (slide.scrollHeight > space) slide.style.zoom = Math.max(0.45, space / slide.scrollHeight);
}
Reveal.initialize({ width: 1280, height: 720, margin: 0.05, hash: true, slideNumber: "c/t",
  center: false, transition: "none", plugins: [RevealNotes] });
const fitShown = () => fit(Reveal.getCurrentSlide());
Reveal.on("ready", async () => {
  await (window.MathJax?.startup?.promise || new Promise((done) => {
    window.addEventListener("load", () => (window.MathJax?.startup?.promise || Promise.resolve()).then(done));
  }));
  fitShown();
});
Reveal.on("slidechanged", fitShown);
Reveal.on("pdf-ready", () => document.querySelectorAll(".slides section").forEach(fit));
