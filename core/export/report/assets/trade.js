// Loss against size or latency: the named strategies, with this map marked.
function trade(figure) {
  const AXES = {
    size_bytes: { title: "size, MB (exact)", scale: 1e-6, cost: "size" },
    latency_ms: { title: "latency per sample, ms (estimated)", scale: 1, cost: "latency" },
  };
  const [loss, moved] = data.judged;
  for (const one of data.judged) AXES[one.name] = { title: `${one.title}, ${one.unit} (projected)`, scale: 1 };
  let across = "size_bytes";
  let up = loss.name;
  const all = data.strategies;
  const own = all.find((s) => s.own).name;
  figure.append(node("div", { class: "controls" },
    radios("Across", "trade-x", [["size_bytes", "size"], ["latency_ms", "latency"]],
      (value) => { across = value; chart.redraw(); }),
    radios("Up", "trade-y", data.judged.map((one) => [one.name, one.title]),
      (value) => { up = value; chart.redraw(); })));
  const PAD = { left: 62, right: 16, top: 22, bottom: 44 };

  function range(name, shown) {
    const values = shown.flatMap((s) => [s[name].value, s[name].low, s[name].high])
      .filter((v) => v !== null).map((v) => v * AXES[name].scale);
    let [low, high] = [Math.min(...values, 0), Math.max(...values)];
    if (high <= low) high = low + 1;
    const room = (high - low) * 0.07;
    return [low < 0 ? low - room : low, high + room];
  }

  function label(svg, taken, x, y, text, width) {
    const wide = text.length * 6.6 + 4;
    const tries = [];
    for (const far of [12, 26, 40, 56, 74, 92, 112]) {
      tries.push([far, 4], [-far - wide, 4], [-wide / 2, -far], [-wide / 2, far + 6],
        [10, -far], [10, far + 6], [-wide - 10, -far], [-wide - 10, far + 6]);
    }
    const inside = (b) => b.x >= PAD.left && b.x + b.w <= width - 4 && b.y >= 2;
    const clear = (b) => !taken.some((o) => b.x < o.x + o.w && o.x < b.x + b.w && b.y < o.y + o.h && o.y < b.y + b.h);
    const box = ([dx, dy]) => ({ x: x + dx, y: y + dy - 11, w: wide, h: 14 });
    const found = tries.find((t) => inside(box(t)) && clear(box(t)));
    if (!found) return;
    const b = box(found);
    taken.push(b);
    const nearest = [Math.min(Math.max(x, b.x), b.x + b.w), Math.min(Math.max(y, b.y), b.y + b.h)];
    if (Math.hypot(nearest[0] - x, nearest[1] - y) > 16) {
      draw(svg, "line", { class: "leader", x1: x, y1: y, x2: nearest[0], y2: nearest[1] });
    }
    draw(svg, "text", { class: text === own ? "strong" : "name", x: b.x + 2, y: b.y + 11 }, text);
  }

  const chart = responsive(figure, (width) => (width < 500 ? 320 : 380), (svg, width, height) => {
    const shown = all.filter((s) => s[across].value !== null && s[up].value !== null);
    if (!shown.length) {
      draw(svg, "text", { x: width / 2, y: height / 2, "text-anchor": "middle" },
        "n/a: nothing is measured, or outputs overflow");
      return;
    }
    const [x0, x1] = range(across, shown);
    const [y0, y1] = range(up, shown);
    const x = (s) => PAD.left + ((s - x0) / (x1 - x0)) * (width - PAD.left - PAD.right);
    const y = (s) => height - PAD.bottom - ((s - y0) / (y1 - y0)) * (height - PAD.top - PAD.bottom);
    const vertical = ticks(y0, y1, 5);
    for (const value of vertical.values) {
      draw(svg, "line", { class: value === 0 ? "axis" : "grid", x1: PAD.left, x2: width - PAD.right, y1: y(value), y2: y(value) });
      const text = up === moved.name && value ? value.toExponential(1) : value.toFixed(vertical.digits);
      draw(svg, "text", { x: PAD.left - 8, y: y(value) + 4, "text-anchor": "end" }, text);
    }
    const horizontal = ticks(x0, x1, Math.max(3, Math.floor(width / 140)));
    for (const value of horizontal.values) {
      draw(svg, "line", { class: "grid", x1: x(value), x2: x(value), y1: PAD.top, y2: height - PAD.bottom });
      draw(svg, "text", { x: x(value), y: height - PAD.bottom + 16, "text-anchor": "middle" }, value.toFixed(horizontal.digits));
    }
    draw(svg, "text", { x: PAD.left + (width - PAD.left - PAD.right) / 2, y: height - 6, "text-anchor": "middle" }, AXES[across].title);
    draw(svg, "text", { x: 4, y: 10 }, AXES[up].title);
    const at = (s) => [x(s[across].value * AXES[across].scale), y(s[up].value * AXES[up].scale)];
    const taken = shown.map((s) => ({ x: at(s)[0] - 8, y: at(s)[1] - 8, w: 16, h: 16 }));
    // This map last, so that it lies on top of a strategy with the same figures.
    for (const s of [...shown].sort((a, b) => a.own - b.own)) {
      const [px, py] = at(s);
      const dim = s.beaten[AXES[across].cost].length > 0 && !s.own;
      const group = draw(svg, "g", { class: dim ? "dim" : "", "data-strategy": s.name });
      const whisker = (name, near) => {
        const { low, high } = s[name];
        return low === null || high === null || low === high ? null : [low, high].map((v) => near(v * AXES[name].scale));
      };
      const tall = whisker(up, y);
      const wide = whisker(across, x);
      if (tall) draw(group, "line", { class: "range", x1: px, x2: px, y1: tall[0], y2: tall[1] });
      if (wide) draw(group, "line", { class: "range", x1: wide[0], x2: wide[1], y1: py, y2: py });
      if (s.own) draw(group, "circle", { class: "halo", cx: px, cy: py, r: 10 });
      marker(group, s.own ? "diamond" : "circle", px, py, s.own ? 6 : 5, { class: s.own ? "point own" : "point" });
      const beaten = s.beaten[AXES[across].cost];
      const text = `${s.name}\n${s.size_bytes.text}\n${s.latency_ms.text}\n${loss.title} ${s[loss.name].text}\n` +
        `${moved.title} ${s[moved.name].text}${beaten.length ? `\nbeaten by ${beaten.join(", ")}` : ""}`;
      const hit = draw(group, "circle", { class: "hit", cx: px, cy: py, r: 14 });
      hit.addEventListener("pointermove", (event) => showTip(text, event.clientX, event.clientY));
      hit.addEventListener("pointerleave", hideTip);
      hit.addEventListener("click", (event) => showTip(text, event.clientX, event.clientY));
    }
    for (const s of [...shown].sort((a, b) => b.own - a.own)) label(svg, taken, ...at(s), s.name, width);
  });
  chart.svg.setAttribute("role", "img");
  chart.svg.setAttribute("aria-label", `${figure.dataset.title}. ${figure.dataset.takeaway}`);
  const note = "Bars are ranges; faint strategies are beaten in loss and in what is shown across. Lower left is better.";
  const names = ["size_bytes", "latency_ms", loss.name, moved.name];
  figure.append(node("p", {}, note), node("div", { class: "actions" }, csvButton(
    "Download data (CSV)", "strategies.csv",
    ["strategy", ...names.flatMap((n) => [n, `${n}_low`, `${n}_high`, `${n}_kind`]), "beaten_in_loss_and_size_by", "beaten_in_loss_and_latency_by"],
    () => all.map((s) => [s.name, ...names.flatMap((n) => [s[n].value, s[n].low, s[n].high, s[n].kind]),
      s.beaten.size.join("; "), s.beaten.latency.join("; ")]))));
}
trade(document.getElementById("figure-trade"));
