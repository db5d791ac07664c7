"""`truesweep data`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from truesweep.data import ragged
from truesweep.data.advice import Advice, advise
from truesweep.data.describe import QUANTILES, Description, describe
from truesweep.data.leakage import Leak
from truesweep.data.mixture import joined
from truesweep.data.module import DataModule
from truesweep.data.prepare import load_each
from truesweep.data.token_cache import encode_each
from truesweep.errors import ConfigError
from truesweep.jobs.parts import make, prepare_data
from truesweep.jobs.plan import checked
from truesweep.record.files import dump_json
from truesweep.terminal import console, warn
from truesweep.text import figure, percent

LABELS = 20
"""Classes that are shown, the largest first."""

WIDEST = 160
"""Characters of a leaked passage that are shown."""


def data(
    overrides: Sequence[str], config_dirs: Sequence[Path], show: int = 3, as_json: bool = False
) -> int:
    """Prepare the data of a configuration, and print what they are and what is wrong with them."""
    if show < 0:
        raise ConfigError(f"--show {show}: give 0 or more")
    found = describe_data(overrides, config_dirs, show)
    advice = advise(found)
    if as_json:
        told = {**asdict(found), "kind": found.kind.name, "warnings": [asdict(a) for a in advice]}
        print(dump_json(told, indent=2))
        return 0
    out = console()
    for table in _tables(found):
        out.print(table)
        out.print()
    _print_leaks(out, found)
    notes = found.origin.get("notes", ())
    warn(notes)
    _print_advice(out, advice, noted=bool(notes))
    return 0


def describe_data(
    overrides: Sequence[str], config_dirs: Sequence[Path] = (), examples: int = 3
) -> Description:
    """Describe the data that a configuration would train on.

    Raises:
        ConfigError: The configuration is wrong.
        DataError: The data are missing, malformed or too few.
    """
    config, _ = checked(overrides, config_dirs)
    source, prepared = prepare_data(config)
    parts = load_each(source, prepared.kind)
    tokenizer = make(config, "tokenizer")
    encoded = encode_each(parts, tokenizer, prepared.kind)  # from the cache by now
    tokens = [one.tokens for one in encoded.values()]
    whole = {
        split: {field: ragged.joined([one[split][field] for one in tokens]) for field in fields}
        for split, fields in tokens[0].items()
    }
    splits = joined(parts) if prepared.mix else next(iter(parts.values()))
    found = describe(splits, whole, prepared, source, examples)
    if prepared.mix is None:
        return found
    trainer = make(config, "trainer")
    steps = trainer.total_steps(DataModule(prepared, source, config["seed"]).steps_per_epoch)
    return replace(found, sources=prepared.mix.described(steps))


def _tables(found: Description) -> Iterator[Table]:
    if found.sources:
        yield _sources(found.sources)
    yield _sizes(found)
    if any(part.samples > 1 for part in found.splits.values()):
        yield _lengths(found)
    if any(part.labels for part in found.splits.values()):
        yield _labels(found)
    yield _leakage(found)


def _table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _sources(sources: Mapping[str, Mapping[str, Any]]) -> Table:
    table = _table("Sources", [""], ["samples", "tokens", "bytes", "share", "epochs"])
    for name, source in sources.items():
        train = source["splits"]["train"]
        sizes = (f"{train[what]:,}" for what in ("samples", "tokens", "bytes"))
        table.add_row(name, *sizes, percent(source["share"]), figure(source["epochs"], 3))
    return table


def _sizes(found: Description) -> Table:
    table = _table("Data", [""], list(found.splits))
    parts = list(found.splits.values())
    table.add_row("samples", *(f"{p.samples:,}" for p in parts))
    if found.packed:
        table.add_row(f"windows of {found.max_length}", *(f"{p.rows:,}" for p in parts))
    table.add_row("tokens", *(f"{p.tokens:,}" for p in parts))
    table.add_row("bytes", *(f"{p.bytes:,}" for p in parts))
    if not found.packed:
        rows = (_share(p.truncated, p.samples) for p in parts)
        table.add_row(f"longer than {found.max_length}", *rows)
    table.add_row("unknown tokens", *(_share(p.unknown, p.tokens) for p in parts))
    table.add_row("tokens not in train", *(_share(p.unseen, p.tokens) for p in parts))
    used = found.vocabulary
    table.add_row("vocabulary used", f"{used.used:,} of {used.size:,}")
    twice = [p.duplicates for p in parts]
    table.add_row(f"repeated {found.kind.unit}", *(_share(d.repeated, d.passages) for d in twice))
    if found.kind.answer:
        table.add_row(
            f"… with another {found.kind.answer}",
            *(_share(d.contradictory, d.passages) for d in twice),
        )
    if shapes := [p.pairs for p in parts if p.pairs]:
        counts = [part.samples for part in parts]
        odd = [("odd lengths", "odd")] if found.kind.aligned else []
        for name, field in (*odd, ("empty side", "empty"), ("copied", "copied")):
            values = (getattr(shape, field) for shape in shapes)
            table.add_row(name, *map(_share, values, counts))
    return table


def _lengths(found: Description) -> Table:
    table = _table("Tokens in a sample", ["", ""], list(QUANTILES))
    for split, part in found.splits.items():
        for field, lengths in part.lengths.items():
            table.add_row(split, field, *(f"{value:,.0f}" for value in lengths.values()))
    for split, part in found.splits.items():
        if part.pairs:
            table.add_row(split, "ratio", *(f"{v:.2f}" for v in part.pairs.ratio.values()))
    return table


def _labels(found: Description) -> Table:
    counts = {split: part.labels or {} for split, part in found.splits.items()}
    names = sorted(counts["train"], key=lambda name: -counts["train"][name])
    table = _table("Labels", ["label"], list(counts))
    for name in names[:LABELS]:
        cells = (_share(c[name], sum(c.values())) for c in counts.values())
        table.add_row(name, *cells)
    if rest := names[LABELS:]:
        cells = (_share(sum(c[n] for n in rest), sum(c.values())) for c in counts.values())
        table.add_row(f"{len(rest)} more", *cells)
    return table


def _leakage(found: Description) -> Table:
    last = f"other {found.kind.answer}" if found.kind.answer else "8-grams"
    table = _table("Leakage", ["of", "in"], [found.kind.unit, "the same", "alike", last])
    for leak in found.leakage:
        share = (
            _share(leak.other_answer, leak.exact + leak.near)
            if leak.ngrams is None
            else percent(leak.ngrams)
        )
        row = f"{leak.passages:,}", _share(leak.exact, leak.passages)
        table.add_row(leak.split, leak.other, *row, _share(leak.near, leak.passages), share)
    return table


def _print_leaks(out: Console, found: Description) -> None:
    for leakage in found.leakage:
        for leak in leakage.examples:
            text = Text(f"{leakage.split} in {leakage.other}: ", style="dim")
            text.append(_side(leak.text, leak.answer), style="not dim")
            if leak.similarity < 1 or leak.answer != leak.twin_answer:
                text.append(f"\n  {_alike(leak)} ")
                text.append(_side(leak.twin, leak.twin_answer), style="not dim")
            out.print(text)
    if any(leakage.examples for leakage in found.leakage):
        out.print()


def _alike(leak: Leak) -> str:
    return "the same as" if leak.similarity == 1 else f"{percent(leak.similarity)} alike:"


def _side(text: str, answer: str | None) -> str:
    """A passage on one line, and its label or translation."""
    parts = [" ".join(part.split()) for part in (text, answer) if part is not None]
    return " → ".join(p if len(p) <= WIDEST else p[: WIDEST - 1] + "…" for p in parts)


def _print_advice(out: Console, advice: Sequence[Advice], noted: bool) -> None:
    for one in advice:
        out.print(Text.assemble(("Warning: ", "bold yellow"), f"{one.problem}. {one.remedy}."))
    if not advice:
        out.print(Text("Nothing else to warn of." if noted else "No warnings.", "green"))


def _share(count: int, whole: int) -> str:
    """A count and its percentage; nothing for zero."""
    return f"{count:,} ({percent(count / whole)})" if count else "0"
