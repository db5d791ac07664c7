"""`truesweep train`."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from truesweep.commands.show import show_plan, show_result
from truesweep.config import freeze, redact_argv
from truesweep.jobs.agent import SECONDS_TO_MEET
from truesweep.jobs.directory import RunDirectory
from truesweep.jobs.launch import launch
from truesweep.jobs.nodes import this_node
from truesweep.jobs.parts import make
from truesweep.jobs.plan import Plan, plan, plan_again
from truesweep.jobs.trainer import TrainerSettings
from truesweep.record.provenance import collect
from truesweep.sweeps.wandb_sweep import agents_job


def train(
    overrides: Sequence[str], config_dirs: Sequence[Path], repeat: Path | None, dry_run: bool
) -> int:
    """Check everything, freeze it in a new directory, and start it from there."""
    job = plan_again(repeat, overrides) if repeat else plan(overrides, config_dirs)
    show_plan(job)
    if dry_run:
        return 0
    trainer: TrainerSettings = make(job.config, "trainer")
    node = this_node(trainer.num_nodes)
    folder = Path("outputs") / job.name / job.id
    run = create_run(job, folder) if node.first else made_by_first_node(folder)
    code = launch(run, node=node)
    show_result(run, code)
    return code


def create_run(job: Plan, folder: Path) -> RunDirectory:
    """The directory of a planned job."""
    return RunDirectory.create(
        folder,
        config=freeze(job.config),
        overrides=job.overrides,
        provenance=collect(redact_argv(sys.argv), job.prepared.origin),
        job=agents_job(job.name, job.overrides),
    )


def made_by_first_node(folder: Path) -> RunDirectory:
    """The directory that the first of several nodes makes, on a file system that all of them see.

    Raises:
        ConfigError: It does not appear.
    """
    deadline = time.monotonic() + SECONDS_TO_MEET
    while not (folder / "config.yaml").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    return RunDirectory.open(folder)
