// Parallel coordinates: every run as a line through its values.

const parallel = { axes: [], box: null, drag: null, ranges: new Map() };
const AXIS_ROOM = 96; // pixels that an axis needs at least

// An axis for each key and one for the objective, whose better end is up.
function parallelAxes(width, height) {
  const columns = [...rankedKeys().map((entry) => ({ ...entry, of: (run) => run.settings[entry.key] })),
    { key: "objective", short: data.objective.name, numeric: true, log: false,
      of: (run) => run.objective }];
  const [left, right] = [46, width - 62];
  return columns.map((column, i) => ({
    ...column, ...axisScale(column, 34, height - 18),
    x: columns.length > 1 ? left + (i / (columns.length - 1)) * (right - left) : width / 2,
  }));
}

function axisScale(column, top, bottom) {
  const values = runs.map(column.of).filter(isNumber);
  if (!column.numeric) {
    const names = [...new Set(runs.map((run) => value(column.of(run), null)))];
    const gap = names.length > 1 ? (bottom - top) / (names.length - 1) : 0;
    const at = (chosen) => (names.length > 1 ? bottom - names.indexOf(value(chosen, null)) * gap : (top + bottom) / 2);
    return { at, marks: names.map((name) => [at(name), name]) };
  }
  if (values.length === 0) return { at: () => bottom, marks: [] };
  const objective = column.key === "objective";
  const range = objective ? robustRange(values) : [Math.min(...values), Math.max(...values)];
  const none = objective ? [] : [...new Set(runs.map(column.of).filter((value) => !isNumber(value)))];
  const end = bottom - (none.length ? 30 : 0); // runs without a number pass below those with one
  const scale = makeScale(...range, ...(objective && less ? [top, end] : [end, top]), column.log);
  const unique = [...new Set(values)];
  const listed = !objective && unique.length <= 9;
  const at = (value) => (isNumber(value) ? Math.min(end, Math.max(top, scale(value))) : bottom);
  const marks = [...(listed ? unique : ticks(scale, 5)), ...none];
  const text = (mark) => (isNumber(mark) && !listed ? tick(mark) : value(mark));
  return { at, marks: marks.map((mark) => [at(mark), text(mark)]) };
}

// Whether a run passes an axis: any, but that of an objective it does not have.
const passes = (axis, run) => axis.key !== "objective" || isNumber(axis.of(run));

function drawParallel(c, chart, front) {
  parallel.axes = parallelAxes(chart.width, chart.height);
  const list = shown();
  const alpha = Math.max(0.16, Math.min(0.9, 7 / Math.sqrt(list.length)));
  c.lineWidth = 1.4;
  for (const run of [...list].reverse()) throughAxes(c, run, alpha);
  parallel.axes.forEach((axis) => drawAxis(front, axis, chart.height));
}

function throughAxes(c, run, alpha) {
  c.globalAlpha = alpha;
  c.strokeStyle = run.colour;
  const stops = parallel.axes.filter((axis) => passes(axis, run));
  line(c, stops.map((axis) => [axis.x, axis.at(axis.of(run))]));
  c.globalAlpha = 1;
}

function drawAxis(c, axis, height) {
  c.strokeStyle = ink.muted;
  c.lineWidth = 1;
  line(c, [[axis.x, 34], [axis.x, height - 18]]);
  c.textBaseline = "middle";
  c.textAlign = "left";
  c.lineWidth = 3;
  c.strokeStyle = ink.surface;
  let taken = Infinity; // labels are set from the bottom up
  for (const [y, text] of [...axis.marks].sort((a, b) => b[0] - a[0])) {
    c.fillStyle = ink.muted;
    c.fillRect(axis.x - 2, y - 0.5, 5, 1);
    if (y > taken - 14) continue;
    taken = y;
    const cut = shortened(text, 14);
    c.strokeText(cut, axis.x + 6, y);
    c.fillStyle = ink.text;
    c.fillText(cut, axis.x + 6, y);
  }
  c.textAlign = "center";
  c.fillStyle = ink.text;
  const name = axis.key === "objective" ? `${axis.short} ↑ better` : axis.short;
  c.fillText(name, axis.x, 14);
  const brush = parallel.ranges.get(axis.key);
  if (!brush) return;
  c.globalAlpha = 0.25;
  c.fillStyle = ink.accent;
  c.fillRect(axis.x - 9, brush[0], 18, brush[1] - brush[0]);
  c.globalAlpha = 1;
}

function focusParallel(c) {
  for (const run of inFocus().filter((found) => found.visible)) {
    const colour = run.colour;
    c.lineWidth = 6;
    run.colour = ink.surface;
    throughAxes(c, run, 1);
    c.lineWidth = 2.6;
    run.colour = colour;
    throughAxes(c, run, 1);
    parallel.axes.filter((axis) => passes(axis, run))
      .forEach((axis) => dot(c, axis.x, axis.at(axis.of(run)), 4, run.colour));
  }
}

function runNear(px, py) {
  const right = parallel.axes.findIndex((axis) => axis.x >= px);
  if (right < 1) return null;
  const [a, b] = [parallel.axes[right - 1], parallel.axes[right]];
  const share = (px - a.x) / (b.x - a.x);
  let [found, least] = [null, 10];
  for (const run of shown()) {
    if (!passes(a, run) || !passes(b, run)) continue;
    const [from, to] = [a.at(a.of(run)), b.at(b.of(run))];
    const distance = Math.abs(from + share * (to - from) - py);
    if (distance < least) [found, least] = [run, distance];
  }
  return found;
}

function brush(axis, from, to) {
  const [top, bottom] = [Math.min(from, to), Math.max(from, to)];
  if (bottom - top < 5) {
    parallel.ranges.delete(axis.key);
    view.brushes.delete(axis.key);
  } else {
    parallel.ranges.set(axis.key, [top, bottom]);
    view.brushes.set(axis.key, (run) => {
      const at = axis.at(axis.of(run));
      return passes(axis, run) && at >= top && at <= bottom;
    });
  }
  settled();
}

function makeParallel() {
  const host = $("parallel");
  host.style.minWidth = `${(data.keys.length + 1) * AXIS_ROOM}px`;
  makeChart(host, { height: 340, draw: drawParallel, focus: focusParallel, axesOnTop: true,
    label: "Parallel coordinates; the filter above does the same as dragging along an axis" });
  host.addEventListener("pointerdown", (event) => {
    const [px, py] = place(event, host);
    const axis = parallel.axes.find(({ x }) => Math.abs(x - px) < 16);
    if (!axis || event.button !== 0) return;
    parallel.drag = { axis, from: py };
    host.setPointerCapture(event.pointerId);
  });
  host.addEventListener("pointermove", (event) => {
    const [px, py] = place(event, host);
    if (parallel.drag) { brush(parallel.drag.axis, parallel.drag.from, py); return; }
    const onAxis = parallel.axes.some(({ x }) => Math.abs(x - px) < 16);
    host.style.cursor = onAxis ? "ns-resize" : "default";
    const run = onAxis ? null : runNear(px, py);
    hover(run);
    if (run) runTip(event, run);
    else hideTip();
  });
  host.addEventListener("pointerup", (event) => {
    const [px, py] = place(event, host);
    const { drag } = parallel;
    parallel.drag = null;
    if (drag) brush(drag.axis, drag.from, py);
    else if (runNear(px, py)) select(runNear(px, py));
  });
  host.addEventListener("pointerleave", () => { hover(null); hideTip(); });
}
