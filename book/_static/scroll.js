// What scrolls sideways can be reached with the keyboard too (WCAG 2.1.1).
const boxes = "article table, article pre, article .cell_output, article div.math, article details";
const reach = () => {
  for (const box of document.querySelectorAll(boxes)) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
};
addEventListener("load", reach);
addEventListener("resize", reach);
document.addEventListener("toggle", reach, true); // something was unfolded
