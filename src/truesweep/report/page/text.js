// How numbers and times are written: by the rules of text.py, with which a test compares these.

const NONE = "—";
const PREFIXES = [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
const EXACT = 10000; // counts below it are written in full

const isMissing = (value) => value === null || value === undefined;
const adjusted = (number) => Number(number.toExponential().split("e")[1]);
const grouped = (text) => text.replace(/^-?\d+/, (whole) => whole.replace(/\B(?=(\d{3})+$)/g, ","));

// A value as it is typed: 0.001, 3e-5, true, [0.9,0.95]; `digits` null: all there is.
function value(chosen, digits = 4) {
  if (chosen === undefined) return NONE;
  if (typeof chosen === "number") return typed(chosen, digits);
  if (Array.isArray(chosen)) return `[${chosen.map((item) => value(item, digits)).join(",")}]`;
  if (chosen !== null && typeof chosen === "object") {
    return `{${Object.entries(chosen).map(([key, item]) => `${key}:${value(item, digits)}`).join(",")}}`;
  }
  const text = String(chosen);
  if (digits === null || !/^[\w.~@:+/-]+$/.test(text)) return text;
  return text.replace(/\/+$/, "").split("/").pop() || text;
}

// JSON does not tell 1e6 from 1000000: whole numbers are written out.
function typed(chosen, digits) {
  if (Number.isInteger(chosen) || !Number.isFinite(chosen)) return String(chosen);
  const short = digits === null ? chosen
    : rounded(chosen, Math.max(digits, adjusted(chosen) + 1));
  const exponent = adjusted(short);
  if (exponent >= -4 && exponent < 6) return String(short);
  return short.toExponential().replace("e+", "e");
}

// 0.99998 is not 1.
function rounded(chosen, digits) {
  const short = Number(chosen.toPrecision(digits));
  return Number.isInteger(short) ? rounded(chosen, digits + 1) : short;
}

// Values of one key, in short, or whole where short does not tell them apart.
function values(column) {
  const [short, whole] = [column.map((item) => value(item)), column.map((item) => value(item, null))];
  const meant = new Map();
  short.forEach((text, i) => meant.set(text, (meant.get(text) ?? new Set()).add(whole[i])));
  return short.map((text, i) => (meant.get(text).size > 1 ? whole[i] : text));
}

// A measured number with its last zeros: 1.490, 22.60, 12,346, 1.2e-7.
function figure(measured, digits = 4) {
  if (isMissing(measured)) return NONE;
  if (typeof measured !== "number") return String(measured);
  const [mantissa, power] = measured.toExponential(digits - 1).split("e");
  const exponent = Number(power);
  if (measured !== 0 && (exponent < -4 || exponent >= 6)) return `${mantissa}e${exponent}`;
  return grouped(measured.toFixed(Math.max(0, digits - 1 - exponent)));
}

// The figures of a column, which all have the decimals of the one in the middle.
function figures(column, digits = 4) {
  const sizes = column.filter((item) => typeof item === "number" && item !== 0).map(Math.abs);
  const usual = sizes.length ? Number(median(sizes).toPrecision(digits)) : 1;
  const decimals = Math.max(0, digits - 1 - adjusted(usual));
  return column.map((measured) => {
    if (typeof measured !== "number" || Math.abs(measured) >= 1e6) return figure(measured, digits);
    const text = grouped(measured.toFixed(decimals));
    return measured !== 0 && /^[-0.,]*$/.test(text) ? figure(measured, 2) : text;
  });
}

// An amount in three digits and a prefix: 93.4G; below `exact` in full.
function count(amount, exact = EXACT) {
  return isMissing(amount) ? NONE : scaled(amount, exact).join("");
}

function scaled(amount, exact = EXACT) {
  if (Math.abs(amount) < exact) {
    const whole = Number.isInteger(amount) || Math.abs(amount) >= 100;
    return [whole ? grouped(String(Math.round(amount))) : figure(amount, 3), ""];
  }
  const short = Number(amount.toPrecision(3));
  const [size, prefix] = PREFIXES.find(([least]) => Math.abs(short) >= least) ?? [1, ""];
  return [figure(short / size, 3), prefix];
}

// The counts of a column: all in full, or all from a thousand on with a prefix.
function counts(column) {
  const large = column.some((amount) => !isMissing(amount) && Math.abs(amount) >= EXACT);
  return column.map((amount) => count(amount, large ? 1000 : EXACT));
}

const plural = (amount, noun) => `${count(amount)} ${noun}${amount === 1 ? "" : "s"}`;

// A share of one in two digits: 0.25 %, 2.5 %, 25 %.
function percent(share) {
  const hundredths = 100 * share;
  const size = Math.abs(hundredths);
  return `${hundredths.toFixed(size === 0 || size >= 9.95 ? 0 : size >= 0.995 ? 1 : 2)} %`;
}

// 8.4 s, 84 s, 4:10 min, 1:52 h.
function duration(seconds) {
  if (isMissing(seconds)) return NONE;
  if (seconds < 99.5) return `${seconds.toFixed(seconds > 0 && seconds < 9.95 ? 1 : 0)} s`;
  const [unit, whole] = seconds < 3599.5 ? ["min", Math.round(seconds)] : ["h", Math.round(seconds / 60)];
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")} ${unit}`;
}

// A place on an axis, which is a round one.
function tick(at) {
  if (Math.abs(at) < EXACT) return value(at, 6);
  const [digits, prefix] = scaled(at);
  return digits.replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "") + prefix;
}

// What is declared of a figure, such as val/loss; nothing of what is none.
const declared = (name) => data.figures[name.slice(name.lastIndexOf("/") + 1)];

// One figure of a run, as its declaration has it.
function told(name, measured) {
  if (isMissing(measured)) return NONE;
  if (typeof measured !== "number") return value(measured);
  const { kind, digits } = declared(name) ?? { kind: Number.isInteger(measured) ? "count" : "figure" };
  if (kind === "duration") return duration(measured);
  return kind === "count" ? count(measured) : figure(measured, digits);
}
