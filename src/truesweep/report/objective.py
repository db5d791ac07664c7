"""The figure by which runs are compared."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from truesweep import dotted
from truesweep.errors import ConfigError, did_you_mean
from truesweep.figures import (
    Declared,
    Direction,
    Mode,
    as_direction,
    as_mode,
    by_name,
    find,
    recorded_mode,
    require_mode,
)
from truesweep.runs.snapshot import Snapshot


@dataclass(frozen=True)
class Objective:
    """A metric and which end of it is the better one.

    Args:
        name: Such as `val/loss`.
        mode: Whether less or more of it is better.
    """

    name: str
    mode: Mode

    def of(self, run: Snapshot) -> float | None:
        """A run's figure: at its best checkpoint, or the best so far; None without a finite one."""
        value = run.best(self.name, self.mode)
        return None if value is None or not math.isfinite(value) else value

    @property
    def direction(self) -> Direction:
        """The mode, as studies and statistics call it."""
        return as_direction(self.mode)

    def key(self, value: float | None) -> tuple[bool, float]:
        """Sorts the best first and what is missing last."""
        if value is None:
            return True, 0.0
        return False, value if self.mode == "min" else -value


def choose(
    runs: Sequence[Snapshot], asked: str | None, settings: Mapping[str, Any]
) -> list[Objective]:
    """The objective asked for, or the sweep's, or the one that chose the runs' checkpoints.

    The first one ranks; only a sweep over several objectives has more.

    Args:
        runs: The runs.
        asked: A metric's name, from the user.
        settings: The `sweeps` node of a sweep, empty without one.

    Raises:
        ConfigError: No run has the metric asked for, or nothing declares which end is the better.
    """
    swept = _modes(settings)
    usual = Counter(_monitor(run) for run in runs).most_common(1)
    known = swept | ({} if swept else dict(monitor for monitor, _ in usual))
    if asked is not None:
        _require(runs, asked)
        return [Objective(asked, known.get(asked) or _declared(runs, asked))]
    known = known or {"val/loss": "min"}
    return [Objective(name, mode) for name, mode in known.items()]


def metrics(runs: Iterable[Snapshot]) -> list[str]:
    """The figures that some run has."""
    names = {
        name
        for run in runs
        for name in (*run.history.curves, *run.results)
        if name in run.history.curves or isinstance(run.results[name], int | float)
    }
    return sorted(names)


def declared_by(runs: Iterable[Snapshot]) -> Declared:
    """What the runs' tasks declared of their figures, by name."""
    return by_name(figure for run in runs for figure in run.figures.values())


def _require(runs: Sequence[Snapshot], name: str) -> None:
    known = metrics(runs)
    if name in known:
        return
    hint = did_you_mean(name, known) or "."
    raise ConfigError(
        f"--objective {name}: no run has such a figure{hint} "
        f"There are {', '.join(known) or 'none yet'}"
    )


def _declared(runs: Sequence[Snapshot], name: str) -> Mode:
    declared = declared_by(runs)
    ranked = [one for one in metrics(runs) if (figure := find(one, declared)) and figure.mode]
    remedy = f"Rank by one of {', '.join(ranked) or 'val/loss'}"
    return require_mode(name, declared, "--objective", remedy)


def _monitor(run: Snapshot) -> tuple[str, Mode]:
    checkpoint = dotted.get(run.config, "callbacks.checkpoint", {})
    return checkpoint.get("monitor", "val/loss"), checkpoint.get("mode") or "min"


def _listed(settings: Mapping[str, Any], name: str) -> list[Any]:
    value = settings.get(name)
    listed = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) for one in listed):
        raise ConfigError(
            f"sweep.yaml: sweeps.{name} is {value!r}, which it cannot be. Restore the file"
        )
    return listed


def _modes(settings: Mapping[str, Any]) -> dict[str, Mode]:
    """The sweep's objectives, each with its direction; one direction holds for all."""
    names, given = _listed(settings, "objective"), _listed(settings, "direction")
    given = given * len(names) if len(given) == 1 else given
    modes = [as_mode(direction) for direction in given] or map(recorded_mode, names)
    return dict(zip(names, modes, strict=False))
