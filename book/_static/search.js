// The search of Sphinx, for readers: chapters come first, a word of the glossary has its own name,
// and the text comes from search-text.js, because a browser may not fetch files from disk.
const asked = (new URLSearchParams(location.search).get("q") || "").toLowerCase().trim();
const textOf = (docname) => SEARCH_TEXTS[docname] || '<div role="main"></div>';

var Scorer = {
  objNameMatch: 11, objPartialMatch: 6, objPrio: { 0: 15, 1: 5, 2: -5 }, objPrioDefault: 0,
  title: 15, partialTitle: 7, term: 5, partialTerm: 2,
  score: (result) => {
    const [docname, , anchor, , score] = result;
    if (anchor.startsWith("#term-")) {
      result[1] = Documentation.gettext("Glossary: {0}").replace("{0}", anchor.slice(6).replaceAll("-", " "));
      result[3] = null; // shows the text instead
      return 500 + score;
    }
    const often = Math.min(textOf(docname).toLowerCase().split(asked).length - 1, 50);
    return (docname.startsWith("notebooks/") ? 1000 : 0) + score + often;
  },
};

window.fetch = (url) => {
  const root = document.documentElement.dataset.content_root;
  const docname = String(url).replace(root, "").replace(/\.html$/, "");
  return Promise.resolve({ text: () => textOf(docname) });
};
