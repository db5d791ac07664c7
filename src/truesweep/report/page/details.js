// One run: what became of it, its figures, its words, its configuration.

let opener = null;

function showDetails() {
  const host = $("details");
  const run = view.selected;
  markRow();
  if (!run) {
    host.hidden = true;
    document.body.classList.remove("beside");
    opener?.focus?.();
    return;
  }
  if (host.hidden) opener = document.activeElement;
  fill(host, ...detailParts(run));
  host.hidden = false;
  document.body.classList.add("beside");
  host.scrollTop = 0;
  host.focus({ preventScroll: true });
}

function detailParts(run) {
  const close = el("button", { type: "button", className: "quiet", onclick: () => select(null),
    "aria-label": "Close (Escape)" }, "Close");
  return [
    el("header", {}, el("div", {}, el("h2", {}, run.label),
      el("p", {}, stateChip(run.state), el("span", { className: "muted mono" }, `  ${run.id}`))), close),
    verdictBox(run), errorBox(run), figuresTable(run), miniNote(run), samples(run),
    evaluationsNote(run),
    folded("Configuration", keyTable(configOf(run), new Set(data.keys.map(({ key }) => key)))),
    folded("Code, versions, machine, data", keyTable(factsOf(run), new Set())),
    el("div", { className: "controls", style: { marginTop: "18px" } },
      ["a", "b"].map((side) => el("button", { type: "button", onclick: () => choosePair(side, run) },
        `Compare as ${side.toUpperCase()}`))),
    el("p", { className: "note mono" }, run.path),
  ];
}

function verdictBox(run) {
  if (!run.verdict) return null;
  const { kind, text, grave } = run.verdict;
  return el("div", { className: `verdict ${grave}` }, el("b", {}, kind), el("p", {}, text));
}

function errorBox(run) {
  if (!run.error && !run.log && !run.problem) return null;
  return el("div", {}, el("h3", {}, "What went wrong"),
    el("p", {}, run.error ?? run.problem ?? "The run ended without saying why."),
    run.log ? el("pre", { tabIndex: 0 }, run.log) : null);
}

const SPLITS = [["validation", "val/"], ["test", "test/"], ["baseline", "baseline/test/"]];

// Figures by split; before the end, the last ones recorded.
function figuresTable(run) {
  const found = Object.keys(run.results).length ? run.results
    : Object.fromEntries(Object.entries(run.curves).map(([name, [, values]]) =>
      [name, values.findLast((value) => value !== null)]));
  const names = Object.keys(data.figures).filter((name) => name !== "samples"
    && ["val/", "test/"].some((prefix) => !isMissing(found[prefix + name])));
  const shownAs = (name) => {
    const error = found[`${name}_standard_error`];
    const of = found[`${name}_samples`];
    return told(name, found[name]) + (error === undefined ? "" : ` ± ${figure(error, 2)}`)
      + (of === undefined ? "" : ` (${plural(of, "sample")})`);
  };
  const splits = SPLITS.filter(([, prefix]) => names.some((name) => found[prefix + name] !== undefined));
  if (names.length === 0) return el("p", { className: "empty" }, "No figures yet.");
  const head = ["", ...splits.map(([name]) => name)].map((name, i) =>
    el("th", { scope: "col", className: i ? "right" : "" }, name));
  const rows = names.map((name) => el("tr", {}, el("td", {}, name),
    splits.map(([, prefix]) => el("td", { className: "right" }, shownAs(prefix + name)))));
  return el("div", {}, el("h3", {}, Object.keys(run.results).length ? "Results" : "So far"),
    el("div", { className: "scroll" },
      el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows))));
}

function miniNote(run) {
  const best = run.results.best_step;
  const parts = [plural(run.step, "step"), `${count(run.tokens)} ${data.unit}`, duration(run.seconds)];
  if (run.cost !== run.seconds) parts.push(`${duration(run.cost)} of devices`);
  if (run.results.parameters) parts.push(`${count(run.results.parameters)} parameters`);
  if (best !== undefined) parts.push(`best at step ${count(best)}`);
  return el("p", { className: "note" }, parts.join(" · "));
}

function samples(run) {
  return Object.entries(run.tables).map(([name, [columns, rows]]) => {
    if (name === "classes") return folded("Classes", plainTable(columns, rows));
    const texts = rows.map((row) => el("pre", { tabIndex: 0 },
      columns.map((column, i) => `${column}: ${value(row[i], null)}`).join("\n")));
    return el("div", {}, el("h3", {}, name === "samples" ? "Samples" : name), texts);
  });
}

function plainTable(columns, rows) {
  const texts = columns.map((_, i) => rows.map((row) => row[i])).map((column) =>
    (column.some((cell) => isNumber(cell) && !Number.isInteger(cell)) ? figures(column, 3)
      : column.map((cell) => value(cell, null))));
  return el("table", {}, el("thead", {}, el("tr", {}, columns.map((name) => el("th", {}, name)))),
    el("tbody", {}, rows.map((_, i) => el("tr", {}, texts.map((column) => el("td", {}, column[i]))))));
}

function evaluationsNote(run) {
  if (!run.evaluations) return null;
  return el("p", { className: "verdict warn" }, `Its test split was scored ${run.evaluations} more `
    + `time${run.evaluations > 1 ? "s" : ""} since: a test set that choices are made by is a validation set.`);
}

const folded = (name, inner) => el("details", {}, el("summary", {}, name),
  el("div", { className: "scroll" }, inner));

function keyTable(found, marked) {
  const keys = Object.keys(found).sort((a, b) => marked.has(b) - marked.has(a));
  const name = (key) => (marked.has(key) ? el("b", {}, key) : key);
  return el("table", { className: "wrap" }, el("tbody", {}, keys.map((key) => el("tr", {},
    el("td", { className: "mono" }, name(key)), el("td", {}, value(found[key], null))))));
}

function choosePair(side, run) {
  $(`pair-${side}`).value = run.index;
  drawPair();
  $("pair").scrollIntoView({ block: "center" });
}
