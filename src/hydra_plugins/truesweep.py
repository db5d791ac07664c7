"""Hydra's view of truesweep's sweeps: a sweeper and two launchers.

They are thin. What is asked for is read by `truesweep.sweeps.ask`, checked by
`truesweep.sweeps.planning` and run by `truesweep.sweeps.driver`; other sweepers and launchers of
Hydra's may take the place of these. Hydra imports this whenever it composes anything, so nothing of
a sweep is imported before there is one.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins import launcher, sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from truesweep.sweeps.foreign import Outcome


class Sweeper(sweeper.Sweeper):
    """Plans the whole sweep and gives it to a launcher: one of ours at once, any other as jobs."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what is to be swept from the task."""
        from hydra.core.plugins import Plugins

        from truesweep.commands.sweep import SweepTask

        assert isinstance(task_function, SweepTask)
        self.task = task_function
        self.launcher: launcher.Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run the sweep; gives the exit code."""
        if isinstance(self.launcher, _Launcher):
            return self.task.run()
        other = self.launcher
        return self.task.run_by(lambda jobs: other.launch(jobs, initial_job_idx=0))


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
        from truesweep.commands.sweep import SweepTask

        assert isinstance(task_function, SweepTask)
        self.task = task_function

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


def _returned(overrides: Sequence[str], outcome: "Outcome") -> JobReturn:
    status = JobStatus.COMPLETED if outcome.error is None else JobStatus.FAILED
    value = outcome.value if outcome.error is None else outcome.error
    return JobReturn(overrides=overrides, status=status, _return_value=value)
