// The layer table: sorted by its headings, filtered by text, type, level and precision.
const table = document.getElementById("table-layers");
const body = table.tBodies[0];
const rows = [...body.rows];
const heads = [...table.tHead.rows[0].cells];

const count = node("span", { class: "count", role: "status" });
const search = node("input", { type: "search", placeholder: "name, type or reason" });
const filters = { role: "type", level: "level", precision: "precision" };
const selects = Object.fromEntries(Object.entries(filters).map(([name, title]) => {
  const values = [...new Set(layers.map((layer) => layer[name] ?? "none"))];
  const select = node("select", { "aria-label": `Show ${title}` }, new Option("all", ""));
  values.forEach((value) => select.append(new Option(value, value)));
  return [name, select];
}));
const reset = node("button", { type: "button" }, "Show all");
table.parentElement.before(node("div", { class: "controls" },
  node("label", {}, "Search", search),
  ...Object.entries(filters).map(([name, title]) => node("label", {}, title, selects[name])),
  reset, layersButton(), count));

function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  rows.forEach((row, i) => {
    const layer = layers[i];
    const text = `${layer.name} ${layer.role} ${layer.reason}`.toLowerCase();
    const fits = words.every((word) => text.includes(word)) &&
      Object.entries(selects).every(([name, s]) => !s.value || s.value === (layer[name] ?? "none"));
    row.hidden = !fits;
    shown += fits;
  });
  count.textContent = `${shown} of ${rows.length} layers`;
}
search.addEventListener("input", filter);
Object.values(selects).forEach((select) => select.addEventListener("change", filter));
reset.addEventListener("click", () => {
  search.value = "";
  Object.values(selects).forEach((select) => { select.value = ""; });
  filter();
});

// Cells are text for people; columns of numbers and of levels have an order of their own.
const LEVEL = { LOW: 0, MEDIUM: 1, HIGH: 2 };
function key(row, column) {
  const text = row.cells[column].textContent;
  if (heads[column].classList.contains("cell-number")) return Number(text.replaceAll(",", ""));
  return text in LEVEL ? LEVEL[text] : text;
}
const compare = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
function sort(column) {
  const rising = heads[column].getAttribute("aria-sort") !== "ascending";
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", rising ? "ascending" : "descending");
  const keyed = rows.map((row, i) => [key(row, column), i]);
  keyed.sort((a, b) => (rising ? 1 : -1) * compare(a[0], b[0]) || a[1] - b[1]);
  body.append(...keyed.map(([, i]) => rows[i]));
}
heads.forEach((head, column) => {
  const button = node("button", { type: "button" }, head.textContent);
  button.addEventListener("click", () => sort(column));
  head.replaceChildren(button);
});

rows.forEach((row, i) => row.addEventListener("click", () => {
  if (!getSelection().toString()) choose(i, "table");
}));
listeners.push((i) => rows.forEach((row, j) => row.classList.toggle("chosen", i === j)));
function showRow(i) {
  if (rows[i].hidden) reset.click();
  rows[i].scrollIntoView({ block: "center" });
  rows[i].tabIndex = -1;
  rows[i].focus({ preventScroll: true });
}
filter();
