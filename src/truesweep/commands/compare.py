"""`truesweep compare`."""

import csv
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from truesweep import text
from truesweep.errors import ConfigError
from truesweep.figures import (
    BUILT_IN,
    HARNESS,
    OWN_COUNT,
    SAMPLES,
    STANDARD_ERROR,
    Declared,
    beside,
    written,
)
from truesweep.record.files import dump_json
from truesweep.report import Comparison, compare, write_report
from truesweep.report.findings import findings
from truesweep.report.varying import setting
from truesweep.runs import evaluations
from truesweep.runs.evaluations import Evaluated
from truesweep.runs.find import find, read_mapping
from truesweep.runs.snapshot import Snapshot
from truesweep.terminal import UNBOUNDED, console, titled, warn


@dataclass(frozen=True)
class Options:
    """What to show of a comparison, and how.

    Args:
        objective: The figure to rank by.
        sort: A key to sort by instead.
        filters: Conditions that the runs shown meet.
        json: Print JSON.
        csv: Print CSV.
        html: Where the page goes; None: into the sweep's directory or the current folder, unless
            filters leave some runs out.
    """

    objective: str | None = None
    sort: str | None = None
    filters: Sequence[str] = ()
    json: bool = False
    csv: bool = False
    html: Path | None = None


def compare_runs(directories: Sequence[Path], options: Options) -> int:
    """Print runs beside each other, and write the page that shows them; list evaluations."""
    models = evaluations.find(directories)
    holders = [one for one in directories if _holds_runs(one) or not evaluations.find([one])]
    if not holders:
        _show_models(models, options.json)
        return 0
    found = compare(holders, options.objective).filtered(options.filters)
    shown = found.sorted(options.sort) if options.sort else found
    warn((problem.rstrip(".") for run in shown.runs for problem in run.problems), stderr=True)
    if options.json:
        of_models = [{**dict.fromkeys(_NO_RUN), **_model(model)} for model in models]
        of_runs = [{**row(shown, run), "evaluations": later(run)} for run in shown.runs]
        print(dump_json([*of_runs, *of_models], indent=2))
    elif options.csv:
        _print_csv(shown)
    else:
        _print_table(shown)
        told = [(os.path.relpath(r.directory.path), later(r), r.figures) for r in shown.runs]
        _print_evaluations([*told, *_of_models(models)])
    if options.html or not (options.json or options.csv):
        _write_page(found, options)
    return 0


def _holds_runs(directory: Path) -> bool:
    try:
        return bool(find([directory]).runs)
    except ConfigError:
        return False


def later(run: Snapshot) -> list[dict[str, Any]]:
    """The evaluations of a run after its own at its end."""
    rows = evaluations.read_tolerantly(run.directory.path)
    return [row for row in rows if not row.get("own")]


_NO_RUN = ("rank", "tied", "step", "tokens", "seconds", "cost", "flops", "verdict")
"""What a model that is no run's has not."""


def _model(model: Evaluated) -> dict[str, Any]:
    """A model that is no run's, and its evaluations, in plain values."""
    return {
        "id": model.path.name,
        "directory": os.path.relpath(model.path),
        "state": "evaluated",
        "model": read_mapping(model.path / evaluations.MODEL),
        "evaluations": model.evaluations,
    }


def _show_models(models: Sequence[Evaluated], as_json: bool) -> None:
    if as_json:
        print(dump_json([_model(model) for model in models], indent=2))
    else:
        _print_evaluations(_of_models(models))


_Evaluations = tuple[str, Sequence[Mapping[str, Any]], Declared]
"""A model's name, its evaluations, and what is declared of their figures."""


def _of_models(models: Sequence[Evaluated]) -> list[_Evaluations]:
    """Those of models that are no run's, which keep no declarations."""
    return [(model.path.name, model.evaluations, BUILT_IN) for model in models]


