// What was found: in words, how much each key mattered, and how size matters.

function makeFindings() {
  const host = $("findings");
  const [winner, others] = [true, false].map((first) =>
    data.findings.filter(({ figure }) => Boolean(figure) === first));
  host.append(...winner.map(({ title, figure, text, kind }) =>
    el("article", { className: `finding ${kind}` }, el("h2", {}, title),
      el("p", { className: "figure" }, figure), el("p", {}, text))));
  if (others.length) {
    const items = others.map(({ title, text, kind }) =>
      el("li", { className: kind }, el("b", {}, title), ` ${text}`));
    host.append(el("article", { className: "finding" }, el("h2", {}, "To keep in mind"), el("ul", {}, items)));
  }
  host.hidden = host.childElementCount === 0;
}

// The keys, the most important first.
function rankedKeys() {
  const share = new Map(data.importance.shares.flatMap(({ keys, share: of }) => keys.map((key) => [key, of])));
  const of = ({ key }) => share.get(key.replace(/\._target_$/, "")) ?? 0;
  return [...data.keys].sort((a, b) => of(b) - of(a));
}

const METHODS = {
  grid: "Share of the variance over the grid that each key explains alone (functional ANOVA).",
  search: "Share of the variance between groups of each key's values, less what chance gives (epsilon squared).",
};

function makeImportance() {
  const { shares, interactions, method, notes } = data.importance;
  const host = $("importance");
  if (shares.length === 0) {
    const why = ["Not known yet.", ...notes].join(" ");
    fill(host, el("p", { className: "empty" }, why));
    return;
  }
  const all = [...shares, ...interactions];
  const pale = all.every(({ distinguishable }) => distinguishable) ? ""
    : "Lines: what noise alone gives; pale: no more than that.";
  fill(host, all.map(importanceBar),
    el("p", { className: "note" }, [METHODS[method] ?? "", pale, ...notes].filter(Boolean).join(" ")));
}

function importanceBar({ keys, name, share, noise, distinguishable }) {
  const width = (part) => `${(part * 100).toFixed(1)}%`;
  const said = `${distinguishable ? "" : "not distinguishable from noise; "}noise alone: ${percent(noise)}`;
  return el("div", { className: distinguishable ? "bar" : "bar pale", title: said },
    el("span", { className: "name", title: keys?.join(", ") ?? name }, name),
    el("div", { className: "track" },
      el("div", { className: "fill", style: { width: width(share) } }),
      el("div", { className: "mark", style: { left: width(noise) } })),
    el("span", { className: "value" }, percent(share)));
}
