"""What data consist of, as tables, and as a page that opens anywhere and asks for nothing."""

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as field_of
from pathlib import Path
from typing import Any

from truesweep.data.advice import Advice
from truesweep.data.describe import QUANTILES, Description
from truesweep.data.leakage import Leak
from truesweep.record.files import write_atomic
from truesweep.report import html as pages
from truesweep.text import figure, percent

LABELS, LANGUAGES = 20, 5
"""Classes and languages that are shown, the largest first."""

WIDEST = 160
"""Characters of a passage in the terminal."""

_WHOLE = 2_000
"""Characters of a text on the page."""


@dataclass
class Grid:
    """A table of texts.

    Attributes:
        title: What it is about.
        left: The first columns, which name what a row is about.
        right: The others, of figures.
        rows: Its rows; one may be shorter.
    """

    title: str
    left: Sequence[str]
    right: Sequence[str]
    rows: list[tuple[str, ...]] = field_of(default_factory=list)

    def add(self, *cells: str) -> None:
        """Add a row."""
        self.rows.append(cells)


def tables(found: Description) -> Iterator[Grid]:
    """Figures of data, as tables."""
    if found.sources:
        yield _sources(found.sources)
    yield _sizes(found)
    if any(part.samples > 1 for part in found.splits.values()):
        yield _lengths(found)
    if any(part.labels for part in found.splits.values()):
        yield _labels(found)
    if found.leakage:
        yield _leakage(found)
    yield _diversity(found)
    if found.cleaned:
        yield _cleaned(found)


def _sources(sources: Mapping[str, Mapping[str, Any]]) -> Grid:
    table = Grid("Sources", [""], ["samples", "tokens", "bytes", "share", "epochs"])
    for name, source in sources.items():
        train = source["splits"]["train"]
        sizes = (f"{train[what]:,}" for what in ("samples", "tokens", "bytes"))
        table.add(name, *sizes, percent(source["share"]), figure(source["epochs"], 3))
    return table


def _sizes(found: Description) -> Grid:
    table = Grid("Data", [""], list(found.splits))
    parts = list(found.splits.values())
    table.add("samples", *(f"{p.samples:,}" for p in parts))
    if found.packed:
        table.add(f"windows of {found.max_length}", *(f"{p.rows:,}" for p in parts))
    table.add("tokens", *(f"{p.tokens:,}" for p in parts))
    table.add("bytes", *(f"{p.bytes:,}" for p in parts))
    if not found.packed:
        rows = (_share(p.truncated, p.samples) for p in parts)
        table.add(f"longer than {found.max_length}", *rows)
    table.add("unknown tokens", *(_share(p.unknown, p.tokens) for p in parts))
    table.add("tokens not in train", *(_share(p.unseen, p.tokens) for p in parts))
    used = found.vocabulary
    table.add("vocabulary used", f"{used.used:,} of {used.size:,}")
    twice = [p.duplicates for p in parts]
    table.add(f"repeated {found.kind.unit}", *(_share(d.repeated, d.passages) for d in twice))
    if found.kind.answer:
        table.add(
            f"… with another {found.kind.answer}",
            *(_share(d.contradictory, d.passages) for d in twice),
        )
    if shapes := [p.pairs for p in parts if p.pairs]:
        counts = [part.samples for part in parts]
        odd = [("odd lengths", "odd")] if found.kind.aligned else []
        for name, field in (*odd, ("empty side", "empty"), ("copied", "copied")):
            values = (getattr(shape, field) for shape in shapes)
            table.add(name, *map(_share, values, counts))
    return table


def _lengths(found: Description) -> Grid:
    table = Grid("Tokens in a sample", ["", ""], list(QUANTILES))
    for split, part in found.splits.items():
        for field, lengths in part.lengths.items():
            table.add(split, field, *(f"{value:,.0f}" for value in lengths.values()))
    for split, part in found.splits.items():
        if part.pairs:
            table.add(split, "ratio", *(f"{v:.2f}" for v in part.pairs.ratio.values()))
    return table


def _labels(found: Description) -> Grid:
    counts = {split: part.labels or {} for split, part in found.splits.items()}
    names = sorted(counts["train"], key=lambda name: -counts["train"][name])
    table = Grid("Labels", ["label"], list(counts))
    for name in names[:LABELS]:
        cells = (_share(c[name], sum(c.values())) for c in counts.values())
        table.add(name, *cells)
    if rest := names[LABELS:]:
        cells = (_share(sum(c[n] for n in rest), sum(c.values())) for c in counts.values())
        table.add(f"{len(rest)} more", *cells)
    return table


def _leakage(found: Description) -> Grid:
    last = f"other {found.kind.answer}" if found.kind.answer else "8-grams"
    table = Grid("Leakage", ["of", "in"], [found.kind.unit, "the same", "alike", last])
    for leak in found.leakage:
        share = (
            _share(leak.other_answer, leak.exact + leak.near)
            if leak.ngrams is None
            else percent(leak.ngrams)
        )
        row = f"{leak.passages:,}", _share(leak.exact, leak.passages)
        table.add(leak.split, leak.other, *row, _share(leak.near, leak.passages), share)
    return table


def _diversity(found: Description) -> Grid:
    table = Grid("Diversity", [""], list(found.splits))
    parts = [part.diversity for part in found.splits.values()]
    for n in (1, 2, 3):
        name = "distinct words" if n == 1 else f"distinct word {n}-grams"
        table.add(name, *(percent(each.distinct[n - 1]) for each in parts))
    table.add("compressed to", *(percent(each.compressed) for each in parts))
    spoken = dict.fromkeys(name for each in parts for name in each.languages)
    for language in list(spoken)[:LANGUAGES]:
        shares = (percent(each.languages.get(language, 0.0)) for each in parts)
        table.add(f"in {language}, likely", *shares)
    return table