def _print_evaluations(found: Sequence[_Evaluations]) -> None:
    """A row for each evaluation: of which model, on what, and what was found."""
    table = titled("Evaluations")
    for name in ("model", "on", "figures"):
        table.add_column(name, overflow="fold")
    for name, rows, declared in found:
        for one in rows:
            table.add_row(name, _on(one), "\n".join(_figures(one, declared)))
    if table.row_count:
        console().print(table)


def _on(evaluation: Mapping[str, Any]) -> str:
    """What was evaluated: a split of which data, or tasks; and by which checkpoint."""
    asked = [str(one) for one in evaluation.get("overrides") or ()]
    named = evaluation.get("tasks") or [evaluation.get("split"), *asked]
    last = ["last.ckpt"] if evaluation.get("checkpoint") == "last" else []
    return " ".join(map(str, [*named, *last]))


def _figures(evaluation: Mapping[str, Any], declared: Declared) -> Iterator[str]:
    """What was found, with standard errors; baselines and counts are left to the file."""
    for name, value in evaluation.items():
        prefix, _, figure = name.partition("/")
        if prefix not in (evaluation.get("split"), HARNESS) or not isinstance(value, int | float):
            continue
        last = figure.rpartition("/")[2]
        if last == SAMPLES.name or last.endswith((OWN_COUNT, STANDARD_ERROR)):
            continue
        error = evaluation.get(f"{name}{STANDARD_ERROR}")
        spread = "" if error is None else f" ± {text.figure(error, 2)}"
        yield f"{figure} {written(name, value, declared)}{spread}"


def row(comparison: Comparison, run: Snapshot) -> dict[str, Any]:
    """A run in plain values."""
    return {
        "rank": comparison.rank(run),
        "tied": comparison.tied(run),
        "id": run.id,
        "directory": os.path.relpath(run.directory.path),
        "state": run.state,
        **{key: setting(run, key) for key in comparison.keys},
        comparison.objective.name: comparison.objective.of(run),
        "step": run.step,
        "tokens": run.tokens,
        "seconds": run.seconds,
        "cost": run.cost,
        "flops": run.flops,
        "verdict": run.verdict.get("kind"),
    }


def _print_csv(comparison: Comparison) -> None:
    rows = [row(comparison, run) for run in comparison.runs]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(rows[0] if rows else ())
    writer.writerows(["" if v is None else v for v in entry.values()] for entry in rows)


def _print_table(comparison: Comparison) -> None:
    out = console()
    print_ranking(comparison, out)
    for finding in findings(comparison):
        out.print(Text.assemble((f"{finding.title}: ", "bold"), finding.text))


def _write_page(comparison: Comparison, options: Options) -> None:
    path = options.html or (comparison.found.sweep or Path()) / "report.html"
    notes = console(stderr=True)
    if options.filters and options.html is None:
        place = os.path.relpath(path)
        said = f"{place} is not written: it shows all runs; for a page of these give --html PATH"
        notes.print(Text.assemble(("report", "dim"), f"  {said}"), soft_wrap=True)
        return
    try:
        write_report(comparison, path, options.filters)
    except OSError as error:
        notes.print(f"No report was written: {error}; name a place with --html PATH")
        return
    notes.print(Text.assemble(("report", "dim"), f"  {os.path.relpath(path)}"), soft_wrap=True)


STATES = {
    "completed": "green",
    "running": "cyan",
    "failed": "red",
    "paused": "yellow",
    "pruned": "dim",
    "queued": "dim",
    "interrupted": "yellow",
    "preempted": "yellow",
}
LEAST_MISSED = ("verdict", "FLOP", "cost", "state", "tokens", "samples", "time", "run")
"""In this order columns give way; before them those that tell nothing."""
LEAST_FOLDED = 6
"""Characters of a line of a long value."""


