"""Runs beside each other, best first."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from truesweep.analysis.outcomes import Outcome
from truesweep.analysis.ranking import Ranking, Standing, rank
from truesweep.dotted import nearest_key
from truesweep.errors import ConfigError, did_you_mean
from truesweep.figures import Declared, digits_of, unit
from truesweep.report.objective import Objective, choose, declared_by, metrics
from truesweep.report.outcomes import outcomes, paired, unfinished
from truesweep.report.varying import setting, varied_keys
from truesweep.runs.find import Found, find
from truesweep.runs.snapshot import POINTS, Snapshot, read_snapshot
from truesweep.text import Condition, number, short_names

BUDGET = 120_000
"""Points of all loss curves together: what a browser draws without waiting."""

FIGURES: dict[str, Callable[[Snapshot], Any]] = {
    "id": lambda run: run.id,
    "state": lambda run: run.state,
    "step": lambda run: run.step,
    "tokens": lambda run: run.tokens,
    "seconds": lambda run: run.seconds,
    "cost": lambda run: run.cost,
    "flops": lambda run: run.flops,
    "parameters": lambda run: run.results.get("parameters"),
    "verdict": lambda run: run.verdict.get("kind"),
    "sweep": lambda run: run.job.get("sweep"),
}
"""What every run can be sorted and filtered by, besides its configuration and its metrics."""


@dataclass(frozen=True)
class Comparison:
    """Runs and what they are compared by.

    Args:
        found: Where they were found.
        runs: Finished ones first, by their rank; then the others, by their best so far.
        keys: What varies among all that were found.
        objectives: The figure that ranks them, and the sweep's others.
        outcomes: The finished ones among all that were found.
        unfinished: The others: pruned, failed, running.
        ranking: Of these, by point.
    """

    found: Found
    runs: list[Snapshot]
    keys: list[str]
    objectives: list[Objective]
    outcomes: list[Outcome]
    unfinished: list[Outcome]
    ranking: Ranking

    @property
    def objective(self) -> Objective:
        """The figure that ranks the runs."""
        return self.objectives[0]

    @property
    def digits(self) -> int:
        """Significant digits that the objective is shown in."""
        return digits_of(self.objective.name, self.declared)

    @cached_property
    def declared(self) -> Declared:
        """What the runs' tasks declared of their figures."""
        return declared_by(self.runs)

    @property
    def unit(self) -> str:
        """What the runs' trainings count: `tokens` or `samples`."""
        return unit(self.declared)

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

    @cached_property
    def _places(self) -> dict[str, tuple[int, Standing]]:
        ordered = [] if self.ranking.unlike else self.ranking.standings
        standings = enumerate(ordered, start=1)
        return {id: (place, one) for place, one in standings for id in one.ids}

    def rank(self, run: Snapshot) -> int | None:
        """The place of a finished run's point; runs that differ by their seed share one.

        None where runs cannot be compared, too.
        """
        return self._places.get(str(run.directory.path), (None, None))[0]

    def standing(self, run: Snapshot) -> Standing | None:
        """What the ranking says of a run's point."""
        return self._places.get(str(run.directory.path), (None, None))[1]

    def tied(self, run: Snapshot) -> bool:
        """Whether it is one of several that cannot be told apart from the best."""
        standing = self.standing(run)
        return standing is not None and standing.tied and bool(self.ranking.tied)

    def _order(self, run: Snapshot) -> tuple[float, bool, float, int, str]:
        place = self.rank(run) or math.inf
        return place, *self.objective.key(self.objective.of(run)), *run.asked

    def value(self, run: Snapshot, key: str) -> Any:
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
        filters = [parse(text, self.known, self.short) for text in conditions]
        kept = [
            run
            for run in self.runs
            if all(condition.accepts(self.value(run, key)) for key, condition in filters)
        ]
        return replace(self, runs=kept)

    def sorted(self, key: str) -> "Comparison":
        """In the ascending order of a value; by the objective, best first.

        Raises:
            ConfigError: The key is unknown.
        """
        name = find_key(key, self.known, self.short, "--sort")
        if name in ("objective", self.objective.name):
            return replace(self, runs=sorted(self.runs, key=self._order))
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
    runs = [read_snapshot(directory, points) for directory in found.runs]
    folders = list(dict.fromkeys(run.directory.path.parent for run in runs))
    runs.sort(key=lambda run: (folders.index(run.directory.path.parent), *run.asked))
    objectives = choose(runs, objective, found.settings)
    keys = varied_keys(runs)
    finished = outcomes(runs, keys, objectives)
    first = objectives[0]
    ranking = rank(
        finished,
        first.name,
        first.direction,
        paired=paired(runs, first.name),
        digits=digits_of(first.name, declared_by(runs)),
    )
    others = unfinished(runs, keys, objectives)
    made = Comparison(found, runs, keys, objectives, finished, others, ranking)
    return made.sorted("objective")


def _order(value: Any) -> tuple[int, float, str]:
    """Numbers first, then text, then what is missing or not finite."""
    read = number(value)
    if value is None or (read is not None and not math.isfinite(read)):
        return 2, 0.0, ""
    return (0, read, "") if read is not None else (1, 0.0, str(value))


# -- which runs are shown --------------------------------------------------------------------------

_PATTERN = re.compile(r"\s*([\w./-]+?)\s*([<>=!].*)")


def parse(text: str, known: Iterable[str], short: Mapping[str, str]) -> tuple[str, Condition]:
    """Read a condition, and whose value has to meet it.

    Args:
        text: Such as `model.depth=4`.
        known: All keys that there are.
        short: Short names by key, which come before equal names.

    Raises:
        ConfigError: It is none, its key is unknown, or `<` is given something else than a number.
    """
    match = _PATTERN.fullmatch(text)
    condition = Condition.read(match[2]) if match is not None else None
    if match is None or condition is None:
        raise ConfigError(
            f"--filter {text!r}: expected KEY=VALUE, with = or !=, or with < > <= or "
            ">= and a number, such as 'model.depth=4' or 'optimizer.lr<1e-3'"
        )
    return find_key(match[1], known, short, "--filter"), condition


def find_key(key: str, known: Iterable[str], short: Mapping[str, str], option: str) -> str:
    """A key by its short name, its whole name, or the end of it that only one key has.

    Raises:
        ConfigError: There is no such key, or there are several.
    """
    for whole, name in short.items():
        if name == key:
            return whole
    known = list(known)
    ends = [name for name in known if name == key or name.endswith(f".{key}")]
    if key in known or len(ends) == 1:
        return key if key in known else ends[0]
    if ends:
        raise ConfigError(f"{option} {key}: several keys end so: {', '.join(ends)}")
    near = did_you_mean(key, known, nearest_key) or did_you_mean(key, known)
    hint = near or f"; there are {', '.join(known[:12])}, …"
    raise ConfigError(f"{option} {key}: no run has such a key{hint}")
