"""`truesweep compare`."""

import csv
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from truesweep import text
from truesweep.commands.ranking_table import print_ranking
from truesweep.errors import ConfigError
from truesweep.figures import HARNESS, written
from truesweep.record.files import dump_json
from truesweep.report import Comparison, compare, write_report
from truesweep.report.findings import findings
from truesweep.report.varying import setting
from truesweep.runs import evaluations
from truesweep.runs.evaluations import Evaluated
from truesweep.runs.find import find, read_mapping
from truesweep.runs.snapshot import Snapshot
from truesweep.terminal import console, warn


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
        print(dump_json([*(_with_evaluations(shown, r) for r in shown.runs), *of_models], indent=2))
    elif options.csv:
        _print_csv(shown)
    else:
        _print_table(shown)
        of_runs = [(_named(run), later(run)) for run in shown.runs]
        _print_evaluations([*of_runs, *((m.path.name, m.evaluations) for m in models)])
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


def _with_evaluations(comparison: Comparison, run: Snapshot) -> dict[str, Any]:
    return {**row(comparison, run), "evaluations": later(run)}


def _named(run: Snapshot) -> str:
    return os.path.relpath(run.directory.path)


def _show_models(models: Sequence[Evaluated], as_json: bool) -> None:
    if as_json:
        print(dump_json([_model(model) for model in models], indent=2))
    else:
        _print_evaluations([(model.path.name, model.evaluations) for model in models])


def _print_evaluations(found: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> None:
    """A row for each evaluation: of which model, on what, and what was found."""
    table = Table(title="Evaluations", title_justify="left", title_style="bold")
    for name in ("model", "on", "figures"):
        table.add_column(name, overflow="fold")
    for name, rows in found:
        for one in rows:
            table.add_row(name, _on(one), "\n".join(_figures(one)))
    if table.row_count:
        console().print(table)


def _on(evaluation: Mapping[str, Any]) -> str:
    """What was evaluated: a split of which data, or tasks; and by which checkpoint."""
    asked = [str(one) for one in evaluation.get("overrides") or ()]
    named = evaluation.get("tasks") or [evaluation.get("split"), *asked]
    last = ["last.ckpt"] if evaluation.get("checkpoint") == "last" else []
    return " ".join(map(str, [*named, *last]))


def _figures(evaluation: Mapping[str, Any]) -> Iterator[str]:
    """What was found, with standard errors; baselines and counts are left to the file."""
    for name, value in evaluation.items():
        prefix, _, figure = name.partition("/")
        if prefix not in (evaluation.get("split"), HARNESS) or not isinstance(value, int | float):
            continue
        if figure.endswith(("samples", "_standard_error")):
            continue
        error = evaluation.get(f"{name}_standard_error")
        spread = "" if error is None else f" ± {text.figure(error, 2)}"
        yield f"{figure} {written(name, value)}{spread}"


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
