// The front, to look through: every measured point of quality against size.
addEventListener("DOMContentLoaded", () => {
  const root = document.getElementById("front-explorer");
  document.querySelector(".front-static").hidden = true; // it is for readers without scripts
  const { columns, sets } = JSON.parse(document.getElementById("front-points").textContent);
  for (const set of sets)
    set.points = set.points.map((row) => Object.fromEntries(columns.map((name, i) => [name, row[i]])));
  // A technique has the colour that it has in all figures of the book.
  const [BLUE, RED, GREEN, PURPLE, GREY] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a8a8a"];
  const LOOKS = {
    rounding: [BLUE, "square"], "transform coding": [BLUE, "circle"], codebooks: [BLUE, "diamond"],
    "one bit": [BLUE, "up"], pruning: [RED, "down"], "fewer dimensions": [RED, "square"],
    distillation: [GREEN, "up"], "trained for the file": [GREEN, "diamond"],
    "structured tables": [PURPLE, "diamond"], searched: [GREY, "square"],
  };
  const look = (name) => LOOKS[name];
  const names = Object.keys(LOOKS);
  const ACCOUNTS = { "self-contained": "self-contained file", items: "items only", "items and histories": "items and histories" };

  const make = (tag, text = "", attributes = {}) => {
    const element = document.createElement(tag);
    element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const box = (group, value, label, checked) => {
    const line = make("label");
    const input = make("input", "", { type: "checkbox", value, name: group });
    input.checked = checked;
    line.append(input, label);
    return line;
  };

  // --- controls
  const select = make("select", "", { id: "front-set" });
  sets.forEach((set, place) => select.append(make("option", set.name, { value: place })));
  const accounts = make("fieldset");
  accounts.append(make("legend", "What the file holds"));
  for (const [value, label] of Object.entries(ACCOUNTS))
    accounts.append(box("account", value, `${value === "self-contained" ? "\u25cf" : value === "items" ? "\u25cb" : "\u25d0"} ${label}`, value !== "items and histories"));
  const techniques = make("fieldset");
  techniques.append(make("legend", "Technique"));
  for (const name of names) {
    const line = box("technique", name, "", true);
    line.append(key(name), name);
    techniques.append(line);
  }
  const about = make("p", "", { class: "front-about" });
  const said = make("p", "", { class: "front-said" });
  const chart = svg("svg", { role: "group", "aria-label": "Change of NDCG@10 against times smaller; arrow keys go from point to point" });
  const field = make("div", "", { class: "front-chart" });
  field.append(chart);
  const heading = make("p");
  heading.append(make("label", "Data and protocol ", { for: "front-set" }), select);
  root.append(heading, about, accounts, techniques, field, said);

  function svg(tag, attributes, text = "") {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.textContent = text;
    return element;
  }
  function shape(kind, x, y, size) {
    const paths = {
      circle: `M${x - size} ${y} a${size} ${size} 0 1 0 ${2 * size} 0 a${size} ${size} 0 1 0 ${-2 * size} 0z`,
      square: `M${x - size} ${y - size} h${2 * size} v${2 * size} h${-2 * size}z`,
      diamond: `M${x} ${y - 1.3 * size} l${1.3 * size} ${1.3 * size} l${-1.3 * size} ${1.3 * size} l${-1.3 * size} ${-1.3 * size}z`,
      up: `M${x} ${y - 1.2 * size} l${1.2 * size} ${2.2 * size} h${-2.4 * size}z`,
      down: `M${x} ${y + 1.2 * size} l${1.2 * size} ${-2.2 * size} h${-2.4 * size}z`,
    };
    return paths[kind];
  }
  function key(name) {
    const [color, kind] = look(name);
    const picture = svg("svg", { width: 14, height: 14, "aria-hidden": "true" });
    picture.append(svg("path", { d: shape(kind, 7, 7, 4.5), fill: color }));
    return picture;
  }

  // --- the points
  const percent = (value, digits = 2) =>
    `${value < 0 ? "\u2212" : "+"}${Math.abs(100 * value).toFixed(digits)}\u00a0%`;
  const sentence = (point) => {
    const range = point.low === null ? "" : ` (${percent(point.low)} to ${percent(point.high)})`;
    const time = point.p50_us === null ? "" : `; ten best in ${Math.round(point.p50_us)} \u00b5s`;
    return `${point.recipe}, ${ACCOUNTS[point.account]}: ${point.ratio.toFixed(1)} times smaller, ` +
      `NDCG@10 ${percent(point.change)}${range}; ${point.bytes.toLocaleString("en-US")} bytes${time}.`;
  };
  const chosen = (group) =>
    new Set([...root.querySelectorAll(`input[name="${group}"]:checked`)].map((input) => input.value));
  // Equal steps up to one percent, equal factors beyond, as in the figure.
  const bend = (change) => Math.sign(change) * Math.log2(1 + Math.abs(100 * change));

  const draw = () => {
    const set = sets[select.value];
    const [byAccount, byTechnique] = [chosen("account"), chosen("technique")];
    const points = set.points
      .filter((point) => byAccount.has(point.account) && byTechnique.has(point.technique))
      .sort((a, b) => a.ratio - b.ratio);
    const [width, height] = [Math.max(280, Math.min(760, field.clientWidth)), 400];
    about.textContent = `${set.about} ${points.length} of ${set.points.length} points.`;
    said.textContent = points.length ? "Point at a mark, or reach it with the Tab and arrow keys." : "No point is left.";
    chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
    chart.setAttribute("width", width);
    chart.setAttribute("height", height);
    chart.replaceChildren();

    const ratios = set.points.map((point) => point.ratio);
    const [left, right] = [Math.log2(Math.min(1, ...ratios)), Math.log2(Math.max(...ratios) * 1.15)];
    const x = (ratio) => 52 + ((Math.log2(ratio) - left) / (right - left)) * (width - 66);
    const changes = set.points.map((point) => bend(point.change));
    const [low, high] = [Math.min(...changes) - 0.3, Math.max(0.5, ...changes) + 0.3];
    const y = (change) => 12 + ((high - bend(change)) / (high - low)) * (height - 62);
    for (const ratio of [1, 2, 4, 8, 16, 32, 64])
      if (Math.log2(ratio) >= left && Math.log2(ratio) <= right) {
        chart.append(svg("line", { x1: x(ratio), x2: x(ratio), y1: 12, y2: height - 50, class: "front-grid" }));
        chart.append(svg("text", { x: x(ratio), y: height - 32, "text-anchor": "middle" }, String(ratio)));
      }
    for (const change of [30, 10, 3, 1, 0, -1, -3, -10, -30, -60])
      if (bend(change / 100) >= low && bend(change / 100) <= high) {
        chart.append(svg("line", { x1: 52, x2: width - 14, y1: y(change / 100), y2: y(change / 100), class: change === -1 ? "front-budget" : "front-grid" }));
        chart.append(svg("text", { x: 46, y: y(change / 100) + 4, "text-anchor": "end" }, String(change).replace("-", "\u2212")));
      }
    chart.append(svg("text", { x: 52 + (width - 66) / 2, y: height - 10, "text-anchor": "middle" }, "times smaller"));
    chart.append(svg("text", { x: 12, y: 12 + (height - 62) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${12 + (height - 62) / 2})` }, "change of NDCG@10 [%]"));

    points.forEach((point, place) => {
      const [color, kind] = look(point.technique);
      const mark = svg("path", {
        d: shape(kind, x(point.ratio), y(point.change), 5.5),
        fill: { "self-contained": color, items: "transparent", "items and histories": `${color}66` }[point.account],
        stroke: color, "stroke-width": 2, role: "img", tabindex: place ? -1 : 0, "aria-label": sentence(point),
      });
      const tell = () => (said.textContent = sentence(point));
      mark.addEventListener("mouseenter", tell);
      mark.addEventListener("click", tell);
      mark.addEventListener("focus", tell);
      chart.append(mark);
    });
  };
  chart.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step || event.target.tagName !== "path") return;
    event.preventDefault();
    const marks = [...chart.querySelectorAll("path")];
    const next = marks[marks.indexOf(event.target) + step];
    if (!next) return;
    event.target.setAttribute("tabindex", -1);
    next.setAttribute("tabindex", 0);
    next.focus();
  });

  root.hidden = false;
  root.addEventListener("change", draw);
  addEventListener("resize", draw);
  draw();
});
