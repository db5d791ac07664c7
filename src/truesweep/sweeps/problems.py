"""What is wrong with the jobs of a sweep, each problem once."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from truesweep.errors import ConfigError, UserError
from truesweep.text import label

NAMED = 3
"""How many jobs a problem names."""


class Problems:
    """What is wrong with which jobs, each problem once.

    Args:
        total: The number of jobs.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._found: dict[str, list[str]] = {}

    @contextmanager
    def of(self, varies: Mapping[str, Any]) -> Iterator[None]:
        """Note a problem of a job in place of raising it."""
        try:
            yield
        except UserError as error:
            for line in str(error).splitlines():
                self._found.setdefault(line, []).append(label(varies))

    def refuse(self) -> None:
        """Raise what was found.

        Raises:
            ConfigError: There are problems.
        """
        if self._found:
            lines = [f"{line}\n  {self._where(jobs)}" for line, jobs in self._found.items()]
            raise ConfigError("\n".join(lines))

    def _where(self, jobs: Sequence[str]) -> str:
        if len(jobs) == self._total:
            return f"in all {self._total} jobs"
        return f"in {len(jobs)} of {self._total} jobs: {some(jobs)}"


def some(jobs: Sequence[str]) -> str:
    """The first of some jobs."""
    return "; ".join(jobs[:NAMED]) + ("; …" if len(jobs) > NAMED else "")
