// Train and validation curves of all runs, overlaid.

const AXIS_NAMES = { step: "optimizer steps", tokens: data.unit, time: "seconds" };
const curves = { chart: null, box: null, x: null, y: null };

// "loss" stands for train/loss and val/loss together, as do other names that both have.
function metricChoices() {
  const names = new Set(runs.flatMap((run) => Object.keys(run.curves))
    .filter((name) => !name.endsWith("_samples")));
  const both = [...names].filter((name) => name.startsWith("train/"))
    .map((name) => name.slice(6)).filter((name) => names.has(`val/${name}`));
  const joint = both.map((name) => ({ name: `${name}, training and validation`,
    metrics: [`train/${name}`, `val/${name}`] }));
  const order = (name) => (name.startsWith("val/") ? 0 : name.startsWith("train/") ? 1 : 2);
  const single = [...names].sort((a, b) => order(a) - order(b) || a.localeCompare(b))
    .map((name) => ({ name, metrics: [name] }));
  return [...joint, ...single];
}

const metricsShown = () => view.metric?.metrics ?? [];
const isTraining = (metric) => metric.startsWith("train/") && metricsShown().length > 1;

// Tokens or seconds at a step, between the rows that the report holds of them.
function atStep(run, axis, step, from = { at: 0 }) {
  if (axis === "step") return step;
  const column = axis === "tokens" ? 1 : 2;
  const clock = run.clock;
  let i = from.at;
  while (i < clock.length - 2 && clock[i + 1][0] < step) i += 1;
  from.at = i;
  const [a, b] = [clock[i], clock[Math.min(i + 1, clock.length - 1)]];
  if (b[0] === a[0]) return b[column];
  return a[column] + ((step - a[0]) / (b[0] - a[0])) * (b[column] - a[column]);
}

// A run's points of a metric as [xs, ys], as they are drawn.
function points(run, metric) {
  if (!run.curves[metric]) return null;
  const name = `${metric} ${view.axis} ${view.smooth}`;
  run.drawn ??= new Map();
  if (!run.drawn.has(name)) {
    if (run.drawn.size > 24) run.drawn.clear();
    const [steps, values] = run.curves[metric];
    const from = { at: 0 };
    const xs = steps.map((step) => atStep(run, view.axis, step, from));
    run.drawn.set(name, [xs, smoothed(steps, values, view.smooth)]);
  }
  return run.drawn.get(name);
}

// An exponential mean over steps, its start unbiased; `strength` 100 halves in a tenth of the run.
function smoothed(steps, values, strength) {
  if (strength === 0) return values;
  const span = steps[steps.length - 1] - steps[0] || 1;
  const half = (strength / 100) ** 2 * 0.1 * span;
  let [sum, weight, before] = [0, 0, steps[0]];
  return values.map((value, i) => {
    if (value === null) { [sum, weight] = [0, 0]; return null; }
    const keep = 0.5 ** ((steps[i] - before) / half);
    before = steps[i];
    sum = sum * keep + value;
    weight = weight * keep + 1;
    return sum / weight;
  });
}

function curveRanges(list) {
  const [xs, ys] = [[], []];
  const [from, to] = view.zoom ?? [-Infinity, Infinity];
  for (const run of list) {
    for (const metric of metricsShown()) {
      const found = points(run, metric);
      found?.[0].forEach((x, i) => {
        if (view.logx && x <= 0) return;
        xs.push(x);
        const y = found[1][i];
        if (y !== null && x >= from && x <= to && !(view.logy && y <= 0)) ys.push(y);
      });
    }
  }
  const extent = xs.reduce(([a, b], x) => [Math.min(a, x), Math.max(b, x)], [Infinity, -Infinity]);
  return { x: view.zoom ?? extent, y: robustRange(ys), highest: ys.reduce((a, b) => Math.max(a, b), -Infinity) };
}

function drawCurves(c, chart, back) {
  const list = shown().filter((run) => metricsShown().some((metric) => run.curves[metric]));
  curves.box = { left: LEFT, right: chart.width - 20, top: 26, bottom: chart.height - 44 };
  const range = curveRanges(list);
  curves.x = null;
  if (!range.y) return emptyChart(c, chart, runs.length ? "No run that is shown has recorded this yet." : noRuns());
  const { box } = curves;
  const pad = view.logy ? 0 : (range.y[1] - range.y[0]) * 0.04;
  curves.x = makeScale(...(view.zoom || view.logx ? range.x : [Math.min(0, range.x[0]), range.x[1]]), box.left, box.right, view.logx);
  curves.y = makeScale(range.y[0] - pad, range.y[1] + pad, box.bottom, box.top, view.logy);
  drawAxes(back, box, curves.x, curves.y, { x: AXIS_NAMES[view.axis], y: view.metric.name });
  clip(c, box);
  const alpha = Math.max(0.28, Math.min(1, 9 / Math.sqrt(list.length)));
  // The best are drawn last, and so lie on top.
  for (const run of [...list].reverse()) drawRun(c, run, alpha, 1.5);
  c.restore();
  curvesNote(range.highest > curves.y.high);
  return undefined;
}

function drawRun(c, run, alpha, width) {
  for (const metric of metricsShown()) {
    const found = points(run, metric);
    if (!found) continue;
    const training = isTraining(metric);
    c.globalAlpha = training ? alpha * 0.5 : alpha;
    c.lineWidth = training ? Math.max(1, width * 0.6) : width;
    c.strokeStyle = run.colour;
    strokeCurve(c, found);
    if (!training && found[0].length < 2) found[0].forEach((x, i) =>
      found[1][i] === null || dot(c, curves.x(x), curves.y(found[1][i]), 3, run.colour));
  }
  c.globalAlpha = 1;
}

function strokeCurve(c, [xs, ys]) {
  const { x: px, y: py } = curves;
  let pen = false;
  c.beginPath();
  for (let i = 0; i < xs.length; i += 1) {
    if (ys[i] === null || (view.logx && xs[i] <= 0) || (view.logy && ys[i] <= 0)) { pen = false; continue; }
    if (pen) c.lineTo(px(xs[i]), py(ys[i]));
    else c.moveTo(px(xs[i]), py(ys[i]));
    pen = true;
  }
  c.stroke();
}

function emptyChart(c, chart, text) {
  c.fillStyle = ink.muted;
  c.textAlign = "center";
  c.fillText(text, chart.width / 2, chart.height / 2);
}

function curvesNote(clipped) {
  const kept = shown().flatMap((run) => metricsShown().map((metric) => run.curves[metric]))
    .filter((curve) => curve && curve[0].length < curve[2]);
  const notes = [];
  if (metricsShown().length > 1) notes.push("Thin lines: training; thicker ones: validation.");
  if (clipped) notes.push("Some curves leave the chart at the top; a log value shows them whole.");
  if (kept.length) {
    const most = Math.max(...kept.map((curve) => curve[2]));
    notes.push(`Of up to ${count(most)} points a curve, those that keep its shape are `
      + `drawn (at most ${count(Math.max(...kept.map((curve) => curve[0].length)))}).`);
  }
  notes.push("Drag across the chart to zoom; click a curve for its run.");
  $("curves-note").textContent = notes.join(" ");
}
