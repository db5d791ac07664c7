"""What runs jobs: slots of this machine, or a cluster."""

from typing import Protocol

from truesweep.sweeps.job import Job


class Executor(Protocol):
    """Runs jobs beside each other, each in processes of its own."""

    @property
    def running(self) -> list[Job]:
        """The jobs that were started and have not ended."""
        ...

    def fits(self, job: Job) -> bool:
        """Whether there is room for a job right now."""
        ...

    def start(self, job: Job, resume: bool) -> None:
        """Start a job from its directory, from its checkpoint or from the beginning."""
        ...

    def wait(self, timeout: float) -> list[tuple[Job, int]]:
        """The jobs that have ended, with their exit codes; returns as soon as there is one.

        Args:
            timeout: The longest wait, seconds.
        """
        ...

    def stop(self, signum: int) -> None:
        """Ask every running job to save and leave; returns when all are gone, after 30 s at most.

        Args:
            signum: The signal that the sweep itself was sent.
        """
        ...
