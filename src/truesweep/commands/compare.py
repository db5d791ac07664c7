"""`truesweep compare`."""

import csv
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from truesweep.commands.ranking_table import print_ranking
from truesweep.record.files import dump_json
from truesweep.report import Comparison, compare, write_report
from truesweep.report.findings import findings
from truesweep.report.varying import setting
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
    """Print runs beside each other, and write the page that shows them."""
    found = compare(directories, options.objective).filtered(options.filters)
    shown = found.sorted(options.sort) if options.sort else found
    warn((problem.rstrip(".") for run in shown.runs for problem in run.problems), stderr=True)
    if options.json:
        print(dump_json([row(shown, run) for run in shown.runs], indent=2))
    elif options.csv:
        _print_csv(shown)
    else:
        _print_table(shown)
    if options.html or not (options.json or options.csv):
        _write_page(found, options)
    return 0


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