def _cleaned(found: Description) -> Grid:
    table = Grid("Cleaned", ["split", "by"], ["of", "left out", "changed"])
    for split, account in found.cleaned.items():
        for rule in dict.fromkeys((*account.dropped, *account.changed)):
            out, changed = account.dropped.get(rule, 0), account.changed.get(rule, 0)
            total = account.samples
            table.add(
                split, rule, f"{total:,} {account.unit}", _share(out, total), _share(changed, total)
            )
        if not (account.dropped or account.changed):
            table.add(split, "–", f"{account.samples:,} {account.unit}", "0", "0")
    return table


def _share(count: int, whole: int) -> str:
    """A count and its percentage; nothing for zero."""
    return f"{count:,} ({percent(count / whole)})" if count else "0"


def side(text: str, answer: str | None, widest: int = WIDEST) -> str:
    """A passage on one line, and its label or translation."""
    parts = [" ".join(each.split()) for each in (text, answer) if each is not None]
    return " → ".join(p if len(p) <= widest else p[: widest - 1] + "…" for p in parts)


def alike(leak: Leak) -> str:
    """How a passage is like its twin."""
    return "the same as" if leak.similarity == 1 else f"{percent(leak.similarity)} alike:"


# -- the page --------------------------------------------------------------------------------------


def write_page(found: Description, advice: Sequence[Advice], path: Path, title: str) -> None:
    """Write the page, whole or not at all.

    Args:
        found: What it shows.
        advice: What is wrong, and its remedies.
        path: The file.
        title: What is described.
    """
    write_atomic(path, render(found, advice, title))


def render(found: Description, advice: Sequence[Advice], title: str) -> str:
    """The page; texts of the data are text on it, whatever stands in them."""
    style = pages.part("style.css")
    train = found.splits["train"]
    sizes = ", ".join(f"{each.samples:,} {split}" for split, each in found.splits.items())
    summary = f"{sizes} samples; {train.tokens:,} training tokens; {found.fingerprint[:12]}"
    body = [_findings(found, advice)]
    grids = list(tables(found))
    body += map(_table, grids)
    body += [_examples(*each) for each in examples(found)]
    origin = json.dumps(found.origin, indent=2, ensure_ascii=False, sort_keys=True)
    body.append(_section("Where they come from", f"<pre>{html.escape(origin)}</pre>"))
    return pages.put_into(
        "data.html",
        {
            "policy": html.escape(pages.policy(style)),
            "title": html.escape(title),
            "style": style,
            "summary": html.escape(summary),
            "body": "\n".join(body),
        },
    )


def examples(found: Description) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Samples that findings are about: a title, and texts with what is to be said of each."""
    for leakage in found.leakage:
        if leakage.examples:
            rows = [
                (side(leak.text, leak.answer, _WHOLE), f"{alike(leak)} {_twin(leak)}".strip())
                for leak in leakage.examples
            ]
            yield f"Of {leakage.split}, and in {leakage.other}", rows
    for split, each in found.splits.items():
        repeated = [(side(text, answer, _WHOLE), "") for text, answer in each.duplicates.examples]
        cut, unknown = (
            [(text, "") for text in texts] for texts in (each.cut_examples, each.unknown_examples)
        )
        titles = "Repeated", "Cut", "With unknown tokens"
        for title, rows in zip(titles, (repeated, cut, unknown), strict=True):
            if rows:
                yield f"{title} in {split}", rows
    for split, account in found.cleaned.items():
        for rule, texts in account.examples.items():
            how = "Left out of" if rule in account.dropped else "Changed in"
            yield f"{how} {split} by {rule}", [(text, "") for text in texts]


def _twin(leak: Leak) -> str:
    same = leak.similarity == 1 and leak.answer == leak.twin_answer
    return "one there" if same else side(leak.twin, leak.twin_answer, _WHOLE)


def _findings(found: Description, advice: Sequence[Advice]) -> str:
    notes = [*found.origin.get("notes", ())]
    rows = [f"<li>{html.escape(note)}.</li>" for note in notes]
    rows += [
        f'<li class="warn"><b>{html.escape(each.problem)}.</b> {html.escape(each.remedy)}.</li>'
        for each in advice
    ]
    inside = "".join(rows) or "<li>Nothing to warn of.</li>"
    heading = "<h2>What to know of them</h2>"
    return f'<div id="findings"><div class="finding">{heading}<ul>{inside}</ul></div></div>'


def _table(grid: Grid) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        padded = [*cells, *[""] * (len(grid.left) + len(grid.right) - len(cells))]
        return "<tr>" + "".join(
            f"<{tag}{'' if i < len(grid.left) else ' class=right'}>{html.escape(cell)}</{tag}>"
            for i, cell in enumerate(padded)
        )

    head = row([*grid.left, *grid.right], "th")
    body = "\n".join(row(cells, "td") for cells in grid.rows)
    table = f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"
    return _section(grid.title, f'<div class="scroll">{table}</div>')


def _examples(title: str, rows: Sequence[tuple[str, str]]) -> str:
    items = (
        f"<pre>{html.escape(text)}{f'<br><b>{html.escape(said)}</b>' if said else ''}</pre>"
        for text, said in rows
    )
    return _section(title, "".join(items))


def _section(title: str, inside: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{inside}</section>"
