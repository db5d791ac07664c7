"""One job of a sweep."""

import json
from dataclasses import dataclass
from typing import Any

from truesweep.jobs.directory import RunDirectory
from truesweep.record.rows import read


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
        return str(self.run.job.get("label", self.id))

    @property
    def state(self) -> str:
        """`queued`, `running`, `interrupted` (killed with its driver) or how it ended."""
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
