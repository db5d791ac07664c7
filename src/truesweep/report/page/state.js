// The data, what is shown of it, and who hears of a change.

const data = JSON.parse($("data").textContent);
const runs = data.runs;
const less = data.objective.mode === "min";

runs.forEach((run, index) => {
  run.index = index;
  run.visible = true;
  // null is a value; undefined is a key that the run does not have.
  run.settings = Object.fromEntries(data.keys.map(({ key }, i) =>
    [key, run.values[i] ?? (key in configOf(run) ? null : undefined)]));
});

const isNumber = (value) => typeof value === "number";

const view = {
  filter: [], brushes: new Map(), colour: null, hovered: null, selected: null,
  metric: null, axis: "step", logx: false, logy: false, smooth: 0, zoom: null,
};

// "data": what is drawn has changed; "curves": how curves are drawn; "focus": which run stands out.
const listeners = { data: [], curves: [], focus: [] };
const due = new Set();

function changed(kind) {
  if (due.size === 0) requestAnimationFrame(() => {
    const kinds = [...due];
    due.clear();
    kinds.forEach((name) => listeners[name].forEach((listen) => listen()));
  });
  due.add(kind);
}

const on = (kind, listen) => listeners[kind].push(listen);
const noRuns = () => (data.filters.length ? "No run meets the filter." : "No run has started yet.");
const shown = () => runs.filter((run) => run.visible);
const inFocus = () => [...new Set([view.selected, view.hovered])].filter((run) => run !== null);

function hover(run) {
  if (run === view.hovered) return;
  view.hovered = run;
  changed("focus");
}

function select(run) {
  view.selected = run;
  changed("focus");
}

function settled() {
  for (const run of runs) {
    run.visible = view.filter.every((accepts) => accepts(run))
      && [...view.brushes].every(([key, accepts]) => accepts(run));
  }
  changed("data");
}

const FIELDS = ["id", "state", "objective", "step", "tokens", "seconds", "cost", "flops"];

// A run's value of anything that can be named: what varies, a figure, a key of the configuration.
function valueOf(run, key) {
  if (key in run.settings) return run.settings[key];
  if (FIELDS.includes(key)) return run[key];
  if (key in run.results) return run.results[key];
  return configOf(run)[key];
}

function patched(first, [changes, absent]) {
  const whole = { ...first, ...changes };
  absent.forEach((key) => delete whole[key]);
  return whole;
}

function configOf(run) {
  run.whole ??= patched(data.config, run.config);
  return run.whole;
}

const factsOf = (run) => patched(data.facts, run.facts);

let everyKey = null;

function findKey(name) {
  everyKey ??= new Set([
    ...data.keys.map(({ key }) => key), ...FIELDS, ...runs.flatMap((run) => Object.keys(run.results)),
    ...Object.keys(data.config), ...runs.flatMap((run) => Object.keys(run.config[0])),
  ]);
  if (everyKey.has(name)) return name;
  const varied = data.keys.find(({ short }) => short === name);
  if (varied) return varied.key;
  const ends = [...everyKey].filter((key) => key.endsWith(`.${name}`));
  return ends.length === 1 ? ends[0] : null;
}

const CONDITION = /^([\w./-]+?)(<=|>=|!=|==|=|<|>)(.*)$/;
const COMPARE = {
  "<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b,
};

// What was typed, as conditions that must all hold: key=value, or words that the name contains.
function readFilter(text) {
  return text.trim().split(/\s+/).filter(Boolean).map((word) => {
    const match = CONDITION.exec(word);
    if (!match) {
      const sought = word.toLowerCase();
      return (run) => `${run.label} ${run.id} ${run.state}`.toLowerCase().includes(sought);
    }
    const [, name, sign, bound] = match;
    const key = findKey(name);
    if (key === null) throw new Error(`There is no key “${name}”.`);
    if (sign in COMPARE && Number.isNaN(numeral(bound))) {
      throw new Error(`${sign} compares numbers, and “${bound}” is none.`);
    }
    return (run) => holds(valueOf(run, key), sign, bound);
  });
}

function holds(found, sign, bound) {
  const left = numeral(found);
  const right = numeral(bound);
  if (sign in COMPARE) return COMPARE[sign](left, right);
  const both = !Number.isNaN(left) && !Number.isNaN(right);
  const same = both ? left === right : value(found, null) === bound;
  return sign === "!=" ? !same : same;
}
