// Loss against size, with the law that the best of each size follow, where they follow one.

const SIZES = { parameters: "parameters", tokens: "training tokens", compute: "training FLOP" };

function makeScaling() {
  const { curves: laws, budgets, note } = data.scaling;
  $("scaling-section").hidden = laws.length === 0;
  $("scaling-note").textContent = note;
  const byPath = new Map(runs.map((run) => [run.path, run]));
  const charts = laws.map((law) => {
    const host = el("div", { className: "chart" });
    const dots = law.points.map(([path, size, best]) => [byPath.get(path), size, best]);
    $("scaling").append(el("figure", {}, host, el("figcaption", { className: "note" }, law.text)));
    return [law, host, dots];
  });
  charts.forEach(([law, host, dots]) => scalingChart(law, host, dots));
  if (budgets.length) $("scaling").after(budgetTable(budgets));
}

function scalingChart(law, host, dots) {
  const state = { dots: [] };
  makeChart(host, {
    height: 260, label: `${data.objective.name} against ${law.variable}`,
    draw: (c, chart, back) => drawScaling(c, chart, back, law, dots, state),
    focus: (c) => focusDots(c, state),
  });
  pointAtDots(host, state, (run) => `${count(dots.find(([of]) => of === run)[1])} ${SIZES[law.variable]}`);
}

function drawScaling(c, chart, back, law, dots, state) {
  const box = { left: LEFT, right: chart.width - 16, top: 24, bottom: chart.height - 44 };
  const list = dots.filter(([run]) => run.visible);
  state.dots = [];
  if (list.length === 0) { emptyChart(c, chart, "No finished run is shown"); return; }
  const sizes = [...list.map(([, size]) => size), ...law.line.map(([size]) => size)];
  const lows = law.line.map(([, , low]) => low);
  const [low, high] = robustRange([...list.map(([run]) => run.objective), ...lows]);
  const pad = (high - low) * 0.06 || 0.1;
  const x = makeScale(Math.min(...sizes) / 1.15, Math.max(...sizes) * 1.15, box.left, box.right, true);
  const y = makeScale(low - pad, high + pad, box.bottom, box.top);
  const distinct = [...new Set(sizes)].sort((a, b) => a - b);
  if (distinct.length <= 6) Object.assign(x, { marks: distinct, text: count });
  drawAxes(back, box, x, y, { x: SIZES[law.variable] });
  clip(c, box);
  drawLaw(c, law.line, x, y);
  c.restore();
  for (const [run, size, best] of list) {
    const at = [x(size), Math.max(box.top, y(run.objective))];
    c.globalAlpha = best ? 1 : 0.45;
    dot(c, ...at, best ? 4.5 : 3, run.colour);
    state.dots.push([...at, run]);
  }
  c.globalAlpha = 1;
}

function drawLaw(c, points, x, y) {
  if (points.length === 0) return;
  c.beginPath();
  points.forEach(([size, , low], i) => c[i ? "lineTo" : "moveTo"](x(size), y(low)));
  [...points].reverse().forEach(([size, , , high]) => c.lineTo(x(size), y(high)));
  c.globalAlpha = 0.14;
  c.fillStyle = ink.accent;
  c.fill();
  c.globalAlpha = 1;
  c.strokeStyle = ink.accent;
  c.lineWidth = 1.8;
  line(c, points.map(([size, value]) => [x(size), y(value)]));
}

function budgetTable(budgets) {
  const head = ["training FLOP", "parameters", "90 % interval"].map((name) =>
    el("th", { scope: "col", className: "right" }, name));
  const rows = budgets.map(([budget, value, low, high]) => el("tr", {},
    [count(budget), count(value), `${count(low)} to ${count(high)}`].map((text) =>
      el("td", { className: "right" }, text))));
  return el("div", { className: "scroll" }, el("h3", { style: { marginTop: "16px" } },
    "The size that a fit over parameters and tokens prefers, by budget"),
  el("table", { style: { width: "auto" } }, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows)));
}
