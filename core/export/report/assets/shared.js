// What all figures share: the data, SVG, tooltips, the chosen layer, CSV.
const data = JSON.parse(document.getElementById("data").textContent);
const field = Object.fromEntries(data.layer_fields.map((name, i) => [name, i]));
const layers = data.layers.map((row) =>
  Object.fromEntries(data.layer_fields.map((name, i) => [name, row[i]])));
// Colours follow from the name: the page's styles have a rule for each precision.
const look = (precision) => (precision === null ? { class: "p-none" }
  : { class: "p-given", "data-precision": precision });
const SVG = "http:" + "//www.w3.org/2000/svg"; // a name, not an address: nothing is loaded

function node(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function draw(parent, tag, attributes = {}, text = null) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== null) made.textContent = text;
  parent.append(made);
  return made;
}

// An SVG that is drawn again whenever the width it has changes.
function responsive(figure, height, paint) {
  const svg = document.createElementNS(SVG, "svg");
  figure.append(svg);
  let drawn = 0;
  const redraw = (force) => {
    const style = getComputedStyle(figure);
    const inner = figure.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    const width = Math.max(200, Math.floor(inner));
    if (!force && width === drawn) return;
    drawn = width;
    const tall = typeof height === "function" ? height(width) : height;
    svg.setAttribute("viewBox", `0 0 ${width} ${tall}`);
    svg.setAttribute("height", tall);
    svg.replaceChildren();
    paint(svg, width, tall);
  };
  new ResizeObserver(() => redraw(false)).observe(figure);
  redraw(true);
  return { svg, redraw: () => redraw(true) };
}

const tip = document.getElementById("tip");
function showTip(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const left = Math.min(Math.max(8, x + 14), innerWidth - box.width - 8);
  const top = y + 18 + box.height > innerHeight ? y - box.height - 12 : y + 18;
  tip.style.left = `${left}px`;
  tip.style.top = `${Math.max(4, top)}px`;
}
const hideTip = () => { tip.hidden = true; };
addEventListener("scroll", hideTip, { passive: true });
addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });

function describe(i) {
  const layer = layers[i];
  const precision = layer.precision === null ? "no precision" : layer.precision;
  const size = `${(layer.size_bytes / 1e3).toFixed(3)} kB exact`;
  return `${layer.role}, ${precision}\nscore ${layer.score.toFixed(3)} ${data.score_kind}, ` +
    `${layer.level}\n${size}, ${Number(layer.latency_ms.toPrecision(3))} ms estimated`;
}

// One layer is chosen at a time; strip, chart and table follow it.
const listeners = [];
let chosen = null;
function choose(i, from) {
  chosen = i;
  for (const listener of listeners) listener(i, from);
}

function marker(parent, shape, x, y, radius, attributes) {
  const corners = data.outlines[shape];
  if (!corners.length) return draw(parent, "circle", { cx: x, cy: y, r: radius, ...attributes });
  const path = corners.map(([dx, dy]) => `${x + dx * radius},${y + dy * radius}`).join(" ");
  return draw(parent, "polygon", { points: path, ...attributes });
}
const shapeOf = Object.fromEntries(data.precisions.map((p) => [p.name, p.marker]));
const shortOf = Object.fromEntries(data.precisions.map((p) => [p.name, p.short]));

// Round steps for an axis over [low, high].
function ticks(low, high, wanted) {
  const span = high - low || 1;
  const raw = span / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) {
    found.push(i * step);
  }
  return { values: found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

function csv(name, head, rows) {
  const cell = (value) => {
    if (value === null || value === undefined) return "";
    let text = String(value);
    // A spreadsheet would run such text as a formula.
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const text = [head, ...rows].map((row) => row.map(cell).join(",")).join("\n") + "\n";
  const address = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
  node("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

function csvButton(label, name, head, rows) {
  const button = node("button", { type: "button" }, label);
  button.addEventListener("click", () => csv(name, head, rows()));
  return button;
}
const layersButton = () => csvButton("Download data (CSV)", "layers.csv",
  data.layer_fields, () => data.layers);

function radios(title, name, options, change) {
  const set = node("fieldset", {}, node("legend", {}, title));
  options.forEach(([value, label], i) => {
    const input = node("input", { type: "radio", name, value });
    input.checked = i === 0;
    input.addEventListener("change", () => change(value));
    set.append(node("label", {}, input, label));
  });
  return set;
}
