"""The points of a sweep in their order, and what is known of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from truesweep.analysis.outcomes import Direction

Basis = Literal["seeds", "paired samples", "evaluation", "none"]


@dataclass(frozen=True)
class Standing:
    """A point's place.

    Args:
        point: What its jobs share.
        ids: Its jobs, repetitions of a seed too, which count for nothing else.
        varies: Its values of the swept keys.
        mean: Of the objective over its seeds.
        deviation: Its standard deviation over seeds; None with one seed.
        behind: How far it is worse than the best; never negative.
        margin: How far it may be behind and still be the best one; None where that is not known.
        tied: Whether it cannot be told apart from the best; true for the best itself.
        means: Means of all other objectives.
    """

    point: str
    ids: tuple[str, ...]
    varies: Mapping[str, Any]
    mean: float
    deviation: float | None
    behind: float
    margin: float | None
    tied: bool
    means: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Ranking:
    """The points of a sweep by their mean objective.

    Args:
        objective: Its name.
        direction: Whether less or more of it is better.
        basis: What tells points apart: their seeds, both evaluations sample by sample, each
            evaluation's own standard error, or nothing.
        alpha: How often the best point may be missing among the tied ones.
        deviation: Pooled standard deviation over seeds, where known.
        standings: Best first.
        without: Jobs that have no finite objective.
        text: What this says, in one or two sentences.
        unlike: What their objective was measured on that differs; they are then in order, but none
            is called the best.
    """

    objective: str
    direction: Direction
    basis: Basis
    alpha: float
    deviation: float | None
    standings: Sequence[Standing]
    without: Sequence[str]
    text: str
    unlike: tuple[str, ...] = ()

    @property
    def best(self) -> Standing | None:
        """The winner; None where no job has the objective, or they cannot be compared."""
        return self.standings[0] if self.standings and not self.unlike else None

    @property
    def tied(self) -> list[Standing]:
        """Those that cannot be told apart from the winner, without it."""
        return [standing for standing in self.standings[1:] if standing.tied]
