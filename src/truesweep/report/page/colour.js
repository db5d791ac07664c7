// Colours that can be told apart without seeing red and green, on light and on dark.

// Plasma (van der Walt & Smith 2015), cut where it would vanish into the page.
const RAMPS = {
  light: ["#1b0c8a", "#4b03a1", "#7d03a8", "#a82296", "#cb4679", "#dd6152", "#dc742f"],
  dark: ["#f6f06a", "#fdca40", "#fca338", "#f48849", "#db5c68", "#c03a91", "#a83fc8"],
};
// Okabe & Ito 2008, the yellow left out, grey added.
const PALETTES = {
  light: ["#0072b2", "#d55e00", "#00805d", "#b5528f", "#b77c00", "#2b8fc4", "#6b7280", "#3d2f8f"],
  dark: ["#56b4e9", "#ff8a3d", "#2fc79a", "#e79fc9", "#f0c04a", "#9ad4f5", "#b4bac4", "#a79bff"],
};
const EACH = PALETTES.light.length;

let theme = "light";
let ink = {};

function setTheme(name) {
  theme = name;
  document.documentElement.dataset.theme = name;
  const style = getComputedStyle(document.documentElement);
  ink = Object.fromEntries(["text", "muted", "line", "grid", "surface", "accent", "bad"].map(
    (part) => [part, style.getPropertyValue(`--${part}`).trim()]));
  $("theme").textContent = name === "dark" ? "Light" : "Dark";
  $("theme").setAttribute("aria-label", `Switch to the ${name === "dark" ? "light" : "dark"} theme`);
}

function mix(ramp, share) {
  const place = Math.min(Math.max(share, 0), 1) * (ramp.length - 1);
  const low = Math.min(Math.floor(place), ramp.length - 2);
  const channels = [ramp[low], ramp[low + 1]].map((hex) =>
    [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  const mixed = channels[0].map((c, i) => Math.round(c + (channels[1][i] - c) * (place - low)));
  return `rgb(${mixed.join(" ")})`;
}

// What runs can be coloured by: themselves if they are few, the objective, each key that varies.
function colourings() {
  const each = runs.length <= EACH ? [{ id: "run", name: "run" }] : [];
  const keys = data.keys.map(({ key, short }) => ({ id: key, name: short }));
  return [...each, { id: "objective", name: data.objective.name }, ...keys];
}

function colourValue(run) {
  return view.colour === "objective" ? run.objective : run.settings[view.colour];
}

// Gives every run its colour; returns what the legend says.
function colourRuns() {
  const palette = PALETTES[theme];
  if (view.colour === "run") {
    runs.forEach((run) => { run.colour = palette[run.index % EACH]; });
    return { entries: runs.map((run) => ({ name: run.label, colour: run.colour, run })) };
  }
  const values = runs.map(colourValue);
  const key = data.keys.find((entry) => entry.key === view.colour);
  if (view.colour === "objective" || key.numeric) return colourByRamp(values, key?.log ?? false);
  const names = [...new Set(values.map((item) => value(item, null)))];
  runs.forEach((run, i) => {
    const place = names.indexOf(value(values[i], null));
    run.colour = place < EACH ? palette[place] : ink.muted;
  });
  return { entries: names.slice(0, EACH).map((name, i) => ({ name, colour: palette[i] })) };
}

function colourByRamp(values, log) {
  const finite = values.filter((value) => typeof value === "number").sort((a, b) => a - b);
  if (finite.length === 0) {
    runs.forEach((run) => { run.colour = ink.muted; });
    return { entries: [] };
  }
  // The worst tenth, which may lie anywhere, shares one colour.
  const objective = view.colour === "objective";
  const low = objective && !less ? quantile(finite, 0.1) : finite[0];
  const high = objective && less ? quantile(finite, 0.9) : finite[finite.length - 1];
  const f = log ? Math.log : (value) => value;
  const flip = objective && !less;
  runs.forEach((run, i) => {
    if (typeof values[i] !== "number") { run.colour = ink.muted; return; }
    const share = high > low ? (f(values[i]) - f(low)) / (f(high) - f(low)) : 0;
    run.colour = mix(RAMPS[theme], flip ? 1 - share : share);
  });
  const none = finite.length < values.length;
  return { ramp: RAMPS[theme], low: flip ? high : low, high: flip ? low : high, objective, none };
}
