"""A run by itself on a cluster: submitted, followed and waited for, as a sweep's driver would.

The command may die at any time: the run goes on, and `truesweep resume` finds it in the queue. Its
directory is what it would be on this machine, but for its provenance, which has `launcher` besides.
"""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from truesweep.config.compose import compose_multirun
from truesweep.config.overrides import split_hydras
from truesweep.errors import ConfigError
from truesweep.interrupts import stopped_by
from truesweep.record.files import write_json
from truesweep.runs.run import Run
from truesweep.sweeps.driver import SECONDS_PER_LOOK, listening
from truesweep.sweeps.launchers import describe, is_cluster, make_executor
from truesweep.sweeps.planned import trainer_of
from truesweep.sweeps.protocols import BUSY, LOST, Executor, NotNow
from truesweep.terminal import console

SECONDS_TO_TRY_AGAIN = 5.0
"""How long a run that cannot be submitted at the moment waits until it is tried again."""


def read_launcher(overrides: Sequence[str], config_dirs: Sequence[Path]) -> dict[str, Any]:
    """The launcher's node that a command line without `-m` chooses; empty: this machine.

    Args:
        overrides: The command line, with settings of Hydra's own.
        config_dirs: The user's own folders of configuration.

    Raises:
        ConfigError: It sets what is for sweeps only, or a wrong key or value.
    """
    lines = [line.lstrip("+") for line in split_hydras(overrides)[0]]
    for line in lines:
        if line.startswith(("hydra/sweeper", "hydra.sweeper")):
            raise ConfigError(f"{line}: is for a sweep; add -m")
    node = compose_multirun(overrides, config_dirs).launcher
    if is_cluster(node):
        make_executor(node)
        return node
    for line in lines:
        if line != "hydra/launcher=local":
            raise ConfigError(
                f"{line}: has no effect on a run by itself, which is started here or by "
                "hydra/launcher=slurm or ray; for a sweep, add -m"
            )
    return {}


def change_launcher(run: Run, launcher: Mapping[str, Any]) -> None:
    """Note where a run is to go on from now on."""
    write_json(run.path / "provenance.json", {**run.read_provenance(), "launcher": dict(launcher)})


def run_alone(run: Run, executor: Executor) -> int:
    """Have an executor run a job to its end, and show what its first rank says meanwhile.

    Returns:
        The exit code: 0 done, pruned or paused, 1 failed, 130 interrupted, 143 preempted.

    Raises:
        ConfigError: It cannot be started, or another process works on it.
    """
    executor.check(trainer_of(run), run.label)
    log = Log(run.log(0))
    code: int | None = None
    with listening(executor) as told:
        console().print(f"runs on    {describe(executor)}; it goes on if this command is killed")
        executor.start(run, resume=bool(run.status))
        try:
            while code is None and not told.signum:
                code = _wait(run, executor)
                log.show()
        finally:
            executor.stop(told.signum or signal.SIGTERM)
    log.show()
    if code == BUSY:
        raise ConfigError(f"{os.path.relpath(run.path)} is being worked on; wait for its end")
    if code is None:
        return stopped_by(told.signum)
    error = run.status.get("error")
    if code == 1 and error and not log.told_failure:  # by the cluster, before it could say so
        console(stderr=True).print(f"The run failed: {error}", soft_wrap=True)
    return code


def _wait(run: Run, executor: Executor) -> int | None:
    """The exit code of a run that has ended; one whose place is lost is started again."""
    try:
        code = next((code for _, code in executor.wait(SECONDS_PER_LOOK)), None)
    except NotNow:
        time.sleep(SECONDS_TO_TRY_AGAIN)
        code = LOST
    if code != LOST:
        return code
    executor.start(run, resume=True)
    return None


class Log:
    """What a log has to say from now on.

    Args:
        path: The log, which may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told_failure = False
        self._shown = path.stat().st_size if path.exists() else 0  # bytes

    def show(self) -> None:
        """Print what is new, in whole lines."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._shown)
            new = file.read()
        lines = new[: new.rfind(b"\n") + 1]
        self._shown += len(lines)
        text = lines.decode(errors="replace")
        self.told_failure |= "The run failed:" in text
        print(text, end="", flush=True)
