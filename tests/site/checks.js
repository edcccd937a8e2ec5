// Returns what a reader would complain about on this page, as a list of sentences.
() => {
  const faults = [];
  const article = document.querySelector("article") || document.body;
  const view = document.documentElement.clientWidth;
  const name = (el) => `<${el.tagName.toLowerCase()} class="${el.className}"> ${el.textContent.trim().slice(0, 40)}`;
  const scrolls = (el) => {
    for (let box = el; box && box !== document.body; box = box.parentElement)
      if (/auto|scroll/.test(getComputedStyle(box).overflowX) && box.scrollWidth > box.clientWidth)
        return true;
    return false;
  };

  const page = document.scrollingElement.scrollWidth;
  if (page > view) faults.push(`the page is ${page} wide on ${view}`);
  for (const el of article.querySelectorAll("table, pre, img, svg, mjx-container, dt, dd, p, li")) {
    if (!el.checkVisibility() || el.closest("mjx-assistive-mml")) continue;
    const box = el.getBoundingClientRect();
    if (box.right > view + 1 && !scrolls(el)) faults.push(`past the edge: ${name(el)}`);
    const cut = el.scrollWidth > el.clientWidth + 1 && el.clientWidth > 0;
    if (cut && /hidden|clip/.test(getComputedStyle(el).overflowX)) faults.push(`cut: ${name(el)}`);
  }
  if (view > 1000)
    for (const code of article.querySelectorAll("div.highlight pre"))
      if (code.checkVisibility() && code.scrollWidth > code.clientWidth + 1)
        faults.push(`code is ${code.scrollWidth} wide in ${code.clientWidth}: ${name(code)}`);

  for (const formula of article.querySelectorAll(".math"))
    if (!formula.querySelector("mjx-container")) faults.push(`no formula: ${name(formula)}`);
  for (const wrong of article.querySelectorAll("mjx-merror, [data-mjx-error]"))
    faults.push(`wrong formula: ${wrong.textContent}`);
  const texts = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode;
    if (node.parentElement.closest("pre, code, script, style, mjx-container")) continue;
    if (/\\[([]|\$\$|\\(frac|mathbf|sum)/.test(node.data)) faults.push(`raw formula: ${node.data}`);
  }

  for (const image of article.querySelectorAll("img")) {
    if (!(image.alt || "").trim()) faults.push(`no alternative text: ${image.src}`);
    if (image.complete && !image.naturalWidth) faults.push(`no picture: ${image.src}`);
  }
  return faults;
}
