"""A run as its files are at one moment, for tables and reports of many."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from truesweep import dotted
from truesweep.analysis.verdict import read_verdict
from truesweep.errors import DataError
from truesweep.figures import Figure, find, read
from truesweep.record.rows import NOT_FINITE
from truesweep.runs.find import read_mapping
from truesweep.runs.history import History, read_history
from truesweep.runs.run import UNREADABLE, Run, read_entries, spoilt_group
from truesweep.secrets import scrub
from truesweep.text import number

POINTS = 600
"""Points of a loss curve where runs are few."""


@dataclass(frozen=True)
class Snapshot:
    """What is known of a run; anything but its directory may be missing.

    Args:
        directory: Where it lies.
        config: Its configuration.
        status: State, step, error.
        results: Final figures; empty before the end.
        job: Its place in a sweep.
        provenance: Code, versions, hardware and data.
        history: Its curves.
        problems: What of its files cannot be read, and why; a sentence each.
    """

    directory: Run
    config: dict[str, Any]
    status: dict[str, Any]
    results: dict[str, Any]
    job: dict[str, Any]
    provenance: dict[str, Any]
    history: History
    problems: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The name of its directory."""
        return self.directory.id

    @property
    def asked(self) -> tuple[int, str]:
        """Its place in the order in which the jobs of its sweep were asked for."""
        number = self.job.get("number")
        return number if isinstance(number, int) else 0, self.id

    @property
    def varies(self) -> dict[str, Any]:
        """The swept keys and their values; empty for a single run."""
        varies = self.job.get("varies")
        return varies if isinstance(varies, dict) else {}

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """What its task declared of its figures, by their names."""
        return read(self.provenance.get("figures"), self.results)

    def figure(self, name: str) -> Figure | None:
        """What is declared of a figure, such as `val/loss`, if anything is."""
        return find(name, self.figures)

    @cached_property
    def flat(self) -> dict[str, Any]:
        """The configuration by dotted keys; a list is one value."""
        return dotted.flatten(self.config)

    @cached_property
    def state(self) -> str:
        """`queued`, `running`, `interrupted` (killed while running) or how it ended."""
        return self.directory.state_by(self.status)

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        last = self.history.last.get("step", 0)
        return _whole(self.results.get("train/steps")) or max(last, self.status.get("step") or 0)

    @property
    def tokens(self) -> int:
        """Tokens trained on."""
        return _whole(self.results.get("train/tokens")) or _whole(self.history.last.get("tokens"))

    @property
    def seconds(self) -> float:
        """Time since the run started, over all its resumptions."""
        known = number(self.results.get("train/seconds"))
        return known or number(self.history.last.get("time")) or 0.0

    @property
    def devices(self) -> int:
        """Devices over all nodes; `auto` counts the machine's GPUs, or its processor as one."""
        if "devices" in self.job:
            return int(self.job["devices"]) * int(self.job.get("nodes", 1))
        trainer = self.config.get("trainer") or {}
        devices, nodes = trainer.get("devices", "auto"), _whole(trainer.get("num_nodes")) or 1
        if isinstance(devices, list):
            return max(1, len(devices)) * nodes
        if isinstance(devices, int):
            return devices * nodes
        on_gpu = trainer.get("accelerator") != "cpu"
        gpus = dotted.get(self.provenance, "hardware.gpus", [])
        return max(1, len(gpus) if on_gpu and isinstance(gpus, list) else 1) * nodes

    @property
    def cost(self) -> float:
        """Device-seconds."""
        return self.seconds * self.devices

    @property
    def flops(self) -> float | None:
        """Operations of the training, where it counted them."""
        return number(self.results.get("train/flops"))

    @property
    def verdict(self) -> dict[str, Any]:
        """`kind` and `text`, and the figures behind them; empty before the end.

        A run that was given up as diverged has no results; its verdict stands in its status.
        """
        return read_verdict(self.results.get("verdict") or self.status.get("verdict"))

    @property
    def error(self) -> str | None:
        """Why it failed, without secrets."""
        error = self.status.get("error")
        return None if error is None else scrub(str(error))

    def best(self, metric: str, mode: str) -> float | None:
        """The figure that belongs to the best checkpoint; before the end, the best so far."""
        final = self.results.get(metric)
        if isinstance(final, int | float):
            return float(final)
        curve = self.history.curves.get(metric)
        if curve is None:
            return None
        return curve.lowest if mode == "min" else curve.highest


def read_snapshot(directory: Run, points: int = POINTS) -> Snapshot:
    """Read a run, whatever of it is there.

    Args:
        directory: The run's directory.
        points: The most points that are kept of a curve that goes on from training to validation.
    """
    path = directory.path
    problems: list[str] = []
    files = ("provenance.json", "status.json", "results.json", "job.json")
    provenance, status, results, job = (_read_json(path / name, problems) for name in files)
    declared = read(provenance.get("figures"))
    long = {name for name, figure in declared.items() if figure.curve}
    config, history = read_mapping(directory.config), read_history(directory.metrics, points, long)
    if (lost := directory.problem) is not None and lost not in problems:
        problems.append(lost)
    if not config or spoilt_group(config):
        if directory.config.exists():
            problems.append(f"{directory.config}: cannot be read as a configuration")
        config = {}
    if history.problem:
        problems.append(history.problem)
    problems += [each for each in _changed(directory, config) if each not in problems]
    ends, steps = history.last.get("step", 0), _whole(results.get("train/steps"))
    if ends < steps and not history.problem:
        problems.append(f"{directory.metrics}: ends at step {ends:,} of {steps:,}")
    return Snapshot(
        directory,
        config=config,
        status=status,
        results=_numbers(results),
        job=job,
        provenance=provenance,
        history=history,
        problems=tuple(problems),
    )


def _changed(directory: Run, config: dict[str, Any]) -> Iterator[str]:
    """What can be read, and is not what was written."""
    try:
        directory.check_metrics()
        if config:
            directory.check_asked(config)
    except UNREADABLE as error:
        yield str(error)


def _read_json(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        return read_entries(path)
    except FileNotFoundError:
        return {}
    except (OSError, DataError) as error:
        problems.append(str(error))
        return {}


def _whole(value: Any) -> int:
    """A count, if it is one."""
    found = number(value)
    return int(found) if found is not None and math.isfinite(found) else 0


def _numbers(results: dict[str, Any]) -> dict[str, Any]:
    """Figures that are not finite stand as text in JSON."""
    kept = {key: value for key, value in results.items() if value is not None}
    return {k: float(v) if isinstance(v, str) and v in NOT_FINITE else v for k, v in kept.items()}
