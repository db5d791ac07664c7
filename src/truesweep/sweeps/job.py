"""One job of a sweep."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from truesweep.errors import UserError
from truesweep.jobs.directory import RunDirectory
from truesweep.record.rows import read
from truesweep.text import relabel

if TYPE_CHECKING:
    from truesweep.jobs.trainer import TrainerSettings

UNREADABLE = (OSError, UserError)
"""What reading a run's files raises if they are empty, damaged, or not to be had."""


@dataclass(frozen=True)
class Job:
    """A run's directory and its place in a sweep; all else is read from there when asked.

    Args:
        run: The directory, with its frozen configuration.
        varies: The swept keys and their values, in the sweep's order.
        devices: Devices that the job needs on each node.
        nodes: Nodes that it needs.
    """

    run: RunDirectory
    varies: dict[str, Any]
    devices: int = 1
    nodes: int = 1

    @property
    def id(self) -> str:
        """The name of its directory."""
        return self.run.path.name

    @property
    def label(self) -> str:
        """What varies, in short, such as `lr=3e-4 depth=6`."""
        try:
            return relabel(str(self.run.job.get("label", self.id)))
        except UNREADABLE:
            return self.id

    @cached_property
    def trainer(self) -> "TrainerSettings":
        """On what it trains, as its configuration says."""
        from truesweep.jobs.parts import make  # those who only read a sweep do without torch

        trainer: TrainerSettings = make(self.run.read_config(), "trainer")
        return trainer

    @property
    def problem(self) -> str | None:
        """Which of its files cannot be read, and why."""
        try:
            _ = self.run.job, self.run.status, self.run.read_results()
            if not self.run.config.stat().st_size:
                return f"{self.run.config}: is empty"
        except UNREADABLE as error:
            return str(error)
        return None

    @property
    def error(self) -> str | None:
        """Why it failed, or cannot be read."""
        return self.problem or self.run.status.get("error")

    @property
    def state(self) -> str:
        """`queued`, `running`, `interrupted` (killed with its driver) or how it ended.

        `broken`: files of it cannot be read, see `problem`.
        """
        if self.problem is not None:
            return "broken"
        state = str(self.run.status.get("state", "queued"))
        return "interrupted" if state == "running" and not self.run.alive else state

    @property
    def step(self) -> int:
        """Optimizer steps done, as far as it has told."""
        return int(self.run.status.get("step", 0))

    def objective(self, name: str, mode: str = "min") -> float | None:
        """A figure by which jobs are compared; None before there is one.

        Of a completed job the one in `results.json`, which belongs to its best checkpoint; of any
        other the best of its validations so far.

        Args:
            name: Such as `val/loss`.
            mode: `min` or `max`: which validation is the best.
        """
        if self.run.results.exists():
            value = json.loads(self.run.results.read_text(encoding="utf-8")).get(name)
            return None if value is None else float(value)
        if not self.run.metrics.exists():
            return None
        values = [float(row[name]) for row in read(self.run.metrics) if name in row]
        kept = [value for value in values if value == value]  # NaN is never the best
        return (min if mode == "min" else max)(kept, default=None)
