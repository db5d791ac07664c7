"""`truesweep train -m`."""

import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from truesweep.commands.duel import settle
from truesweep.commands.plugins import (
    SweepTask,
    check_installed,
    run_by_launcher,
    run_by_sweeper,
)
from truesweep.errors import ConfigError
from truesweep.record.files import dump_json, write_atomic
from truesweep.record.provenance import collect
from truesweep.secrets import redact_argv
from truesweep.sweeps import start
from truesweep.sweeps.driver import drive
from truesweep.sweeps.launchers import PACKAGE, is_ours, make_executor
from truesweep.sweeps.request import ask
from truesweep.sweeps.wandb_sweep import wandb_sweep
from truesweep.terminal import console


def sweep(
    overrides: Sequence[str], config_dirs: Sequence[Path], dry_run: bool, as_json: bool = False
) -> int:
    """Check a whole sweep, then run its jobs: all by ourselves, or with a plugin of Hydra's."""
    asked = ask(overrides, config_dirs)
    launcher, sweeper = asked.multirun.launcher, asked.multirun.sweeper
    for node in (launcher, sweeper):
        check_installed(str(node.get("_target_", PACKAGE)))
    executor = make_executor(launcher) if is_ours(launcher) else None
    if not is_ours(sweeper):
        if dry_run:
            raise ConfigError(
                f"--dry-run: only {sweeper['_target_']} itself knows what it will run"
            )
        return run_by_sweeper(SweepTask(asked, executor, start.record(asked, launcher, None)))
    plan = start.prepare(asked, executor, dry_run, silent=as_json)
    asked = start.as_decided(asked, plan)
    if as_json:
        print(dump_json(start.plain_plan(asked, plan), indent=2))
    if dry_run:
        return 0
    directory, provenance = start.record(asked, launcher, plan), collect(redact_argv(sys.argv), {})
    source = start.make_source(asked, directory, provenance, plan)
    if executor is not None:
        code = drive(directory, source, executor, asked.settings)
        return settle(directory) if asked.settings.settle and code == 0 else code
    return run_by_launcher(SweepTask(asked, None, directory), source)


def print_jobs(form: str, overrides: Sequence[str], config_dirs: Sequence[Path]) -> int:
    """Make a sweep's jobs and start none: a command for each, for whatever starts them.

    The commands may run anywhere that sees the same files, in any order, and be repeated.

    Raises:
        ConfigError: The jobs are not known beforehand, or the form is not.
    """
    if form != "json":
        raise ConfigError(f"--jobs {form}: expected json")
    asked = ask(overrides, config_dirs)
    if asked.settings.method == "search" or not is_ours(asked.multirun.sweeper):
        raise ConfigError("--jobs: a search chooses its jobs by the results of others; start it")
    plan = start.prepare(asked, None, silent=True)
    for line in plan.notes:
        console(stderr=True).print(f"Note: {line}", soft_wrap=True)
    directory = start.record(asked, {}, plan)
    jobs = start.add_jobs(directory, plan.jobs, collect(redact_argv(sys.argv), {}))
    rows = [
        {
            "id": job.id,
            "label": job.label,
            "state": job.state,
            "devices": job.devices,
            "nodes": job.nodes,
            "command": [sys.executable, "-m", "truesweep", "resume", str(job.path)],
        }
        for job in jobs
    ]
    print(dump_json({"sweep": str(directory.path), "jobs": rows}, indent=2))
    return 0


def write_wandb_sweep(
    overrides: Sequence[str], config_dirs: Sequence[Path], file: Path, dry_run: bool = False
) -> int:
    """Write a sweep for W&B's agents, and say how they are started; a dry run prints it."""
    if file.exists():
        raise ConfigError(f"{file} exists; name a new file, or delete it")
    config = wandb_sweep(ask(overrides, config_dirs))
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    if dry_run:
        print(text, end="")
        return 0
    write_atomic(file, text)
    entity, project = config.get("entity"), config["project"]
    whose = f"--entity {entity} " if entity else ""
    console().print(
        f"Written to {file}. To run it:\n  wandb sweep {whose}--project {project} {file}\n"
        f"  wandb agent {entity or 'ENTITY'}/{project}/SWEEP_ID   (as often as you like)",
        soft_wrap=True,
    )
    return 0
