"""`truesweep resume` of a sweep."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from truesweep.commands.duel import settle
from truesweep.errors import ConfigError
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.driver import drive
from truesweep.sweeps.launchers import make_executor
from truesweep.sweeps.protocols import JobSource, Listed


def resume_sweep(directory: Path, overrides: Sequence[str] = ()) -> int:
    """Run what is unfinished, from the jobs' directories.

    Nothing is composed but a search's jobs, and those of a command that was killed before all of
    its jobs had a directory.

    Raises:
        ConfigError: It is no sweep's directory, or overrides are given.
    """
    if overrides:
        raise ConfigError(
            f"{' '.join(overrides)}: a sweep is resumed as it is. To add points to it, repeat its "
            "command with more values; to change one of its runs, resume that run's directory"
        )
    sweep = SweepDirectory.open(directory)
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
    from truesweep.sweeps.disk import check_disk
    from truesweep.sweeps.planning import plan_sweep
    from truesweep.sweeps.start import add_jobs

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
    from truesweep.sweeps.start import make_source

    latest = sweep.read()["asked"][-1]
    with _where_typed(latest):
        asked = replace(_ask(latest), settings=sweep.settings)
        return make_source(asked, sweep, _provenance(sweep), None)


def _ask(command: Mapping[str, Any]) -> Any:
    from truesweep.sweeps.request import ask

    return ask(command["overrides"], [Path(folder) for folder in command["config_dirs"]])


def _provenance(sweep: SweepDirectory) -> dict[str, Any]:
    from truesweep.record.provenance import collect

    return collect(["truesweep", "resume", str(sweep.path)], {})


@contextmanager
def _where_typed(command: Mapping[str, Any]) -> Iterator[None]:
    """What a command's relative paths are relative to; here, if that folder has moved."""
    folder = Path(command["directory"])
    with chdir(folder if folder.is_dir() else Path.cwd()):
        yield
