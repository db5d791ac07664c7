"""`truesweep data`."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from truesweep.data import ragged
from truesweep.data.advice import Advice, advise
from truesweep.data.describe import Description, describe
from truesweep.data.mixture import joined
from truesweep.data.module import DataModule
from truesweep.data.prepare import load_each
from truesweep.data.token_cache import encode_each
from truesweep.errors import ConfigError
from truesweep.jobs.parts import make, prepare_data
from truesweep.jobs.plan import checked
from truesweep.record.files import dump_json
from truesweep.report.data import Grid, alike, side, tables, write_page
from truesweep.terminal import console, titled, warn


def data(
    overrides: Sequence[str],
    config_dirs: Sequence[Path],
    show: int = 3,
    as_json: bool = False,
    html: Path | None = None,
) -> int:
    """Prepare the data of a configuration, and print what they are and what is wrong with them."""
    if show < 0:
        raise ConfigError(f"--show {show}: give 0 or more")
    config = checked(overrides, config_dirs)
    found = describe_data(config, show)
    advice = advise(found)
    if html is not None:
        write_page(found, advice, html, f"Data of {config['name']}")
    if as_json:
        told = {**asdict(found), "kind": found.kind.name, "warnings": [asdict(a) for a in advice]}
        print(dump_json(told, indent=2))
        return 0
    out = console()
    for grid in tables(found):
        out.print(_table(grid))
        out.print()
    _print_leaks(out, found)
    _print_cleaned(out, found, show)
    notes = found.origin.get("notes", ())
    warn(notes)
    _print_advice(out, advice, noted=bool(notes))
    return 0


def describe_data(config: dict[str, Any], examples: int = 3) -> Description:
    """Describe the data that a checked configuration would train on.

    Raises:
        ConfigError: The configuration is wrong.
        DataError: The data are missing, malformed or too few.
    """
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


def _table(grid: Grid) -> Table:
    table = titled(grid.title)
    for name in grid.left:
        table.add_column(name, no_wrap=True)
    for name in grid.right:
        table.add_column(name, justify="right", no_wrap=True)
    for row in grid.rows:
        table.add_row(*row)
    return table


def _print_leaks(out: Console, found: Description) -> None:
    for leakage in found.leakage:
        for leak in leakage.examples:
            text = Text(f"{leakage.split} in {leakage.other}: ", style="dim")
            text.append(side(leak.text, leak.answer), style="not dim")
            if leak.similarity < 1 or leak.answer != leak.twin_answer:
                text.append(f"\n  {alike(leak)} ")
                text.append(side(leak.twin, leak.twin_answer), style="not dim")
            out.print(text)
    if any(leakage.examples for leakage in found.leakage):
        out.print()


def _print_cleaned(out: Console, found: Description, show: int) -> None:
    shown = [
        (split, rule, text)
        for split, account in found.cleaned.items()
        for rule, texts in account.examples.items()
        for text in texts[:show]
    ]
    for split, rule, text in shown:
        said = Text(f"{split}, {rule}: ", style="dim")
        out.print(said.append(side(text, None), style="not dim"))
    if shown:
        out.print()


def _print_advice(out: Console, advice: Sequence[Advice], noted: bool) -> None:
    for one in advice:
        out.print(Text.assemble(("Warning: ", "bold yellow"), f"{one.problem}. {one.remedy}."))
    if not advice:
        out.print(Text("Nothing else to warn of." if noted else "No warnings.", "green"))
