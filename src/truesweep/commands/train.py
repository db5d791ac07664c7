"""`truesweep train`."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

from truesweep.commands.output import plain_plan, show_plan, show_result
from truesweep.config.overrides import split_hydras
from truesweep.errors import ConfigError
from truesweep.jobs.extend import made_longer
from truesweep.jobs.launch import launch
from truesweep.jobs.plan import Plan, plan, plan_again
from truesweep.jobs.processes import SECONDS_TO_MEET, this_node
from truesweep.jobs.same_data import TOKENIZER, changed_data
from truesweep.record.files import dump_json
from truesweep.record.frozen import freeze
from truesweep.record.provenance import collect
from truesweep.runs.run import Run
from truesweep.secrets import redact_argv
from truesweep.terminal import console, warn


def train(
    overrides: Sequence[str],
    config_dirs: Sequence[Path],
    repeat: Path | None,
    dry_run: bool,
    as_json: bool = False,
) -> int:
    """Check everything, freeze it in a new directory, and start it from there."""
    outputs = Path("outputs").absolute()
    launcher = read_launcher(overrides, config_dirs)
    overrides = split_hydras(overrides)[1]
    original = Run.open(repeat) if repeat else None
    with chdir(original.started_in if original else Path()):
        job = plan_again(original.path, overrides) if original else plan(overrides, config_dirs)
        notes = departures(original, job) if original else []
        if not launcher and not original:
            notes += for_sweeps_only(job)
        lacking = None if launcher else job.trainer.lacking()
        if dry_run and as_json:
            print(dump_json({**plain_plan(job), "notes": notes, "lacking": lacking}, indent=2))
            return 0
        for line in notes:
            console().print(f"Note: {line}")
        show_plan(job)
        if dry_run:
            warn([lacking] if lacking else [])
            return 0
        if lacking:
            raise ConfigError(f"{lacking}; train on another machine, or set trainer=cpu")
        folder = outputs / job.name / job.id
        if launcher:
            run, code = on_cluster(job, folder, launcher)
        else:
            node = this_node(job.trainer.num_nodes)
            run = create_run(job, folder) if node.first else made_by_first_node(folder)
            code = launch(run, node=node)
    show_result(run, code)
    return code


def for_sweeps_only(job: Plan) -> list[str]:
    """What files say of a launcher or a sweeper, of which a single run takes no notice."""
    if not job.for_sweeps:
        return []
    return [
        f"{', '.join(job.for_sweeps)}: for sweeps only, and not used here. To have this run "
        "started by a launcher, type hydra/launcher=NAME; for a sweep, add -m"
    ]


def read_launcher(overrides: Sequence[str], config_dirs: Sequence[Path]) -> dict[str, Any]:
    """The node of the launcher that is to run the job; empty: none, this process is to."""
    if not split_hydras(overrides)[0]:
        return {}
    from truesweep.sweeps import alone  # as below: no other training needs a sweep's parts

    return alone.read_launcher(overrides, config_dirs)


def on_cluster(job: Plan, folder: Path, launcher: dict[str, Any]) -> tuple[Run, int]:
    """Make a planned job's directory and have a launcher run it; the exit code."""
    from truesweep.sweeps.alone import run_alone
    from truesweep.sweeps.launchers import make_executor

    executor = make_executor(launcher)
    executor.check(job.trainer, folder.name)
    run = create_run(job, folder, {"launcher": launcher})
    return run, run_alone(run, executor)


def departures(original: Run, job: Plan) -> list[str]:
    """In what a run's repetition departs from it without having been asked to."""
    said = []
    change = changed_data(original, job.prepared)
    asked = original.read_config()["tokenizer"] != job.config["tokenizer"]
    if change and not (change.what == TOKENIZER and asked):
        said.append(f"{change} since {original.path.name} began")
    if made_longer(original):
        said.append(
            f"{original.path.name} was made longer on its way; this trains {job.total_steps:,} "
            "steps under one schedule from the start, which is another training"
        )
    return said


def create_run(job: Plan, folder: Path, further: Mapping[str, Any] | None = None) -> Run:
    """The directory of a planned job, with further entries of its provenance."""
    return Run.create(
        folder,
        config=freeze(job.config),
        overrides=job.overrides,
        provenance={**collect(redact_argv(sys.argv), {}), **job.origin, **(further or {})},
        job=place_in_a_sweep(job),
    )


def place_in_a_sweep(job: Plan) -> dict[str, Any] | None:
    """The place of a run that W&B's agent has started; no other run has one."""
    if "WANDB_SWEEP_ID" not in os.environ:
        return None
    from truesweep.sweeps.wandb_sweep import agents_job  # no other training needs a sweep's parts

    return agents_job(job.name, job.overrides)


def made_by_first_node(folder: Path) -> Run:
    """The directory that the first of several nodes makes, on a file system that all of them see.

    Raises:
        ConfigError: It does not appear.
    """
    deadline = time.monotonic() + SECONDS_TO_MEET
    while not (folder / "config.yaml").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    return Run.open(folder)
