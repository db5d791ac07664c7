// Canvases on top of each other: axes, all runs, and the runs that stand out.

const FONT = '12px ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';

// Pixels beside the vertical axis, for its numbers: room for `0.000125`.
const LEFT = 64;

function makeChart(host, { height, label, draw, focus, axesOnTop = false }) {
  const [axes, base, front] = ["axes", "base", "front"].map((name) => el("canvas", { className: name }));
  const layers = axesOnTop ? [base, axes, front] : [axes, base, front];
  layers.forEach((layer) => layer.setAttribute("aria-hidden", "true"));
  base.removeAttribute("aria-hidden");
  base.setAttribute("role", "img");
  base.setAttribute("aria-label", label);
  host.replaceChildren(...layers);
  host.style.height = `${height}px`;
  const chart = { host, width: 0, height };
  const context = (layer) => {
    const sharp = Math.min(window.devicePixelRatio || 1, 2);
    layer.width = chart.width * sharp;
    layer.height = chart.height * sharp;
    const c = layer.getContext("2d");
    c.scale(sharp, sharp);
    c.font = FONT;
    c.lineJoin = "round";
    return c;
  };
  chart.refocus = () => {
    if (!chart.width) return;
    host.classList.toggle("focused", inFocus().length > 0);
    focus(context(front), chart);
  };
  chart.redraw = () => {
    chart.width = Math.round(host.clientWidth);
    chart.height = Math.round(host.clientHeight);
    if (!chart.width) return;
    draw(context(base), chart, context(axes));
    chart.refocus();
  };
  new ResizeObserver(() => {
    if (Math.round(host.clientWidth) !== chart.width) chart.redraw();
  }).observe(host);
  on("data", chart.redraw);
  on("focus", chart.refocus);
  return chart;
}

function place(event, host) {
  const box = host.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

// Where values lie: `scale(value)` gives pixels, `scale.back(pixels)` a value.
function makeScale(low, high, from, to, log = false) {
  const f = log ? Math.log10 : (value) => value;
  if (!(high > low)) [low, high] = log ? [low / 2, low * 2] : [low - 0.5, low + 0.5];
  const [a, b] = [f(low), f(high)];
  const scale = (value) => from + ((f(value) - a) / (b - a)) * (to - from);
  scale.back = (pixel) => {
    const inner = a + ((pixel - from) / (to - from)) * (b - a);
    return log ? 10 ** inner : inner;
  };
  return Object.assign(scale, { low, high, from, to, log });
}

function ticks(scale, count) {
  return scale.log ? logTicks(scale, count) : linearTicks(scale.low, scale.high, count);
}

function linearTicks(low, high, count) {
  const rough = (high - low) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((size) => size >= rough);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) {
    found.push(Number((i * step).toPrecision(12)));
  }
  return found;
}

function logTicks({ low, high }, count) {
  const decades = Math.log10(high / low);
  if (decades < 0.7) return linearTicks(low, high, count);
  const marks = decades >= count ? [1] : decades > count / 2 ? [1, 3] : [1, 2, 5];
  const every = Math.max(1, Math.ceil(decades / Math.max(count * 1.6, 1)));
  const found = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e += every) {
    marks.forEach((mark) => found.push(mark * 10 ** e));
  }
  return found.filter((value) => value >= low * 0.999 && value <= high * 1.001);
}

function drawAxes(c, box, x, y, names) {
  c.lineWidth = 1;
  c.fillStyle = ink.muted;
  c.strokeStyle = ink.grid;
  c.textBaseline = "middle";
  c.textAlign = "right";
  for (const value of ticks(y, Math.max(5, (box.bottom - box.top) / 55))) {
    const at = Math.round(y(value)) + 0.5;
    line(c, [[box.left, at], [box.right, at]]);
    c.fillText(tick(value), box.left - 8, at);
  }
  c.textBaseline = "top";
  c.textAlign = "center";
  let taken = -Infinity; // to where labels stand already
  for (const value of x.marks ?? ticks(x, Math.max(2, (box.right - box.left) / 90))) {
    const text = x.text ? x.text(value) : tick(value);
    const half = c.measureText(text).width / 2;
    if (x(value) - half < taken + 6) continue;
    c.fillText(text, x(value), box.bottom + 8);
    taken = x(value) + half;
  }
  c.strokeStyle = ink.line;
  line(c, [[box.left, box.bottom + 0.5], [box.right, box.bottom + 0.5]]);
  if (names.x) {
    c.fillText(names.x, (box.left + box.right) / 2, box.bottom + 26);
  }
  c.textAlign = "left";
  c.textBaseline = "alphabetic";
  if (names.y) c.fillText(names.y, 0, box.top - 10);
}

function line(c, points) {
  c.beginPath();
  points.forEach(([x, y], i) => (i ? c.lineTo(x, y) : c.moveTo(x, y)));
  c.stroke();
}

function dot(c, x, y, radius, colour) {
  c.beginPath();
  c.arc(x, y, radius, 0, 2 * Math.PI);
  c.fillStyle = colour;
  c.fill();
}

function clip(c, box) {
  c.save();
  c.beginPath();
  c.rect(box.left, box.top - 2, box.right - box.left, box.bottom - box.top + 4);
  c.clip();
}

// From the least value to where the rest is far out: a run that diverged flattens no other.
function robustRange(values) {
  if (values.length === 0) return null;
  const ordered = Float64Array.from(values).sort();
  const [low, high] = [ordered[0], ordered[ordered.length - 1]];
  const [bulk, top] = [quantile(ordered, 0.02), quantile(ordered, 0.98)];
  const width = top - bulk || high - low || Math.abs(high) || 1;
  return [Math.max(low, bulk - width), Math.min(high, top + 0.6 * width)];
}

function showTip(event, ...lines) {
  const tip = fill($("tip"), lines);
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const right = event.clientX + 16 + width < window.innerWidth;
  tip.style.left = `${Math.max(4, right ? event.clientX + 16 : event.clientX - width - 12)}px`;
  tip.style.top = `${Math.max(4, Math.min(event.clientY + 14, window.innerHeight - height - 4))}px`;
}

const hideTip = () => { $("tip").hidden = true; };

function runTip(event, run, ...rows) {
  const objective = `${data.objective.name} ${told(data.objective.name, run.objective)}`;
  showTip(event, el("b", {}, run.label), el("div", {}, objective),
    rows.map((row) => el("div", { className: "muted" }, row)));
}
