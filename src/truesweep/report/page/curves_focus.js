// Pointing at curves: what stands out, what it says, and zooming.

const NEAR = 36; // pixels within which a curve is pointed at

function focusCurves(c) {
  if (!curves.x) return;
  clip(c, curves.box);
  for (const run of inFocus()) {
    if (!run.visible) continue;
    const colour = run.colour;
    run.colour = ink.surface;
    drawRun(c, run, 2, 6);
    run.colour = colour;
    drawRun(c, run, 2, 2.6);
  }
  if (curves.drag) {
    const [a, b] = curves.drag;
    c.globalAlpha = 0.15;
    c.fillStyle = ink.accent;
    c.fillRect(Math.min(a, b), curves.box.top, Math.abs(b - a), curves.box.bottom - curves.box.top);
    c.globalAlpha = 1;
  }
  c.restore();
}

// The value of a curve at a position, between its points; null outside of them.
function valueAt([xs, ys], x) {
  let [low, high] = [0, xs.length - 1];
  if (high < 0 || x < xs[0] || x > xs[high]) return null;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= x) low = middle;
    else high = middle;
  }
  if (ys[low] === null || ys[high] === null) return ys[low];
  if (xs[high] === xs[low]) return ys[high];
  return ys[low] + ((x - xs[low]) / (xs[high] - xs[low])) * (ys[high] - ys[low]);
}

function nearestRun(px, py) {
  if (!curves.x) return null;
  const x = curves.x.back(px);
  let [found, least] = [null, NEAR];
  for (const run of shown()) {
    for (const metric of metricsShown()) {
      const drawn = points(run, metric);
      const value = drawn && valueAt(drawn, x);
      if (value === null || value === undefined) continue;
      const distance = Math.abs(curves.y(value) - py);
      if (distance < least) [found, least] = [run, distance];
    }
  }
  return found;
}

function tipOfCurve(event, run, px) {
  const x = curves.x.back(px);
  const rows = metricsShown().map((metric) => {
    const drawn = points(run, metric);
    const measured = drawn && valueAt(drawn, x);
    return isMissing(measured) ? null : `${metric} ${told(metric, measured)}`;
  });
  const where = view.axis === "time" ? duration(x) : `${count(Math.round(x))} ${view.axis === "step" ? "steps" : data.unit}`;
  runTip(event, run, ...rows.filter(Boolean), `at ${where}`);
}

function makeCurves() {
  const host = $("curves");
  curves.chart = makeChart(host, {
    height: window.innerWidth < 760 ? 320 : 430, draw: drawCurves, focus: focusCurves,
    label: `Curves of ${plural(runs.length, "run")}; the same runs stand in the ranking below`,
  });
  on("curves", curves.chart.redraw);
  host.tabIndex = 0;
  host.setAttribute("role", "group");
  host.setAttribute("aria-label", "Curves: up and down go through the runs, Enter opens one");
  host.addEventListener("pointermove", (event) => {
    const [px, py] = place(event, host);
    if (curves.drag) { curves.drag[1] = px; changed("focus"); return; }
    const run = nearestRun(px, py);
    hover(run);
    if (run) tipOfCurve(event, run, px);
    else hideTip();
  });
  host.addEventListener("pointerleave", () => { hover(null); hideTip(); });
  host.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "mouse" || event.button !== 0 || !curves.x) return;
    const [px] = place(event, host);
    curves.drag = [px, px];
    host.setPointerCapture(event.pointerId);
  });
  host.addEventListener("pointerup", (event) => endDrag(event, host));
  host.addEventListener("keydown", stepThroughRuns);
}

function endDrag(event, host) {
  const [from, to] = curves.drag ?? [0, 0];
  curves.drag = null;
  if (Math.abs(to - from) > 8) {
    view.zoom = [from, to].map((px) => curves.x.back(px)).sort((a, b) => a - b);
    $("unzoom").hidden = false;
    changed("curves");
    return;
  }
  const run = nearestRun(...place(event, host));
  if (run) select(run);
}

function stepThroughRuns(event) {
  const list = shown();
  const at = list.indexOf(view.hovered ?? view.selected);
  const moves = { ArrowDown: at + 1, ArrowUp: Math.max(at - 1, 0), Home: 0, End: list.length - 1 };
  if (event.key in moves && list.length) {
    hover(list[Math.min(moves[event.key], list.length - 1)]);
    event.preventDefault();
  } else if (event.key === "Enter" && view.hovered) select(view.hovered);
}
