// What scrolls sideways can be reached with the keyboard too (WCAG 2.1.1).
const boxes = "article table, article pre, article .cell_output, article div.math, article details";
const reach = () => {
  for (const box of document.querySelectorAll(boxes)) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
    fade(box);
  }
};
// Fades where there is more to the right, as a hint.
const fade = (box) =>
  box.classList.toggle("more", box.scrollLeft + box.clientWidth < box.scrollWidth - 1);
addEventListener("load", reach);
addEventListener("resize", reach);
document.addEventListener("toggle", reach, true); // something was unfolded
document.addEventListener("scroll", (event) => event.target.matches?.(boxes) && fade(event.target), true);

// In tables of outputs, a column that holds words is read from the left.
addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll(".cell_output table")) {
    const rows = [...table.querySelectorAll("tbody tr")].map((row) => [...row.querySelectorAll("td")]);
    const heads = [...(table.querySelector("thead tr")?.children || [])];
    for (let column = 0; column < Math.max(0, ...rows.map((row) => row.length)); column += 1) {
      const cells = rows.map((row) => row[column]).filter(Boolean);
      if (!cells.some((cell) => /^\p{L}.*\p{L}{2}/u.test(cell.textContent.trim()))) continue;
      const head = heads[heads.length - rows[0].length + column];
      for (const cell of [...cells, head].filter(Boolean)) cell.classList.add("text-left");
    }
  }
});
