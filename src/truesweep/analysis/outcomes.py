"""What a sweep's statistics need to know of each job."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from truesweep.errors import DataError
from truesweep.figures import Direction

Samples = npt.NDArray[Any]
"""What a job scored on each sample of a split [M, K]."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One job, as a rule a finished one.

    Args:
        id: The job's name.
        point: What jobs share that differ by their seed only.
        varies: The swept keys and their values, without the seed.
        objectives: Final figures by name; None or not finite for a job that has none.
        seed: The job's seed.
        state: How it ended, or how far it is.
        tokens: Targets trained on.
        seconds: Time of training.
        flops: Operations of the whole training; by default 6 * parameters * tokens (Kaplan et al.
            2020).
        parameters: The model's size.
        standard_error: Of the objective, from the finite size of the split it was taken on.
        samples: What the objective is made from by sample [M, K], such as sums and counts, if
            kept; two jobs are then compared sample by sample.
        measured_on: What the objective depends on besides the training, such as the split's
            content, by what it is called; without what is not known.
    """

    id: str
    point: str
    varies: Mapping[str, Any]
    objectives: Mapping[str, float | None]
    seed: int | None = None
    state: str = "completed"
    tokens: int | None = None
    seconds: float | None = None
    flops: float | None = None
    parameters: int | None = None
    standard_error: float | None = None
    measured_on: Mapping[str, str] = field(default_factory=dict)
    samples: Samples | None = field(default=None, repr=False, compare=False)

    @property
    def compute(self) -> float | None:
        """Operations of the whole training."""
        if self.flops is None and self.parameters and self.tokens:
            return 6.0 * self.parameters * self.tokens
        return self.flops

    def value(self, objective: str) -> float:
        """An objective, NaN where the job has none."""
        value = self.objectives.get(objective)
        return math.nan if value is None else float(value)


def sign(direction: Direction) -> float:
    """What makes less of an objective better.

    Raises:
        DataError: It is neither of the two directions.
    """
    if direction not in ("minimize", "maximize"):
        raise DataError(f"the direction is {direction!r}; it is minimize or maximize")
    return 1.0 if direction == "minimize" else -1.0


def unlike(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """What the objective was measured on that differs among jobs, so that none is the better."""
    return differing([one.measured_on for one in outcomes])


def differing(measured_on: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """The same, given that of each job."""
    names = dict.fromkeys(name for one in measured_on for name in one)
    known = {name: {one.get(name) for one in measured_on} - {None} for name in names}
    return tuple(name for name, values in known.items() if len(values) > 1)


def by_point(outcomes: Sequence[Outcome], objective: str) -> dict[str, list[Outcome]]:
    """The jobs that have the objective, by their point; of one seed's repetitions the first."""
    points: dict[str, dict[int | str, Outcome]] = {}
    for outcome in outcomes:
        if math.isfinite(outcome.value(objective)):
            seed = outcome.id if outcome.seed is None else outcome.seed
            points.setdefault(outcome.point, {}).setdefault(seed, outcome)
    return {point: list(seeds.values()) for point, seeds in points.items()}


# -- several objectives at once --------------------------------------------------------------------


def pareto_front(values: npt.ArrayLike, directions: Sequence[Direction]) -> npt.NDArray[np.bool_]:
    """Which rows no other row is at least as good as in all columns and better than in one.

    Args:
        values: Points by objectives [N, K]; a row with a NaN is on no front.
        directions: Of each objective [K].
    """
    signs = np.array([sign(d) for d in directions])
    table = np.multiply(np.asarray(values, np.float64), signs)
    finite = np.asarray(~np.isnan(table).any(axis=1))
    no_worse = (table[:, None] <= table[None]).all(-1)
    better = (table[:, None] < table[None]).any(-1)
    dominated = (no_worse & better & finite[:, None]).any(0)
    return np.asarray(finite & ~dominated)


def pareto_points(
    outcomes: Sequence[Outcome], directions: dict[str, Direction]
) -> dict[str, dict[str, float]]:
    """The points on the front of the means over seeds, with these means, best first one first.

    Args:
        outcomes: The jobs of a sweep.
        directions: Of each objective, by its name.
    """
    names = list(directions)
    points = by_point(outcomes, names[0])
    means = {
        point: {name: float(np.mean([job.value(name) for job in jobs])) for name in names}
        for point, jobs in points.items()
    }
    if not means:
        return {}
    front = pareto_front([list(row.values()) for row in means.values()], list(directions.values()))
    chosen = [item for item, kept in zip(means.items(), front, strict=True) if kept]
    chosen.sort(key=lambda item: sign(directions[names[0]]) * item[1][names[0]])
    return dict(chosen)
