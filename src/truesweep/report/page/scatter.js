// The objective against each key that varies.

const NONE_ROOM = 42; // pixels for runs without a number, beside those that have one

function makeScatter() {
  const unfinished = runs.some((run) => run.objective !== null && run.state !== "completed");
  $("scatter-heading").textContent = `${data.objective.name} against each${unfinished
    ? " (rings: unfinished runs, their best so far)" : ""}`;
  const charts = rankedKeys().map((entry) => {
    const host = el("div", { className: "chart" });
    $("scatter").append(el("figure", {}, host));
    return [entry, host];
  });
  charts.forEach(([entry, host]) => scatterChart(entry, host));
}

function scatterChart(entry, host) {
  const state = { dots: [] };
  makeChart(host, {
    height: 210, label: `${data.objective.name} against ${entry.key}`,
    draw: (c, chart, back) => drawScatter(c, chart, back, entry, state),
    focus: (c) => focusDots(c, state),
  });
  pointAtDots(host, state, (run) => `${entry.short} ${value(run.settings[entry.key])}`);
}

function focusDots(c, state) {
  inFocus().forEach((run) => {
    const found = state.dots.find(([, , of]) => of === run);
    if (!found) return;
    dot(c, found[0], found[1], 8, ink.surface);
    dot(c, found[0], found[1], 5.5, run.colour);
  });
}

// Dots of runs that tell what they are when pointed at, and open when clicked.
function pointAtDots(host, state, say) {
  const nearest = (event) => {
    const [px, py] = place(event, host);
    let [found, least] = [null, 16];
    for (const [x, y, run] of state.dots) {
      const distance = Math.hypot(x - px, y - py);
      if (distance < least) [found, least] = [run, distance];
    }
    return found;
  };
  host.addEventListener("pointermove", (event) => {
    const run = nearest(event);
    hover(run);
    if (run) runTip(event, run, say(run));
    else hideTip();
  });
  host.addEventListener("pointerleave", () => { hover(null); hideTip(); });
  host.addEventListener("click", (event) => { const run = nearest(event); if (run) select(run); });
}

function drawScatter(c, chart, back, entry, state) {
  const box = { left: LEFT, right: chart.width - 16, top: 24, bottom: chart.height - 40 };
  const list = shown().filter((run) => run.objective !== null);
  state.dots = [];
  if (list.length === 0) { emptyChart(c, chart, "No figures yet"); return; }
  const [low, high] = robustRange(list.map((run) => run.objective));
  const pad = (high - low) * 0.06 || Math.abs(high) * 0.01 || 1;
  const y = makeScale(low - pad, high + pad, box.bottom, box.top);
  const x = scatterScale(entry, list, box);
  drawAxes(back, box, x, y, { x: entry.short, y: "" });
  const alpha = Math.max(0.45, Math.min(0.95, 9 / Math.sqrt(list.length)));
  for (const run of [...list].reverse()) {
    const at = [x(x.value(run)), Math.max(box.top, y(run.objective))];
    c.globalAlpha = alpha;
    const radius = list.length > 150 ? 2.6 : 4;
    if (run.state === "completed") dot(c, ...at, radius, run.colour);
    else ring(c, ...at, radius, run.colour);
    state.dots.push([...at, run]);
  }
  c.globalAlpha = 1;
  drawMedians(c, list.filter(({ state: how }) => how === "completed"), x, y);
}

function ring(c, x, y, radius, colour) {
  c.beginPath();
  c.arc(x, y, radius - 0.5, 0, 2 * Math.PI);
  c.strokeStyle = colour;
  c.lineWidth = 1.4;
  c.stroke();
}

function scatterScale(entry, list, box) {
  const of = (run) => run.settings[entry.key];
  const values = [...new Set(list.map(of).filter(isNumber))].sort((a, b) => a - b);
  if (entry.numeric && values.length) return numberScale(entry, of, values, list, box);
  const names = [...new Set(list.map((run) => value(of(run), null)))];
  const gap = (box.right - box.left) / names.length;
  const scale = (name) => box.left + (names.indexOf(name) + 0.5) * gap;
  const text = (name) => shortened(name, Math.max(4, Math.floor(gap / 7)));
  return Object.assign(scale, { value: (run) => value(of(run), null), groups: names, marks: names, text });
}

// Numbers, and to the right of them a place for runs that have none.
function numberScale(entry, of, values, list, box) {
  const none = [...new Set(list.map(of).filter((value) => !isNumber(value)))];
  const right = box.right - (none.length ? NONE_ROOM : 0);
  const [low, high] = [values[0], values[values.length - 1]];
  const room = entry.log ? (high / low) ** 0.06 : (high - low) * 0.06;
  const inner = makeScale(entry.log ? low / room : low - room, entry.log ? high * room : high + room,
    box.left, right, entry.log);
  const scale = (value) => (isNumber(value) ? inner(value) : box.right - NONE_ROOM / 3);
  const few = values.length <= 9;
  const marks = few ? values : ticks(inner, Math.max(2, (right - box.left) / 90));
  const text = (mark) => (isNumber(mark) && !few ? tick(mark) : value(mark));
  return Object.assign(scale, { value: of, groups: [...values, ...none], marks: [...marks, ...none],
    text, line: true });
}

// Where values repeat, as in a grid, their medians are joined.
function drawMedians(c, list, x, y) {
  if (x.groups.length < 2 || list.length < x.groups.length * 2) return;
  const middles = x.groups.map((group) => [group,
    list.filter((run) => x.value(run) === group).map((run) => run.objective)])
    .filter(([, values]) => values.length).map(([group, values]) => [group, median(values)]);
  c.strokeStyle = ink.text;
  c.lineWidth = 1.5;
  if (x.line) {
    c.globalAlpha = 0.7;
    line(c, middles.filter(([group]) => isNumber(group)).map(([group, value]) => [x(group), y(value)]));
    c.globalAlpha = 1;
  }
  middles.forEach(([group, value]) => line(c, [[x(group) - 9, y(value)], [x(group) + 9, y(value)]]));
}
