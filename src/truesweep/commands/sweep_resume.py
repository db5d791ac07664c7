"""`truesweep resume` of a sweep."""

import os
from collections.abc import Sequence
from pathlib import Path

from truesweep.errors import ConfigError
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.driver import drive
from truesweep.sweeps.launchers import make_executor
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
    return drive(sweep, _source(sweep, settings), make_executor(sweep.launcher), settings)


def _source(sweep: SweepDirectory, settings: Sweep) -> JobSource:
    if settings.method != "search":
        return Listed(sweep.jobs())
    from truesweep.record.provenance import collect
    from truesweep.sweeps.ask import ask
    from truesweep.sweeps.start import make_source

    latest = sweep.read()["asked"][-1]
    os.chdir(latest["directory"])  # what its relative paths are relative to
    asked = ask(latest["overrides"], [Path(folder) for folder in latest["config_dirs"]])
    provenance = collect(["truesweep", "resume", str(sweep.path)], {})
    return make_source(asked, sweep, provenance, None)
