"""A job that is known to start, and whether there is room for what it leaves behind."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from truesweep.errors import ConfigError
from truesweep.sweeps.directory import SweepDirectory, job_id
from truesweep.sweeps.job import Job

BYTES_PER_PARAMETER = 2 * 3 * 4
"""Of two checkpoints: weights and two moments of the optimizer, fp32."""


@dataclass(frozen=True)
class PlannedJob:
    """A job that is known to start.

    Args:
        config: The whole configuration, checked.
        overrides: What was asked for it, secrets redacted.
        varies: The swept keys and their values.
        label: The same, in short.
        parameters: The model's parameters.
        steps: Optimizer steps.
        tokens: Training tokens.
        devices: Devices on each node.
        nodes: Nodes.
        data: Where the data come from, for the job's provenance.
    """

    config: dict[str, Any]
    overrides: list[str]
    varies: dict[str, Any]
    label: str
    parameters: int
    steps: int
    tokens: int
    devices: int
    nodes: int
    data: dict[str, Any]

    @property
    def id(self) -> str:
        """The name of its directory."""
        return job_id(self.config)

    @property
    def disk(self) -> int:
        """Bytes that its checkpoints take, about."""
        kept = (self.config["callbacks"] or {}).get("checkpoint") is not None
        return self.parameters * BYTES_PER_PARAMETER if kept else 0

    def add_to(
        self,
        sweep: SweepDirectory,
        number: int,
        provenance: Mapping[str, Any],
        trial: Mapping[str, Any] | None = None,
    ) -> Job:
        """Its directory, a new one or the one it has."""
        return sweep.add(
            self.config,
            self.overrides,
            self.varies,
            label=self.label,
            number=number,
            provenance={**provenance, "data": self.data},
            devices=self.devices,
            nodes=self.nodes,
            trial=trial,
        )


def check_disk(jobs: Sequence[PlannedJob], path: Path) -> None:
    """Make sure that the checkpoints of new jobs fit on the disk.

    Raises:
        ConfigError: They do not.
    """
    needed = sum(job.disk for job in jobs)
    place = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise ConfigError(
            f"the checkpoints of {len(jobs)} jobs need about {needed / 1e9:.1f} GB, and "
            f"{free / 1e9:.1f} GB are free on {place}; make room, or leave the checkpoints out "
            "with callbacks.checkpoint=null"
        )
