// What differs between any two runs.

function makePair() {
  ["pair-a", "pair-b"].forEach((id, place) => {
    const options = runs.map((run, i) => el("option", { value: i }, `${run.id} · ${run.label}`));
    $(id).append(...options);
    $(id).value = Math.min(place, runs.length - 1);
    $(id).addEventListener("change", drawPair);
  });
  drawPair();
}

function drawPair() {
  const [a, b] = ["pair-a", "pair-b"].map((id) => runs[$(id).value]);
  if (!a || a === b) {
    fill($("pair"), el("p", { className: "empty" }, "Choose two different runs."));
    return;
  }
  const groups = [["Configuration", whole, configOf], ["Results", told, resultsOf],
    ["Code, versions, machine, data", whole, factsOf]];
  const rows = groups.flatMap(([name, write, of]) => pairRows(name, write, of(a), of(b)));
  const heads = ["", "A", "B"].map((name) => el("th", { scope: "col" }, name));
  fill($("pair"), el("table", { className: "wrap" }, el("thead", {}, el("tr", {}, heads)),
    el("tbody", {}, rows)));
}

// Without standard errors, which stand beside their figures in a run's details.
const resultsOf = (run) => ({ state: run.state, verdict: run.verdict?.kind,
  ...Object.fromEntries(Object.entries(run.results).filter(([name]) => !name.endsWith("_standard_error"))) });
const whole = (_, chosen) => value(chosen, null);

function pairRows(name, write, left, right) {
  const keys = [...new Set([...Object.keys(left), ...Object.keys(right)])]
    .filter((key) => JSON.stringify(left[key]) !== JSON.stringify(right[key]));
  const head = el("tr", { className: "group" }, el("th", { colSpan: 3, scope: "rowgroup" }, name));
  if (keys.length === 0) return [head, el("tr", {}, el("td", { colSpan: 3, className: "muted" }, "the same"))];
  return [head, ...keys.map((key) => el("tr", {}, el("td", { className: "mono" }, key),
    [left, right].map((side) => el("td", {}, write(key, side[key])))))];
}
