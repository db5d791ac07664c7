"""`truesweep resume`."""

import os
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

from truesweep.commands.output import show_result
from truesweep.commands.sweep_resume import resume_sweep
from truesweep.compat import untried_sentence
from truesweep.errors import ConfigError
from truesweep.jobs.compiling import choose
from truesweep.jobs.extend import change
from truesweep.jobs.launch import launch
from truesweep.jobs.parts import make, prepare_data
from truesweep.jobs.rank import newest_checkpoint
from truesweep.jobs.same_data import check_same_data
from truesweep.jobs.trainer import TrainerSettings
from truesweep.runs.run import Run
from truesweep.sweeps.directory import SweepDirectory
from truesweep.terminal import console, warn


def resume(directory: Path, overrides: Sequence[str] = ()) -> int:
    """Go on where a run stopped; a finished one is left as it is, unless it is made longer."""
    if SweepDirectory.is_sweep(directory):
        warn(untried_sentence())
        return resume_sweep(directory, overrides)
    run = Run.open(directory)
    if run.status.get("state") == "pruned":
        step = run.status.get("step", 0)
        console().print(f"{directory} was pruned after step {step:,}; nothing to do.")
        return 0
    with chdir(run.started_in):
        code = go_on(run, overrides, str(directory))
    show_result(run, code)
    return code


def go_on(run: Run, overrides: Sequence[str], name: str) -> int:
    """Train the rest of a run, in the folder in which it was started; the exit code."""
    out = console()
    checkpoint = newest_checkpoint(run)
    for line in change(run, overrides) if overrides else []:
        out.print(line)
    if run.status.get("state") == "completed":
        unchanged = f", and {' '.join(overrides)} would train no further" if overrides else ""
        out.print(f"{name} is complete{unchanged}; nothing to do.")
        return 0
    config = run.read_config()
    warn(untried_sentence())
    check_same_data(run, prepare_data(config)[1])
    trainer: TrainerSettings = make(config, "trainer")
    if lacking := trainer.lacking():
        raise ConfigError(f"{lacking}; go on on another machine, or add trainer.accelerator=cpu")
    warn(filter(None, [choose(trainer).note]))
    if checkpoint is None:
        out.print("It was stopped before its first checkpoint: starting from the beginning")
    else:
        out.print(f"Resuming from {checkpoint.name}")
    return launch(run, resume=True)


def work_in(run: Run) -> None:
    """Paths in a configuration are relative to where the run was started."""
    os.chdir(run.started_in)
