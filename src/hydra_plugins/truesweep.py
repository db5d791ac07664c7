"""Truesweep as plugins of Hydra's: launchers for the sweepers of others, and the names of ours.

Our own sweeps do not pass here, see `truesweep.commands.sweep`. Hydra imports this whenever it
composes anything, so nothing of a sweep is imported.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins import launcher, sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from truesweep.commands.plugins import Outcome, SweepTask

ONLY_OURS = "truesweep's sweeps are run by `truesweep train -m`"


class _Launcher(launcher.Launcher):
    """Runs jobs that another sweeper asks for on our executors.

    Args:
        **settings: Checked by `truesweep.sweeps.launchers.make_executor`.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take the sweep from the task."""
        if not hasattr(task_function, "run_some"):
            raise HydraException(ONLY_OURS)
        self.task = cast("SweepTask", task_function)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        """Run some jobs; each returns its objective."""
        outcomes = self.task.run_some(job_overrides)
        return [_returned(*pair) for pair in zip(job_overrides, outcomes, strict=True)]


class LocalLauncher(_Launcher):
    """Runs jobs in slots of this machine."""


class SlurmLauncher(_Launcher):
    """Runs jobs on a Slurm cluster."""


class RayLauncher(_Launcher):
    """Runs jobs on a Ray cluster."""


class Sweeper(sweeper.Sweeper):
    """The name of our own sweeps, which Hydra chooses among others' and never runs."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Refuse to be run by another program's `hydra.main`."""
        raise HydraException(ONLY_OURS)

    def sweep(self, arguments: list[str]) -> Any:
        """As `setup`."""
        raise HydraException(ONLY_OURS)


def _returned(overrides: Sequence[str], outcome: "Outcome") -> JobReturn:
    status = JobStatus.COMPLETED if outcome.error is None else JobStatus.FAILED
    value = outcome.value if outcome.error is None else outcome.error
    return JobReturn(overrides=overrides, status=status, _return_value=value)
