// The live page: what model.js computes, shown as the reader clicks.
(() => {
  const FORMS = { "4 bits": "four-bits.js", "8 bits": "eight-bits.js", float32: "float32.js" };
  const MOST_FOUND = 24; // films shown at once
  const MOST_PICKED = 40;
  const { facts, titles } = PLAY;
  const folder = document.currentScript.src.replace(/[^/]*$/, "");
  const part = (name) => document.getElementById(`play-${name}`);
  const number = (value, digits = 0) =>
    value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const make = (tag, text = "", attributes = {}) => {
    const element = document.createElement(tag);
    element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };

  const models = { "4 bits": PLAY.read(PLAY.files["4 bits"]) };
  const times = []; // milliseconds of each recommendation
  const lists = {}; // the ten films of each form that is loaded
  let picked = [];
  let waiting = 0; // drawing of the times, after the list
  const plain = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
  const searched = titles.map(plain);

  const timed = (history) => {
    const start = performance.now();
    const answer = PLAY.recommend(models["4 bits"], history);
    times.push(performance.now() - start);
    return answer;
  };

  // --- films to pick
  const find = () => {
    const words = plain(part("search").value).split(/\s+/).filter(Boolean);
    const hits = [];
    for (let film = 0; film < titles.length && hits.length < MOST_FOUND; film += 1)
      if (words.every((word) => searched[film].includes(word))) hits.push(film);
    const buttons = hits.map((film) => make("button", titles[film], { type: "button", "data-film": film }));
    part("found").replaceChildren(...(hits.length ? buttons : [make("p", "No film with these words.")]));
    press();
  };
  const press = () => {
    for (const button of part("found").querySelectorAll("button"))
      button.setAttribute("aria-pressed", picked.includes(Number(button.dataset.film)));
  };

  // --- one click
  const choose = (films) => {
    const click = performance.now();
    picked = films.slice(-MOST_PICKED);
    press();
    part("none").hidden = picked.length > 0;
    part("clear").hidden = picked.length === 0;
    chips();
    recommend();
    if (models.float32) compare();
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(draw);
    if (!picked.length) return;
    const whole = performance.now() - click;
    part("status").textContent =
      `Ten films out of ${number(titles.length)} in ${number(times.at(-1), 1)} ms; ` +
      `with writing the list ${number(whole, 1)} ms.`;
  };

  // Elements that stay are not made again: a page with less to lay out is ready sooner.
  const chips = () => {
    const shown = [...part("picked").children];
    for (const chip of shown) if (!picked.includes(Number(chip.firstChild.dataset.drop))) chip.remove();
    for (const film of picked) {
      if (shown.some((chip) => Number(chip.firstChild.dataset.drop) === film)) continue;
      const chip = make("li");
      const label = `${titles[film]} \u00d7`;
      chip.append(make("button", label, { type: "button", "data-drop": film, "aria-label": `${label} remove` }));
      part("picked").append(chip);
    }
  };

  let answer = { best: [] };
  const places = [...Array(10).keys()].map((place) => {
    const [entry, title, why] = [make("li"), make("span"), make("details")];
    const add = make("button", "Add", { type: "button", class: "play-plain" });
    why.append(make("summary", "Why this film?"));
    why.addEventListener("toggle", () => {
      if (why.open && why.children.length === 1 && answer.best[place]) why.append(reasons(answer.best[place].item));
    });
    entry.append(title, " ", add, why);
    return { entry, title, add, why };
  });
  const recommend = () => {
    part("best").hidden = !picked.length;
    if (!picked.length) {
      part("status").textContent = "Pick a film, and ten others stand here.";
      return;
    }
    answer = { ...timed(picked), history: picked };
    lists["4 bits"] = answer.best.map(({ item }) => item);
    places.forEach(({ title, add, why }, place) => {
      const { item } = answer.best[place];
      why.open = false;
      why.querySelector("ul")?.remove();
      title.textContent = titles[item];
      add.dataset.add = item;
      add.setAttribute("aria-label", `Add ${titles[item]}`);
    });
  };

  const reasons = (item) => {
    const parts = PLAY.reasons(models["4 bits"], answer.factor, answer.history, item);
    const score = parts.reduce((sum, reason) => sum + reason.part, 0);
    const list = make("ul", "", { class: "play-reasons" });
    for (const reason of parts.slice(0, 3)) {
      const share = Math.max(0, Math.min(1, reason.part / score));
      const entry = make("li", `${titles[reason.item]}: ${number(reason.part, 3)} of ${number(score, 3)}`);
      entry.style.setProperty("--share", `${100 * share}%`);
      list.append(entry);
    }
    return list;
  };

  // --- the three forms
  const compare = () => {
    for (const [name, model] of Object.entries(models))
      if (picked.length && name !== "4 bits")
        lists[name] = PLAY.recommend(model, picked).best.map(({ item }) => item);
    const rows = Object.keys(FORMS).map((name) => {
      const { bytes, coded, ndcg, change, same } = facts[name];
      const [mean, low, high] = change.map((value) => `${value < 0 ? "\u2212" : "+"}${number(100 * Math.abs(value), 1)}`);
      const here = picked.length && models.float32 && models[name]
        ? `${lists[name].filter((film) => lists.float32.includes(film)).length} of ${lists.float32.length}`
        : "\u2013";
      const row = make("tr");
      row.append(make("th", name, { scope: "row" }));
      for (const text of [
        number(bytes),
        coded ? number(coded) : "\u2013",
        name === "float32" ? number(ndcg, 4) : `${number(ndcg, 4)}, ${mean} % (${low} to ${high})`,
        `${number(same, 1)} of 10`,
        here,
      ]) row.append(make("td", text));
      return row;
    });
    part("rows").replaceChildren(...rows);
  };
  const load = () => {
    part("load").disabled = true;
    let missing = 2;
    for (const name of ["8 bits", "float32"]) {
      const script = make("script", "", { src: folder + FORMS[name] });
      script.addEventListener("error", () => (part("size").textContent = "The files could not be loaded."));
      script.addEventListener("load", () => {
        models[name] = PLAY.read(PLAY.files[name]);
        delete PLAY.files[name];
        missing -= 1;
        if (missing) return;
        part("size").textContent = "Loaded: the last column compares your list.";
        compare();
      });
      document.head.append(script);
    }
  };

  // --- the times
  const STEP = 0.1; // of the histogram, in milliseconds: as fine as most clocks of browsers
  const quantile = (sorted, share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  const draw = () => {
    const chart = part("chart");
    chart.replaceChildren();
    if (!times.length) {
      part("summary").textContent = "No recommendation yet.";
      return;
    }
    const sorted = [...times].sort((a, b) => a - b);
    const [p50, p99] = [quantile(sorted, 0.5), quantile(sorted, 0.99)];
    part("summary").textContent =
      `${number(times.length)} recommendation${times.length > 1 ? "s" : ""}: half of them within ` +
      `${number(p50, 1)} ms, 99 of 100 within ${number(p99, 1)} ms.`;
    const bins = Math.max(20, Math.ceil(quantile(sorted, 0.99) / STEP) + 2);
    const width = Math.max(1, Math.ceil(bins / 60));
    const counts = new Array(Math.ceil(bins / width)).fill(0);
    for (const time of times)
      counts[Math.min(counts.length - 1, Math.floor(time / STEP / width + 1e-9))] += 1;
    const shape = (tag, attributes, text = "") => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
      element.textContent = text;
      chart.append(element);
    };
    const most = Math.max(...counts);
    const step = 560 / counts.length;
    counts.forEach((count, bin) => {
      const height = (130 * count) / most;
      shape("rect", { x: 20 + bin * step + 1, y: 140 - height, width: Math.max(1, step - 2), height });
    });
    shape("line", { x1: 20, x2: 580, y1: 140, y2: 140 });
    for (let tick = 0; tick <= 4; tick += 1)
      shape("text", { x: 20 + 140 * tick, y: 158, "text-anchor": "middle" },
        number((counts.length * width * STEP * tick) / 4, 1));
    shape("text", { x: 300, y: 176, "text-anchor": "middle" }, "milliseconds; the last bar holds all longer ones");
  };
  const many = () => {
    for (let visitor = 0; visitor < 200; visitor += 1) {
      const films = new Set();
      const size = 1 + Math.floor(20 * Math.random());
      while (films.size < size) films.add(Math.floor(titles.length * Math.random() ** 3));
      timed([...films]);
    }
    draw();
  };

  // --- events
  part("search").addEventListener("input", find);
  part("found").addEventListener("click", ({ target }) => {
    if (!target.dataset.film) return;
    const film = Number(target.dataset.film);
    choose(picked.includes(film) ? picked.filter((other) => other !== film) : [...picked, film]);
  });
  part("picked").addEventListener("click", ({ target }) => {
    if (!target.dataset.drop) return;
    const place = picked.indexOf(Number(target.dataset.drop));
    choose(picked.filter((_, index) => index !== place));
    const left = part("picked").querySelectorAll("button");
    (left[Math.min(place, left.length - 1)] || part("search")).focus();
  });
  part("best").addEventListener("click", ({ target }) => {
    if (!target.dataset.add) return;
    choose([...picked, Number(target.dataset.add)]);
    part("best").querySelector("button").focus();
  });
  part("clear").addEventListener("click", () => {
    choose([]);
    part("search").focus();
  });
  part("load").addEventListener("click", load);
  part("many").addEventListener("click", many);

  part("caption").textContent =
    `Item vectors of ${number(facts.films)} films in ${facts.dim} numbers each. NDCG@10: a fifth of the ` +
    `ratings held out, with the change against float32 and its 95 % interval. Same films: of the ten of ` +
    `float32, mean of ${number(facts.histories)} random histories.`;
  part("size").textContent =
    `(${number((facts["8 bits"].bytes + facts.float32.bytes) * 4 / 3 / 1e6, 1)} MB)`;
  part("best").append(...places.map(({ entry }) => entry));
  find();
  compare();
  choose([]);
  document.getElementById("play").hidden = false;
})();
