"""`truesweep verify`."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from truesweep.errors import ConfigError
from truesweep.jobs.logs import quiet
from truesweep.jobs.parts import prepare_data
from truesweep.jobs.same_data import changed_data
from truesweep.jobs.verify import Check, tolerance, verify
from truesweep.record.files import dump_json
from truesweep.runs.run import Run
from truesweep.terminal import console, warn
from truesweep.text import figure, value

COLOURS = {"identical": "green", "equal to rounding": "green", "differs": "bold red"}


def verify_run(directory: Path, steps: int, as_json: bool = False) -> int:
    """Show what is the same however a run is carried out; 1 if anything is not."""
    if steps < 2:
        raise ConfigError(f"--steps {steps}: at least 2 are needed, to stop between them")
    run = Run.open(directory)
    os.chdir(run.started_in)  # to which paths in its configuration are relative
    config = run.read_config()
    precision = str(config["trainer"]["precision"])
    changed = changed_data(run, prepare_data(config)[1])
    if changed:
        text = f"{changed} since {run.id} began; what is verified are these"
        warn([text], stderr=True)
    limit = tolerance(precision)
    checks = []
    with quiet(), console(stderr=as_json).status("Training the first steps…") as status:
        for check in verify(run, steps):
            checks.append(check)
            status.update(Text(f"{check.name}: {check.verdict} …"))
    failed = int(any(check.verdict == "differs" for check in checks))
    if as_json:
        shown: dict[str, Any] = {"steps": steps, "precision": precision}
        shown["changed_data"] = changed.what if changed else ""
        shown["tolerance"] = asdict(limit)
        print(dump_json({**shown, "checks": [asdict(check) for check in checks]}, indent=2))
        return failed
    console().print(_table(checks, steps))
    note = (
        f"Differences relative to the largest loss and to the whole update of the weights; at "
        f"precision {precision}, up to {value(limit.losses)} and "
        f"{value(limit.weights)} are rounding."
    )
    console().print(Text(note, "dim"))
    return failed


def _table(checks: list[Check], steps: int) -> Table:
    table = Table(title=f"{steps} steps, against the first time", title_justify="left")
    table.add_column("")
    table.add_column("losses", justify="right")
    table.add_column("weights", justify="right")
    table.add_column("verdict")
    for check in checks:
        colour = COLOURS.get(check.verdict, "dim")
        note = f" ({check.note})" if check.note else ""
        differences = (check.loss_difference, check.weight_difference)
        shown = [
            "" if value is None else figure(value, 2) if value else "0" for value in differences
        ]
        table.add_row(check.name, *shown, Text.assemble((check.verdict, colour), note))
    return table
