// What scrolls sideways can be reached with the keyboard too (WCAG 2.1.1).
document.addEventListener("DOMContentLoaded", () => {
  for (const box of document.querySelectorAll("article table, article pre, article .cell_output")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
});
