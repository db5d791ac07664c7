"""Where the jobs of a sweep come from."""

from collections.abc import Sequence
from typing import Protocol

from truesweep.runs.run import Run

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