@dataclass(frozen=True)
class Column:
    """A column of the ranking.

    Args:
        name: Its head.
        cells: One a run.
        justify: To which side.
        varied: Whether it is a key that varies; its long values are folded where they must be.
    """

    name: str
    cells: Sequence[str]
    justify: Literal["left", "right"] = "right"
    varied: bool = False


def print_ranking(comparison: Comparison, out: Console) -> None:
    """Print the ranking, and which columns a narrow terminal left out; a pipe gets all."""
    columns = _columns(comparison)
    missed = _missed(columns, out.width) if out.is_terminal else []
    kept = [column for column in columns if column not in missed]
    table = _table(kept)
    table.title = comparison.title
    width = max(out.width, _width(kept, folded=True)) if out.is_terminal else UNBOUNDED
    console(width=width).print(table)
    if missed:
        names = ", ".join(column.name for column in missed)
        out.print(Text(f"Left out to fit: {names}. --csv has all.", "dim"))


def _columns(comparison: Comparison) -> list[Column]:
    """From left to right."""
    runs = comparison.runs

    def optional(
        name: str, cells: Iterable[str], justify: Literal["left", "right"]
    ) -> list[Column]:
        listed = list(cells)
        return [Column(name, listed, justify)] if any(listed) else []

    return [
        Column("#", [_place(comparison, run) for run in runs]),
        Column("run", [run.id for run in runs], "left"),
        *(
            Column(
                comparison.short[key], text.values(setting(run, key) for run in runs), "left", True
            )
            for key in comparison.keys
        ),
        Column(
            comparison.objective.name + _of(comparison),
            text.figures(map(comparison.objective.of, runs), comparison.digits),
        ),
        Column(comparison.unit, text.counts(run.tokens for run in runs)),
        Column("time", [text.duration(run.seconds) for run in runs]),
        Column("cost", [text.duration(run.cost) for run in runs]),
        *optional("FLOP", text.counts(run.flops for run in runs), "right"),
        Column("state", [run.state for run in runs], "left"),
        *optional("verdict", (str(run.verdict.get("kind", "")) for run in runs), "left"),
    ]


def _of(comparison: Comparison) -> str:
    """How many samples the objective is of, if these are not all of the split, in all runs."""
    name = comparison.objective.name
    found = {beside(name, run.results) for run in comparison.runs if run.results}
    return found.pop() if len(found) == 1 else ""


def _place(comparison: Comparison, run: Snapshot) -> str:
    rank = comparison.rank(run)
    return "" if rank is None else f"{rank}{' =' if comparison.tied(run) else ''}"


def _missed(columns: Sequence[Column], width: int) -> list[Column]:
    """The columns that have to go for the others to fit."""
    missed: list[Column] = []
    for column in _least_missed(columns):
        kept = [one for one in columns if one not in missed]
        if _width(kept) <= width:
            break
        missed.append(column)
    return missed


def _least_missed(columns: Sequence[Column]) -> list[Column]:
    """Those that may go; first what is alike in all runs, and a cost that is the time."""
    by_name = {column.name: column for column in columns if not column.varied}
    time = by_name["time"].cells

    def tells(column: Column) -> bool:
        return len(set(column.cells)) > 1 and not (column.name == "cost" and column.cells == time)

    return sorted((by_name[name] for name in LEAST_MISSED if name in by_name), key=tells)


def _table(columns: Sequence[Column]) -> Table:
    table = titled()
    for one in columns:
        table.add_column(one.name, justify=one.justify, no_wrap=not one.varied, overflow="fold")
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(cell, STATES.get(cell, "")) for cell in cells))
    return table


def _width(columns: Sequence[Column], folded: bool = False) -> int:
    """Of the table, with its long values whole or folded as narrowly as they may be."""
    table = _table(columns)
    for column, drawn in zip(columns, table.columns, strict=True):
        drawn.max_width = LEAST_FOLDED if folded and column.varied else None
    return console(width=UNBOUNDED).measure(table).maximum
