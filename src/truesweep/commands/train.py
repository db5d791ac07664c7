"""`truesweep train`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from truesweep.commands.show import show_plan, show_result
from truesweep.config import freeze, redact_argv
from truesweep.jobs.directory import RunDirectory
from truesweep.jobs.launch import launch
from truesweep.jobs.plan import Plan, plan, plan_again
from truesweep.record.provenance import collect


def train(
    overrides: Sequence[str], config_dirs: Sequence[Path], repeat: Path | None, dry_run: bool
) -> int:
    """Check everything, freeze it in a new directory, and start it from there."""
    job = plan_again(repeat, overrides) if repeat else plan(overrides, config_dirs)
    show_plan(job)
    if dry_run:
        return 0
    run = create_run(job, Path("outputs"))
    code = launch(run)
    show_result(run, code)
    return code


def create_run(job: Plan, root: Path) -> RunDirectory:
    """The directory of a planned job."""
    return RunDirectory.create(
        root / job.name / job.id,
        config=freeze(job.config),
        overrides=job.overrides,
        provenance=collect(redact_argv(sys.argv), job.prepared.origin),
    )
