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
  const share = new Map(data.importance.shares.map(([key, , value]) => [key, value]));
  const of = ({ key }) => share.get(key.replace(/\._target_$/, "")) ?? 0;
  return [...data.keys].sort((a, b) => of(b) - of(a));
}

const METHODS = {
  grid: "Share of the variance over the grid that each key explains alone (functional ANOVA).",
  search: "How much each key decides about being among the best (PED-ANOVA).",
};

function makeImportance() {
  const { shares, interactions, method, notes } = data.importance;
  const host = $("importance");
  if (shares.length === 0) {
    const why = ["Not known yet.", ...notes].join(" ");
    fill(host, el("p", { className: "empty" }, why));
    return;
  }
  const bars = [...shares, ...interactions.map(([name, share]) => [name, name, share])].map(importanceBar);
  fill(host, bars, el("p", { className: "note" }, [METHODS[method] ?? "", ...notes].join(" ")));
}

function importanceBar([key, name, share]) {
  const bar = el("div", { className: "fill", style: { width: `${(share * 100).toFixed(1)}%` } });
  return el("div", { className: "bar" }, el("span", { className: "name", title: key }, name),
    el("div", { className: "track" }, bar),
    el("span", { className: "value" }, `${Math.round(share * 100)} %`));
}
