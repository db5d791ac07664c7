// The ranking: every figure of every run, sortable.

const ROWS = 300;
const table = { key: "rank", down: false, all: false };

function tableColumns() {
  const right = true;
  const amounts = (name) => cells((run) => run[name] || null, counts);
  const times = (name) => (run) => duration(run[name] || null);
  const { digits } = declared(data.objective.name) ?? {};
  const varied = data.keys.map(({ key, short, numeric }) => ({
    id: key, name: short, title: key, right: numeric, value: (run) => run.settings[key],
    text: cells((run) => run.settings[key], values) }));
  const seeds = runs.some((run) => run.deviation !== undefined) ? [{ id: "mean", name: "over seeds", right,
    title: "mean and standard deviation over seeds", value: (run) => run.mean,
    text: cells((run) => run.mean, (means) => figures(means, digits).map((mean, i) =>
      (runs[i].mean === undefined ? NONE : `${mean} ± ${figure(runs[i].deviation, 2)}`))) }] : [];
  const flops = runs.some((run) => run.flops !== null) ? [{ id: "flops", name: "FLOP", right,
    value: (run) => run.flops, text: amounts("flops") }] : [];
  return [
    { id: "rank", name: "#", right, value: (run) => run.rank, text: rankText },
    { id: "id", name: "run", value: (run) => run.id, cell: runCell },
    { id: "objective", name: data.objective.name, right, value: (run) => run.objective,
      text: cells((run) => run.objective, (found) => figures(found, digits)) },
    ...seeds, ...varied,
    { id: "tokens", name: data.unit, right, value: (run) => run.tokens, text: amounts("tokens") },
    { id: "seconds", name: "time", right, value: (run) => run.seconds, text: times("seconds") },
    { id: "cost", name: "cost", right, title: "time × devices", value: (run) => run.cost,
      text: times("cost") },
    ...flops,
    { id: "state", name: "state", value: (run) => run.state, cell: (run) => stateChip(run.state) },
    { id: "verdict", name: "verdict", value: (run) => run.verdict?.kind ?? "",
      text: (run) => run.verdict?.kind ?? "" },
  ].filter(({ id }) => id !== "verdict" || runs.some((run) => run.verdict?.kind));
}

// What a column says of each run: all of it is written together, in the same digits.
function cells(of, write) {
  const texts = write(runs.map(of));
  return (run) => texts[run.index];
}

const rankText = (run) => (run.rank === null ? NONE : `${run.rank}${run.tied ? " =" : ""}`);
const stateChip = (state) => el("span", { className: `state ${state}` }, state);

function runCell(run) {
  return [el("span", { className: "swatch", style: { background: run.colour } }),
    el("button", { className: "link", type: "button", title: run.label,
      onclick: (event) => { event.stopPropagation(); select(run); } }, run.id)];
}

function sortedRuns(columns) {
  const { value } = columns.find(({ id }) => id === table.key);
  const order = (a, b) => {
    const [left, right] = [value(a), value(b)];
    const missing = (x) => x === null || x === undefined || x === "";
    if (missing(left) || missing(right)) return missing(left) - missing(right) || a.index - b.index;
    const by = typeof left === "number" && typeof right === "number" ? left - right
      : String(left).localeCompare(String(right), "en", { numeric: true });
    return table.down ? -by : by;
  };
  return shown().sort(order);
}

function headCell(column) {
  const active = table.key === column.id;
  const sort = () => {
    table.down = active ? !table.down : column.id === "objective" && !less;
    table.key = column.id;
    drawTable();
  };
  const mark = active ? (table.down ? " ↓" : " ↑") : "";
  const cell = el("th", { scope: "col", className: column.right ? "right" : "" },
    el("button", { type: "button", title: column.title ?? `Sort by ${column.name}`, onclick: sort },
      `${column.name}${mark}`));
  if (active) cell.setAttribute("aria-sort", table.down ? "descending" : "ascending");
  return cell;
}

function bodyRow(columns, run) {
  const cells = columns.map(({ cell, text, right }) =>
    el("td", { className: right ? "right" : "" }, cell ? cell(run) : text(run)));
  run.row = el("tr", { onclick: () => select(run) }, cells);
  return run.row;
}

function drawTable() {
  const columns = tableColumns();
  const list = sortedRuns(columns);
  const some = table.all ? list : list.slice(0, ROWS);
  runs.forEach((run) => { run.row = null; });
  fill($("table"), el("thead", {}, el("tr", {}, columns.map(headCell))),
    el("tbody", {}, some.map((run) => bodyRow(columns, run))));
  const note = $("table-note");
  fill(note, list.length === 0 ? (runs.length ? "No run is left by the filter." : noRuns()) : runs.some((run) => run.tied)
    ? "= : cannot be told apart from the best. " : "");
  if (list.length > some.length) {
    note.append(el("button", { type: "button", className: "quiet",
      onclick: () => { table.all = true; drawTable(); } }, `Show all ${list.length} runs`));
  }
  markRow();
}

function markRow() {
  $("table").querySelector("tr.selected")?.classList.remove("selected");
  view.selected?.row?.classList.add("selected");
}
