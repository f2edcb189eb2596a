// Score of each layer against the thresholds, shaped and coloured by its precision.
function scores(figure) {
  const { high, medium } = data.thresholds;
  let order = layers.map((_, i) => i);
  let marks = [];
  figure.append(node("div", { class: "controls" }, radios("Order", "score-order",
    [["run", "as executed"], ["score", "by score"]],
    (value) => {
      order = layers.map((_, i) => i);
      if (value === "score") order.sort((a, b) => layers[b].score - layers[a].score || a - b);
      chart.redraw();
    })));
  const PAD = { left: 40, right: 106, top: 28, bottom: 34 };
  let place = () => [0, 0];
  const chart = responsive(figure, (width) => (width < 500 ? 240 : 300), (svg, width, height) => {
    const inner = width - PAD.left - PAD.right;
    const y = (score) => PAD.top + (1 - score) * (height - PAD.top - PAD.bottom);
    place = (rank) => PAD.left + ((rank + 0.5) / Math.max(order.length, 1)) * inner;
    for (const value of [0, 0.25, 0.5, 0.75, 1]) {
      draw(svg, "line", { class: "grid", x1: PAD.left, x2: width - PAD.right, y1: y(value), y2: y(value) });
      draw(svg, "text", { x: PAD.left - 8, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(2));
    }
    const radius = Math.max(2.2, Math.min(5, inner / Math.max(order.length, 1) / 2.2));
    marks = [];
    order.forEach((i, rank) => {
      const layer = layers[i];
      const drawn = marker(svg, layer.precision === null ? "diamond" : shapeOf[layer.precision],
        place(rank), y(layer.score), radius, look(layer.precision));
      if (radius < 3) drawn.classList.add("thin");
      marks[i] = drawn;
    });
    const lines = high === medium ? [[high, "HIGH"]] : [[high, "HIGH"], [medium, "MEDIUM"]];
    // Beside the plot, one above its line and one below, so that they cover neither points nor
    // each other.
    lines.forEach(([value, label], below) => {
      draw(svg, "line", { class: "threshold", x1: PAD.left, x2: width - PAD.right, y1: y(value), y2: y(value) });
      const count = layers.filter((layer) => layer.score >= value).length;
      const x = width - PAD.right + 6;
      const top = y(value) + (below ? 14 : -18);
      draw(svg, "text", { class: "strong", x, y: top }, `${label} ≥ ${Number(value.toPrecision(3))}`);
      draw(svg, "text", { x, y: top + 13 }, `${count} ${count === 1 ? "layer" : "layers"}`);
    });
    draw(svg, "text", { x: PAD.left + inner / 2, y: height - 8, "text-anchor": "middle" },
      figure.querySelector('input[value="score"]').checked ? "layers, most sensitive first" : "layers in execution order");
    draw(svg, "text", { x: 4, y: 10 }, `score (${data.score_kind})`);
    if (chosen !== null && marks[chosen]) marks[chosen].classList.add("selected");
  });
  const { svg } = chart;
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${figure.dataset.title}. ${figure.dataset.takeaway}`);
  const at = (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    const inner = svg.viewBox.baseVal.width - PAD.left - PAD.right;
    const rank = Math.floor(((x - PAD.left) / inner) * order.length);
    return order[Math.min(Math.max(rank, 0), order.length - 1)];
  };
  if (layers.length) {
    svg.addEventListener("pointermove", (event) => {
      const i = at(event);
      showTip(`${layers[i].name}\n${describe(i)}`, event.clientX, event.clientY);
    });
    svg.addEventListener("pointerleave", hideTip);
    svg.addEventListener("click", (event) => choose(at(event), "scores"));
  }
  listeners.push((i) => marks.forEach((mark, j) => mark.classList.toggle("selected", i === j)));
  figure.append(node("div", { class: "actions" }, layersButton()));
}
scores(document.getElementById("figure-scores"));
