// What was found: in words, how much each key mattered, and how size matters.

function makeFindings() {
  const host = $("findings");
  for (const { title, figure, text, kind } of data.findings ?? []) {
    host.append(el("article", { className: `finding ${kind ?? ""}` }, el("h2", {}, title),
      figure ? el("p", { className: "figure" }, figure) : null, el("p", {}, text)));
  }
  host.hidden = host.childElementCount === 0;
}

function makeImportance() {
  const found = data.importance;
  if (!found?.keys?.length) {
    const why = found?.reason ?? "Not enough finished runs to tell what mattered.";
    fill($("importance"), el("p", { className: "empty" }, why));
    return;
  }
  const names = new Map(data.keys.map(({ key, short }) => [key, short]));
  const bars = found.keys.map(({ key, share }) => {
    const bar = el("div", { className: "fill", style: { width: `${(share * 100).toFixed(1)}%` } });
    const name = names.get(key) ?? key;
    return el("div", { className: "bar" }, el("span", { className: "name", title: key }, name),
      el("div", { className: "track" }, bar),
      el("span", { className: "value" }, `${Math.round(share * 100)} %`));
  });
  fill($("importance"), bars, found.note ? el("p", { className: "note" }, found.note) : null);
}
