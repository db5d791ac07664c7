"""Where the jobs of a sweep come from, and what runs them: slots of this machine, or a cluster."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from truesweep.runs.run import Run

if TYPE_CHECKING:  # `truesweep status` needs no Lightning
    from truesweep.jobs.trainer import TrainerSettings


class NotNow(Exception):
    """Jobs cannot be started at the moment, as a limit is reached or nobody answers.

    Args:
        reason: Why.
        jobs: Those that `start` had taken, if there were any.
    """

    def __init__(self, reason: str, jobs: Sequence[Run] = ()) -> None:
        super().__init__(reason)
        self.jobs = jobs


class Executor(Protocol):
    """Runs jobs beside each other, each in processes of its own."""

    @property
    def where(self) -> str:
        """Where jobs run, in words."""
        ...

    @property
    def running(self) -> list[Run]:
        """The jobs that were started and have not ended."""
        ...

    def check(self, trainer: "TrainerSettings", label: str) -> None:
        """Make sure, before anything is started, that there can be room for a job.

        Args:
            trainer: On what it trains.
            label: What it is called in an error.

        Raises:
            ConfigError: It needs more than there is.
        """
        ...

    def fits(self, job: Run) -> bool:
        """Whether there is room for a job right now."""
        ...

    def takes_up(self, job: Run) -> bool:
        """Whether a job that runs already can be started: it is one of an earlier driver's."""
        ...

    def start(self, job: Run, resume: bool) -> None:
        """Start a job from its directory, from its checkpoint or from the beginning.

        It may be taken note of only, to be started with others by the next `wait`.

        Raises:
            NotNow: It cannot be started at the moment; jobs that run are well, and `fits` says no
                for a while.
            ConfigError: It cannot be started at all.
        """
        ...

    def wait(self, timeout: float) -> list[tuple[Run, int]]:
        """The jobs that have ended, with their exit codes; returns as soon as there is one.

        An exit code below zero is the signal that ended the job; `BUSY` says that it was not
        started, since another process works on it, and `LOST` that where it ran or waited is gone,
        and it can go on elsewhere.

        Args:
            timeout: The longest wait, seconds.

        Raises:
            NotNow: Jobs that `start` took note of cannot be started at the moment, and are as
                before; `fits` says no for a while.
            ConfigError: They cannot be started at all, and none has been.
        """
        ...

    def kill(self, job: Run) -> None:
        """End a running job at once, with all of its processes; `wait` then reports it."""
        ...

    def stop(self, signum: int) -> None:
        """Ask every running job to save and leave; returns when all are gone, after 30 s at most.

        Args:
            signum: The signal that the sweep itself was sent.
        """
        ...


BUSY = 75
"""Exit code of a job that another process has claimed (EX_TEMPFAIL of `sysexits.h`)."""
LOST = 71
"""Exit code of a job whose node or allocation is gone (EX_OSERR)."""


ENDED = ("completed", "pruned")
"""States of jobs that are done for good."""


class JobSource(Protocol):
    """Gives out jobs one by one, and may learn from those that have ended."""

    @property
    def exhausted(self) -> bool:
        """Whether no job will come any more."""
        ...

    def ask(self) -> Run | None:
        """The next job; None if there is none to start right now."""
        ...

    def tell(self, job: Run) -> None:
        """A job has ended for good: completed, pruned, or failed after its retries; or is paused.

        One that is paused may be given out again.
        """
        ...


class Listed:
    """Jobs that are all known in advance: a grid, or random points.

    Args:
        jobs: In the order in which they are started; those that are done are left out.
    """

    def __init__(self, jobs: Sequence[Run]) -> None:
        self._left = [job for job in jobs if job.state not in ENDED]

    @property
    def exhausted(self) -> bool:
        """Whether every job was given out."""
        return not self._left

    def ask(self) -> Run | None:
        """The next job in the list."""
        return self._left.pop(0) if self._left else None

    def tell(self, job: Run) -> None:
        """Nothing to learn."""
