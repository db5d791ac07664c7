"""Runs beside each other, best first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from truesweep.report.filters import find_key, number, parse
from truesweep.report.locate import Found, find
from truesweep.report.objective import Objective, choose, metrics
from truesweep.report.run import POINTS, Run, read_run
from truesweep.report.varying import setting, short_names, varied_keys

BUDGET = 120_000
"""Points of all loss curves together: what a browser draws without waiting."""

FIGURES: dict[str, Callable[[Run], Any]] = {
    "id": lambda run: run.id,
    "state": lambda run: run.state,
    "step": lambda run: run.step,
    "tokens": lambda run: run.tokens,
    "seconds": lambda run: run.seconds,
    "cost": lambda run: run.cost,
    "flops": lambda run: run.results.get("train/flops"),
    "parameters": lambda run: run.results.get("parameters"),
    "sweep": lambda run: run.job.get("sweep"),
}
"""What every run can be sorted and filtered by, besides its configuration and its metrics."""


@dataclass(frozen=True)
class Comparison:
    """Runs and what they are compared by.

    Args:
        found: Where they were found.
        runs: Best first, those without the objective last.
        keys: What varies among all that were found.
        objective: The figure that ranks them.
    """

    found: Found
    runs: list[Run]
    keys: list[str]
    objective: Objective

    @property
    def title(self) -> str:
        """The sweep's name, or that of the folder the runs have in common."""
        if self.found.sweep is not None:
            return self.found.sweep.name
        names = dict.fromkeys(str(run.config.get("name", run.id)) for run in self.runs)
        return next(iter(names)) if len(names) == 1 else f"{len(self.runs)} runs"

    @cached_property
    def short(self) -> dict[str, str]:
        """What varies, by its full and its short name."""
        return short_names(self.keys)

    @cached_property
    def known(self) -> list[str]:
        """All that runs can be sorted and filtered by."""
        names = dict.fromkeys([*FIGURES, "objective", *self.keys, *metrics(self.runs)])
        names.update(dict.fromkeys(key for run in self.runs for key in run.flat))
        return list(names)

    def value(self, run: Run, key: str) -> Any:
        """A run's value of anything in `known`; None where it has none."""
        if key == "objective":
            return self.objective.of(run)
        if key in FIGURES:
            return FIGURES[key](run)
        if key in run.results:
            return run.results[key]
        if key in run.history.curves:
            return run.history.last.get(key)
        return setting(run, key)

    def filtered(self, conditions: Sequence[str]) -> "Comparison":
        """Only the runs that meet every condition, such as `model.depth=4`.

        Raises:
            ConfigError: A condition cannot be read, or its key is unknown.
        """
        filters = [parse(text, self.known) for text in conditions]
        kept = [run for run in self.runs if all(f.accepts(self.value(run, f.key)) for f in filters)]
        return replace(self, runs=kept)

    def sorted(self, key: str) -> "Comparison":
        """In the ascending order of a value; by the objective, best first.

        Raises:
            ConfigError: The key is unknown.
        """
        name = find_key(key, self.known, "--sort")
        if name in ("objective", self.objective.name):
            return replace(self, runs=_ranked(self.runs, self.objective))
        return replace(self, runs=sorted(self.runs, key=lambda run: _order(self.value(run, name))))


def compare(folders: Sequence[Path], objective: str | None = None) -> Comparison:
    """Read and rank the runs in folders.

    Args:
        folders: Of runs, of sweeps, or above them.
        objective: The figure to rank by; None: the sweep's, or the one that chose checkpoints.

    Raises:
        ConfigError: A folder holds no run, or no run has the objective.
    """
    found = find(folders)
    points = max(100, min(POINTS, BUDGET // max(len(found.runs), 1)))
    runs = [read_run(directory, points) for directory in found.runs]
    chosen = choose(runs, objective, found.settings)
    return Comparison(found, _ranked(runs, chosen), varied_keys(runs), chosen)


def _ranked(runs: Sequence[Run], objective: Objective) -> list[Run]:
    return sorted(runs, key=lambda run: (*objective.key(objective.of(run)), run.id))


def _order(value: Any) -> tuple[int, float, str]:
    """Numbers first, then text, then what is missing."""
    if value is None:
        return 2, 0.0, ""
    read = number(value)
    return (0, read, "") if read is not None else (1, 0.0, str(value))
