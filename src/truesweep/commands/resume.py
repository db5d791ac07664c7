"""`truesweep resume`."""

import os
from pathlib import Path

from rich.console import Console

from truesweep.commands.show import show_result
from truesweep.errors import ConfigError
from truesweep.jobs.directory import RunDirectory
from truesweep.jobs.launch import launch
from truesweep.jobs.rank import newest_checkpoint


def resume(directory: Path) -> int:
    """Go on where a run stopped; a finished one is left as it is."""
    run = RunDirectory.open(directory)
    if run.status.get("state") == "completed":
        Console().print(f"{directory} is complete; nothing to do.", highlight=False)
        show_result(run, 0)
        return 0
    try:
        checkpoint = newest_checkpoint(run)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{error}: the run ended before its first checkpoint. Repeat it with "
            f"truesweep train --from {directory} seed=…, or delete it and train again"
        ) from None
    Console().print(f"Resuming from {checkpoint.name}", highlight=False)
    work_in(run)
    code = launch(run, resume=True)
    show_result(run, code)
    return code


def work_in(run: RunDirectory) -> None:
    """Paths in a configuration are relative to where the run was started."""
    started_in = Path(run.read_provenance().get("directory", "."))
    if started_in.is_dir():
        os.chdir(started_in)
