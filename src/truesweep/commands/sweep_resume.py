"""`truesweep resume` of a sweep."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from truesweep.errors import ConfigError
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.driver import drive
from truesweep.sweeps.executor import Executor
from truesweep.sweeps.pool import LocalPool
from truesweep.sweeps.settings import Sweep
from truesweep.sweeps.source import JobSource, Listed


def resume_sweep(directory: Path, overrides: Sequence[str] = ()) -> int:
    """Run what is unfinished, from the jobs' directories; nothing is composed but a search's jobs.

    Raises:
        ConfigError: It is no sweep's directory, or overrides are given.
    """
    if overrides:
        raise ConfigError(
            f"{' '.join(overrides)}: a sweep is resumed as it is. To add points to it, repeat its "
            "command with more values; to change one of its runs, resume that run's directory"
        )
    sweep = SweepDirectory.open(directory)
    settings = sweep.settings
    return drive(sweep, _source(sweep, settings), executor_for(sweep.launcher), settings)


def executor_for(launcher: Mapping[str, Any]) -> Executor:
    """What runs a sweep's jobs, by the launcher that was asked for; another's jobs run here."""
    values = {key: value for key, value in launcher.items() if key != "_target_"}
    if "Slurm" in str(launcher.get("_target_")):
        from truesweep.sweeps.slurm import SlurmExecutor, SlurmSettings

        return SlurmExecutor(SlurmSettings(**values))
    return LocalPool(values.get("slots"))


def _source(sweep: SweepDirectory, settings: Sweep) -> JobSource:
    if settings.method != "search":
        return Listed(sweep.jobs())
    from truesweep.record.provenance import collect
    from truesweep.sweeps.ask import ask
    from truesweep.sweeps.planning import JobMaker, base_seed
    from truesweep.sweeps.study import Search

    latest = sweep.read()["asked"][-1]
    os.chdir(latest["directory"])  # what its relative paths are relative to
    asked = ask(latest["overrides"], [Path(folder) for folder in latest["config_dirs"]])
    maker = JobMaker(asked, sweep, collect(["truesweep", "resume", str(sweep.path)], {}))
    return Search(sweep, asked.space, settings, maker, seed=base_seed(asked))
