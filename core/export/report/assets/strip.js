// The layer strip: every layer in execution order, coloured by its precision.
function strip(figure) {
  const HEIGHT = 76;
  const FOOT = 12; // room for the pointer at the chosen layer
  let mode = "equal";
  const weight = { equal: () => 1, size: (l) => l.size_bytes, macs: (l) => l.macs };
  const counts = new Map();
  for (const layer of layers) counts.set(layer.precision, (counts.get(layer.precision) || 0) + 1);
  const legend = node("ul", { class: "legend" });
  for (const precision of [...data.precisions.map((p) => p.name), null]) {
    if (!counts.has(precision)) continue;
    const name = precision === null ? "none" : precision;
    legend.append(node("li", {}, node("span",
      { class: "precision", "data-precision": name }, `${name}: ${counts.get(precision)}`)));
  }
  const controls = node("div", { class: "controls" }, radios("Width shows", "strip-width",
    [["equal", "one layer each"], ["size", "bytes"], ["macs", "multiply-accumulates"]],
    (value) => { mode = value; chart.redraw(); }));
  figure.append(controls, legend);
  let rects = [];

  function widths(width) {
    const given = layers.map(weight[mode]);
    const total = given.reduce((a, b) => a + b, 0);
    const least = mode === "equal" ? 0 : Math.min(2, (width / layers.length) * 0.3);
    const rest = width - least * layers.length;
    return given.map((w) => least + (total ? (w / total) * rest : rest / layers.length));
  }

  const chart = responsive(figure, HEIGHT, (svg, width) => {
    rects = [];
    let x = 0;
    widths(width).forEach((wide, i) => {
      const layer = layers[i];
      const gap = wide > 3 ? 1.5 : 0;
      const inset = layer.precision === null ? 20 : 4;
      const rect = draw(svg, "rect", {
        ...look(layer.precision), x: x + gap / 2, y: inset, rx: wide > 6 ? 2 : 0,
        width: Math.max(wide - gap, 0.3), height: HEIGHT - FOOT - 2 * inset,
      });
      if (wide <= 3) rect.classList.add("thin");
      const label = layer.precision === null ? "" : shortOf[layer.precision];
      if (label && wide >= Math.max(14, 10 * label.length - 6)) {
        draw(svg, "text", {
          class: "on", "data-precision": layer.precision, x: x + wide / 2, y: (HEIGHT - FOOT) / 2 + 4,
          "text-anchor": "middle",
        }, label);
      }
      rects.push(rect);
      x += wide;
    });
    if (chosen !== null) mark(chosen);
  });
  const { svg } = chart;
  const ends = () => {
    let x = 0;
    return widths(svg.viewBox.baseVal.width).map((wide) => (x += wide));
  };
  const at = (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    const found = ends().findIndex((end) => x < end);
    return found < 0 ? layers.length - 1 : found;
  };
  const detail = node("p", { class: "detail", "aria-live": "polite" },
    layers.length ? "Choose a layer: click it, or use the arrow keys on the strip." : "No layers.");
  figure.append(detail, node("div", { class: "actions" }, layersButton()));
  if (!layers.length) return;
  Object.entries({
    tabindex: 0, role: "slider", "aria-label": `Layer strip. ${figure.dataset.takeaway}`,
    "aria-valuemin": 1, "aria-valuemax": layers.length, "aria-valuenow": 1,
    "aria-valuetext": "No layer chosen",
  }).forEach(([name, value]) => svg.setAttribute(name, value));
  svg.addEventListener("pointermove", (event) => {
    const i = at(event);
    showTip(`${layers[i].name}\n${describe(i)}`, event.clientX, event.clientY);
  });
  svg.addEventListener("pointerleave", hideTip);
  svg.addEventListener("click", (event) => choose(at(event), "strip"));
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
    const last = layers.length - 1;
    let next = null;
    if (step) next = chosen === null ? 0 : Math.min(Math.max(chosen + step, 0), last);
    if (event.key === "Home") next = 0;
    if (event.key === "End") next = last;
    if (next === null) return;
    event.preventDefault();
    choose(next, "strip");
  });
  function mark(i) {
    rects.forEach((rect, j) => rect.classList.toggle("selected", j === i));
    svg.querySelector(".pointer")?.remove();
    const x = Number(rects[i].getAttribute("x")) + Number(rects[i].getAttribute("width")) / 2;
    marker(svg, "triangle-up", x, HEIGHT - 5, 5, { class: "pointer" });
  }
  listeners.push((i) => {
    mark(i);
    svg.setAttribute("aria-valuenow", i + 1);
    svg.setAttribute("aria-valuetext", `${layers[i].name}: ${describe(i)}`);
    const button = node("button", { type: "button" }, "Show in the table");
    button.addEventListener("click", () => showRow(i));
    detail.replaceChildren(node("strong", {}, layers[i].name),
      ` ${describe(i).replaceAll("\n", "; ")}. ${layers[i].reason} `, button);
  });
}
strip(document.getElementById("figure-strip"));
