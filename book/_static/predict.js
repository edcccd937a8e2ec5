// Guess, then see: closes the box of a chapter's main result until the reader has guessed, and draws
// the guess beside what was measured. The guess stays in this browser.
addEventListener("DOMContentLoaded", () => {
  const form = document.querySelector("form.predict");
  if (!form) return;
  const said = document.querySelector(".predict-said");
  const result = document.querySelector(".predict-result");
  const facts = JSON.parse(form.dataset.facts);
  const input = form.querySelector("#predict-guess");
  const say = (text, ...values) => Documentation.gettext(text).replace(/\{(\d)\}/g, (_, n) => values[n]);
  const NEVER = "predict: never";
  const KEY = `predict: ${location.pathname.split("/").at(-1)}`;

  // Storage may be refused, for example on a page from disk.
  const keep = (key, value) => {
    try {
      if (value === null) localStorage.removeItem(key);
      else localStorage.setItem(key, value);
    } catch {}
  };
  const kept = (key) => {
    try {
      return localStorage.getItem(key);
    } catch {
      return null;
    }
  };

  const show = (value) =>
    value.toLocaleString("en-US", { minimumFractionDigits: facts.digits, maximumFractionDigits: facts.digits }) +
    facts.unit;
  // The slider has 200 places, with equal steps or equal factors between them.
  const valueAt = (share) =>
    facts.log ? facts.low * (facts.high / facts.low) ** share : facts.low + share * (facts.high - facts.low);
  const shareOf = (value) =>
    facts.log ? Math.log(value / facts.low) / Math.log(facts.high / facts.low) : (value - facts.low) / (facts.high - facts.low);
  const slide = () => {
    const text = show(valueAt(input.value / 200));
    form.querySelector("output").textContent = text;
    input.setAttribute("aria-valuetext", text);
  };

  const drawing = (marks, ends) => {
    const space = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(space, "svg");
    const add = (tag, attributes, text = "") => {
      const element = document.createElementNS(space, tag);
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
      element.textContent = text;
      svg.append(element);
    };
    svg.setAttribute("viewBox", "0 0 440 84");
    svg.setAttribute("aria-hidden", "true"); // the sentence beside it says the same
    add("line", { x1: 80, x2: 360, y1: 42, y2: 42 });
    const at = (share) => 80 + 280 * Math.min(1, Math.max(0, share));
    const anchor = (x) => (x < 100 ? "start" : x > 340 ? "end" : "middle");
    ends.forEach((text, end) => add("text", { x: end ? 368 : 72, y: 46, "text-anchor": end ? "start" : "end" }, text));
    const [guess, truth] = marks.map(at);
    add("path", { d: `M${guess} 36 l-6 -10 h12 z`, class: "predict-guess" });
    add("text", { x: guess, y: 16, "text-anchor": anchor(guess), class: "predict-guess" }, say("your guess"));
    add("path", { d: `M${truth} 48 l-6 10 h12 z`, class: "predict-truth" });
    add("text", { x: truth, y: 76, "text-anchor": anchor(truth), class: "predict-truth" }, say("measured"));
    return svg;
  };

  const judge = (guess) => {
    if (facts.values) {
      const right = guess === facts.answer;
      const list = document.createElement("ul");
      form.querySelectorAll("label span").forEach((label, place) => {
        const entry = document.createElement("li");
        const marks = [place === facts.answer && say("measured"), place === guess && say("your guess")].filter(Boolean);
        entry.textContent = `${label.textContent}: ${show(facts.values[place])}${marks.length ? ` (${marks.join(", ")})` : ""}`;
        entry.className = place === facts.answer ? "predict-truth" : place === guess ? "predict-guess" : "";
        list.append(entry);
      });
      return [say(right ? "Your guess is what was measured." : "Something else was measured."), list];
    }
    const value = valueAt(guess);
    const off = facts.log
      ? say("a factor of {0}", Math.max(value / facts.answer, facts.answer / value).toLocaleString("en-US", { maximumFractionDigits: 1 }))
      : show(Math.abs(value - facts.answer)).replace(" %", " points");
    const sentence = say("You guessed {0}. Measured: {1}. Your guess is off by {2}.", show(value), show(facts.answer), off);
    return [sentence, drawing([guess, shareOf(facts.answer)], [show(facts.low), show(facts.high)])];
  };

  // A line in the figure itself, where its axis has the guess.
  const mark = (guess) => {
    document.querySelector(".predict-line")?.remove();
    const picture = document.querySelector("img.predict-figure");
    if (!picture || !facts.axis || guess === null) return;
    const { side, log, start, slope } = facts.axis;
    const value = valueAt(guess);
    const share = start + slope * (log ? Math.log(value) : value);
    if (!(share > 0 && share < 1)) return;
    if (!picture.parentElement.matches(".predict-frame")) {
      const frame = document.createElement("span");
      frame.className = "predict-frame";
      picture.replaceWith(frame);
      frame.append(picture);
    }
    const line = document.createElement("span");
    line.className = `predict-line predict-${side}`;
    line.style[side === "x" ? "left" : "top"] = `${100 * share}%`;
    line.append(document.createElement("span"));
    line.firstChild.textContent = say("your guess: {0}", show(value));
    picture.parentElement.append(line);
  };

  // null: skipped.
  const open = (guess, focus) => {
    form.hidden = true;
    result.hidden = false;
    said.hidden = false;
    const again = document.createElement("button");
    again.type = "button";
    again.textContent = say(guess === null ? "Guess first" : "Guess again");
    again.addEventListener("click", () => {
      keep(KEY, null);
      keep(NEVER, null);
      close();
      form.querySelector("input").focus();
    });
    const words = document.createElement("p");
    if (guess === null) said.replaceChildren(again);
    else {
      const [sentence, picture] = judge(guess);
      words.textContent = sentence;
      said.replaceChildren(words, picture, again);
    }
    mark(guess);
    if (focus) said.focus();
    dispatchEvent(new Event("resize")); // what scrolls sideways now has a width
  };
  const close = () => {
    form.hidden = false;
    said.hidden = true;
    // Searching in the page and links into the box still find what is there.
    result.hidden = true;
    if ("onbeforematch" in document) result.setAttribute("hidden", "until-found");
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const guess = input ? input.value / 200 : Number(new FormData(form).get("guess"));
    keep(KEY, String(guess));
    open(guess, true);
  });
  form.querySelector(".predict-skip").addEventListener("click", () => open(null, true));
  form.querySelector(".predict-never").addEventListener("click", () => {
    keep(NEVER, "yes");
    open(null, true);
  });
  result.addEventListener("beforematch", () => open(null, false));
  addEventListener("beforeprint", () => (result.hidden = false));
  const find = () => {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target || !result.contains(target) || !result.hidden) return;
    open(null, false);
    target.scrollIntoView();
  };
  addEventListener("hashchange", find);

  if (input) {
    input.addEventListener("input", slide);
    slide();
  }
  if (kept(KEY) !== null) open(Number(kept(KEY)), false);
  else if (kept(NEVER)) open(null, false);
  else close();
  find();
});
