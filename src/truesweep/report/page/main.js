// Put together.

function summary() {
  const counts = new Map();
  runs.forEach(({ state }) => counts.set(state, (counts.get(state) ?? 0) + 1));
  const states = [...counts].map(([state, count]) => `${count} ${state}`).join(", ");
  const way = less ? "less is better" : "more is better";
  if (runs.length === 0) return noRuns();
  return `${plural(runs.length, "run")}: ${states} · ranked by ${data.objective.name} (${way})`;
}

const swatch = (colour) => el("span", { className: "swatch", style: { background: colour } });

function drawLegend() {
  const { entries, ramp, low, high, objective, none } = colourRuns();
  const host = $("legend");
  if (ramp) {
    const bar = el("span", { className: "ramp", style: { background: `linear-gradient(90deg, ${ramp.join(", ")})` } });
    const name = objective ? data.objective.name : data.keys.find(({ key }) => key === view.colour).short;
    const text = (number) => el("span", { className: "muted" },
      objective ? told(data.objective.name, number) : value(number));
    const end = objective ? ["best ", " and worse"] : ["", ""];
    fill(host, el("span", {}, name), el("span", { className: "muted" }, end[0], text(low)), bar,
      el("span", { className: "muted" }, text(high), end[1]),
      none ? el("span", { className: "muted" }, swatch(ink.muted), objective ? "none yet" : "null") : null);
    return;
  }
  fill(host, entries.map(({ name, colour, run }) => {
    const parts = [swatch(colour), name];
    return run ? el("button", { type: "button", onclick: () => select(run), onfocus: () => hover(run),
      onblur: () => hover(null), onmouseenter: () => hover(run), onmouseleave: () => hover(null) }, parts)
      : el("span", {}, parts);
  }));
}

function countShown() {
  const output = $("shown");
  const count = shown().length;
  output.className = "muted";
  output.textContent = count === runs.length ? plural(count, "run") : `${count} of ${plural(runs.length, "run")}`;
  $("clear").hidden = view.filter.length === 0 && view.brushes.size === 0;
}

function applyFilter() {
  try {
    view.filter = readFilter($("filter").value);
  } catch (error) {
    $("shown").className = "wrong";
    $("shown").textContent = error.message;
    return;
  }
  settled();
}

function bindControls() {
  const example = data.keys[0];
  $("filter").placeholder = example && runs.length
    ? `${example.short}=${value(runs[0].settings[example.key])}  or part of a name` : "part of a name";
  $("filter").addEventListener("input", applyFilter);
  $("filterbar").addEventListener("submit", (event) => event.preventDefault());
  $("clear").addEventListener("click", () => {
    $("filter").value = "";
    view.brushes.clear();
    parallel.ranges.clear();
    applyFilter();
  });
  const choices = metricChoices();
  $("metric").append(...choices.map(({ name }, i) => el("option", { value: i }, name)));
  view.metric = choices[0] ?? null;
  const redraw = (id, event, apply) => $(id).addEventListener(event, ({ target }) => {
    apply(target);
    changed("curves");
  });
  $("axis").querySelector("[value=tokens]").textContent = data.unit;
  redraw("metric", "change", (target) => { view.metric = choices[target.value]; });
  redraw("axis", "change", (target) => { view.axis = target.value; unzoom(); });
  redraw("logx", "change", (target) => { view.logx = target.checked; unzoom(); });
  redraw("logy", "change", (target) => { view.logy = target.checked; });
  redraw("smooth", "input", (target) => { view.smooth = Number(target.value); });
  redraw("unzoom", "click", unzoom);
  const colours = colourings();
  $("colour").append(...colours.map(({ id, name }) => el("option", { value: id }, name)));
  view.colour = colours[0].id;
  $("colour").addEventListener("change", ({ target }) => {
    view.colour = target.value;
    changed("data");
  });
  $("theme").addEventListener("click", () => {
    setTheme(theme === "dark" ? "light" : "dark");
    changed("data");
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && view.selected) select(null);
  });
}

function unzoom() {
  view.zoom = null;
  $("unzoom").hidden = true;
}

function start() {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  setTheme(dark.matches ? "dark" : "light");
  dark.addEventListener("change", () => { setTheme(dark.matches ? "dark" : "light"); changed("data"); });
  $("title").textContent = data.title;
  $("summary").textContent = summary();
  $("filtered").hidden = data.filters.length === 0;
  $("filtered").textContent = `Filtered by ${data.filters.join(" and ")}: ${runs.length} of `
    + `${plural(data.total, "run")} shown. Ranks, importance and fits are those of all runs.`;
  const going = runs.some(({ state }) => state === "running" || state === "queued");
  const again = going ? " Jobs are not done yet: reload for newer figures." : "";
  $("footer").textContent = `Written ${data.written.replace("T", " ").replace("+00:00", " UTC")} by truesweep ${data.version}.${again}`;
  $("space-section").hidden = data.keys.length === 0;
  $("filterbar").hidden = runs.length < 2;
  $("pair-section").hidden = runs.length < 2;
  document.querySelectorAll("section .controls").forEach((node) => { node.hidden = runs.length === 0; });
  bindControls();
  makeFindings();
  makeImportance();
  on("data", drawLegend); // first: it gives the runs their colours
  on("data", countShown);
  on("data", drawTable);
  makeCurves();
  if (data.keys.length) { makeParallel(); makeScatter(); }
  makeScaling();
  makePair();
  on("focus", showDetailsIfNew);
  changed("data");
}

let detailed = null;

function showDetailsIfNew() {
  if (detailed === view.selected) return;
  detailed = view.selected;
  showDetails();
}

start();
