"""`truesweep resume`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from truesweep.commands.duel import resume_duel, settle
from truesweep.commands.output import show_result
from truesweep.compat import untried_sentence
from truesweep.config.overrides import split_hydras
from truesweep.errors import ConfigError, DataError
from truesweep.jobs.compiling import choose
from truesweep.jobs.extend import change
from truesweep.jobs.launch import launch
from truesweep.jobs.parts import make, prepare_data
from truesweep.jobs.rank import check_record, newest_checkpoint
from truesweep.jobs.same_data import check_same_data
from truesweep.jobs.trainer import TrainerSettings
from truesweep.record.provenance import collect
from truesweep.runs.run import Run, write_entries
from truesweep.sweeps.alone import change_launcher, read_launcher, run_alone
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.disk import check_disk
from truesweep.sweeps.driver import drive
from truesweep.sweeps.launchers import describe, make_executor
from truesweep.sweeps.planning import plan_sweep
from truesweep.sweeps.protocols import Executor, JobSource, Listed
from truesweep.sweeps.request import Asked, ask
from truesweep.sweeps.siblings import started_by_itself
from truesweep.sweeps.start import add_jobs, make_source
from truesweep.terminal import console, warn


def resume(directory: Path, overrides: Sequence[str] = ()) -> int:
    """Go on where a run stopped; a finished one is left as it is, unless it is made longer."""
    if SweepDirectory.is_sweep(directory):
        warn(untried_sentence())
        return resume_sweep(directory, overrides)
    run = Run.open(directory, or_sweep=True)
    hydras, own = split_hydras(overrides)
    launcher = run.read_provenance().get("launcher")
    if hydras:
        launcher = read_launcher(hydras, [])
        change_launcher(run, launcher)
    if run.status.get("state") == "pruned":
        step = run.status.get("step", 0)
        console().print(f"{directory} was pruned after step {step:,}; nothing to do.")
        return 0
    if run.state == "paused":
        leave_search(run)
    with chdir(run.started_in), started_by_itself(run):
        executor = make_executor(launcher) if launcher else None
        done = run.status.get("state") == "completed"
        if executor and not done and executor.takes_up(run):
            code = take_up(run, own, executor)
        else:
            code = go_on(run, own, str(directory), executor)
    show_result(run, code)
    return code


def leave_search(run: Run) -> None:
    """Have a job that its search has paused train to its end, as it is asked for by itself."""
    place = run.job
    trial = {**(place.get("trial") or {}), "pruner": None}
    write_entries(run.path / "job.json", {**place, "trial": trial})


def take_up(run: Run, overrides: Sequence[str], executor: Executor) -> int:
    """Follow a run that is in a cluster's queue; the exit code."""
    if overrides:
        raise ConfigError(
            f"{' '.join(overrides)}: {run.path.name} waits or runs on {describe(executor)}; change "
            "it after its end, or cancel it there before"
        )
    return run_alone(run, executor)


def go_on(run: Run, overrides: Sequence[str], name: str, executor: Executor | None = None) -> int:
    """Train the rest of a run, in the folder in which it was started; the exit code.

    Args:
        run: The run.
        overrides: What to change of it.
        name: What it is called.
        executor: What trains it; None: this process.
    """
    out = console()
    if run.status.get("state") == "completed" and not overrides:
        if run.problem is not None:
            raise DataError(run.problem)
        out.print(f"{name} is complete; nothing to do.")
        return 0
    checkpoint = newest_checkpoint(run)
    check_record(run, checkpoint)
    for line in change(run, overrides) if overrides else []:
        out.print(line)
    if run.status.get("state") == "completed":
        unchanged = f"{' '.join(overrides)} would train no further"
        out.print(f"{name} is complete, and {unchanged}; nothing to do.")
        return 0
    config = run.read_config()
    warn(untried_sentence())
    check_same_data(run, prepare_data(config)[1])
    trainer: TrainerSettings = make(config, "trainer")
    if not executor and (lacking := trainer.lacking()):
        raise ConfigError(f"{lacking}; go on on another machine, or add trainer.accelerator=cpu")
    warn(filter(None, [] if executor else [choose(trainer).note]))
    if checkpoint is None:
        out.print("There is no checkpoint: starting from the beginning")
    else:
        out.print(f"Resuming from {checkpoint.name}")
    return run_alone(run, executor) if executor else launch(run, resume=True)


# -- a sweep ---------------------------------------------------------------------------------------


def resume_sweep(directory: Path, overrides: Sequence[str] = ()) -> int:
    """Run what is unfinished, from the jobs' directories.

    Nothing is composed but a search's jobs, those of a command that was killed before all of its
    jobs had a directory, and a duel's, which adds seeds until it is decided.

    Raises:
        ConfigError: It is no sweep's directory, or overrides are given.
    """
    if overrides:
        raise ConfigError(
            f"{' '.join(overrides)}: a sweep is resumed as it is. To add points to it, repeat its "
            "command with more values; to change one of its runs, resume that run's directory"
        )
    sweep = SweepDirectory.open(directory)
    if "duel" in (record := sweep.read()):
        with _where_typed(record["asked"][-1]):
            return resume_duel(sweep)
    settings, executor = sweep.settings, make_executor(sweep.launcher)
    source = _search(sweep) if settings.method == "search" else _listed(sweep)
    code = drive(sweep, source, executor, settings)
    return settle(sweep) if settings.settle and code == 0 else code


def _listed(sweep: SweepDirectory) -> JobSource:
    for command in sweep.read()["asked"]:
        missing = sweep.missing(command)
        if missing:
            _make(sweep, command, missing)
    return Listed(sweep.jobs())


def _make(sweep: SweepDirectory, command: Mapping[str, Any], missing: set[str]) -> None:
    """Make the jobs that a command has not come to."""
    with _where_typed(command):
        jobs = [job for job in plan_sweep(_ask(command)).jobs if job.id in missing]
        if len(jobs) < len(missing):
            raise ConfigError(
                f"{sweep.asked}: {len(missing) - len(jobs)} of its jobs have no directory, and the "
                "same command means other jobs now: the program, a configuration's file, the "
                "environment or (for what is auto) the machine has changed. Repeat it "
                f"with what you want: truesweep train -m {' '.join(command['overrides'])}"
            )
        check_disk(jobs, sweep.path)
        add_jobs(sweep, jobs, _provenance(sweep))


def _search(sweep: SweepDirectory) -> JobSource:
    latest = sweep.read()["asked"][-1]
    with _where_typed(latest):
        asked = replace(_ask(latest), settings=sweep.settings)
        return make_source(asked, sweep, _provenance(sweep), None)


def _ask(command: Mapping[str, Any]) -> Asked:
    return ask(command["overrides"], [Path(folder) for folder in command["config_dirs"]])


def _provenance(sweep: SweepDirectory) -> dict[str, Any]:
    return collect(["truesweep", "resume", str(sweep.path)], {})


@contextmanager
def _where_typed(command: Mapping[str, Any]) -> Iterator[None]:
    """What a command's relative paths are relative to; here, if that folder has moved."""
    folder = Path(command["directory"])
    with chdir(folder if folder.is_dir() else Path.cwd()):
        yield
