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
  const groups = [["Configuration", configOf(a), configOf(b)],
    ["Results", resultsOf(a), resultsOf(b)], ["Code, versions, machine, data", factsOf(a), factsOf(b)]];
  const rows = groups.flatMap(([name, left, right]) => pairRows(name, left, right));
  const heads = ["", "A", "B"].map((name) => el("th", { scope: "col" }, name));
  fill($("pair"), el("table", { className: "wrap" }, el("thead", {}, el("tr", {}, heads)),
    el("tbody", {}, rows)));
}

const resultsOf = (run) => ({ state: run.state, ...run.results });

function pairRows(name, left, right) {
  const keys = [...new Set([...Object.keys(left), ...Object.keys(right)])]
    .filter((key) => JSON.stringify(left[key]) !== JSON.stringify(right[key]));
  const head = el("tr", { className: "group" }, el("th", { colSpan: 3, scope: "rowgroup" }, name));
  if (keys.length === 0) return [head, el("tr", {}, el("td", { colSpan: 3, className: "muted" }, "the same"))];
  return [head, ...keys.map((key) => el("tr", {}, el("td", { className: "mono" }, key),
    el("td", {}, written(left[key])), el("td", {}, written(right[key]))))];
}
