"""Which point of a sweep is best, which cannot be told apart from it, and how to say so.

And whether its runs can be compared at all: whether they had the same to train on.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from truesweep import text
from truesweep.analysis.noise import Basis, Paired, noise, unknown
from truesweep.analysis.outcomes import Outcome, by_point, sign, unlike
from truesweep.analysis.uncertainty import paired_mean
from truesweep.figures import Direction, best_first

ALPHA = 0.05
"""How often the best point may be missing among those said to be tied with it."""
NAMED = 5
"""Tied points that are listed; of more, these and how many there are."""
LEADERS = 3
"""Points at most that are named as those to repeat."""
SPLITS = {"train": "training", "val": "validation", "test": "test"}
"""Splits in words, by the first part of a figure's name."""


@dataclass(frozen=True)
class Standing:
    """A point's place.

    Args:
        point: What its jobs share.
        ids: Its jobs, repetitions of a seed too, which count for nothing else.
        varies: Its values of the swept keys.
        mean: Of the objective over its seeds.
        deviation: Its standard deviation over seeds; None with one seed.
        tied: Whether it cannot be told apart from the best; true for the best itself.
    """

    point: str
    ids: tuple[str, ...]
    varies: Mapping[str, Any]
    mean: float
    deviation: float | None
    tied: bool


@dataclass(frozen=True)
class Ranking:
    """The points of a sweep by their mean objective.

    Args:
        objective: Its name.
        basis: What tells points apart: their seeds, both evaluations sample by sample, each
            evaluation's own standard error, or nothing.
        standings: Best first.
        text: What this says, in one or two sentences.
        unlike: What their objective was measured on that differs; they are then in order, but none
            is called the best.
    """

    objective: str
    basis: Basis
    standings: Sequence[Standing]
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


def rank(
    outcomes: Sequence[Outcome],
    objective: str,
    direction: Direction = "minimize",
    paired: Paired = paired_mean,
    digits: int = 4,
) -> Ranking:
    """Rank the points of a sweep; of equals, the one whose first job is in front.

    Args:
        outcomes: Its jobs, in the order in which they were asked for; those without a finite
            objective are set aside.
        objective: What to rank by.
        direction: Whether less or more of it is better.
        paired: Compares two jobs sample by sample.
        digits: Significant digits that the objective is written in.

    Raises:
        DataError: The direction is not one.
    """
    ranked = [one for one in outcomes if math.isfinite(one.value(objective))]
    factor = sign(direction)
    jobs_of = by_point(ranked, objective).values()
    points = best_first(jobs_of, lambda jobs: factor * _mean(jobs, objective), "min")
    differs = unlike(ranked)
    known = unknown(len(points)) if differs else noise(points, objective, ALPHA, paired)
    standings = [
        _standing(jobs, ranked, points[0], objective, margin)
        for jobs, margin in zip(points, known.margins, strict=True)
    ]
    said = (
        _sentence_of_unlike(differs, objective)
        if differs
        else _sentences(standings, known.basis, objective, direction, digits)
    )
    return Ranking(objective, known.basis, standings, said, differs)


def _mean(jobs: Sequence[Outcome], objective: str) -> float:
    return float(np.mean([job.value(objective) for job in jobs]))


def _standing(
    jobs: list[Outcome],
    ranked: Sequence[Outcome],
    best: list[Outcome],
    objective: str,
    margin: float,
) -> Standing:
    point, mean = jobs[0].point, _mean(jobs, objective)
    values = [job.value(objective) for job in jobs]
    return Standing(
        point=point,
        ids=tuple(one.id for one in ranked if one.point == point),
        varies=jobs[0].varies,
        mean=mean,
        deviation=float(np.std(values, ddof=1)) if len(values) > 1 else None,
        tied=jobs is best or abs(mean - _mean(best, objective)) <= margin,
    )


# -- in words ----------------------------------------------------------------------------------


def _sentences(
    standings: Sequence[Standing],
    basis: Basis,
    objective: str,
    direction: Direction,
    digits: int,
) -> str:
    """Say which point is best and how sure that is."""
    if not standings:
        return f"No job has {objective}."
    best = standings[0]
    found = f"{objective}: {text.figure(best.mean, digits)} with {_label(best)}"
    if len(standings) == 1:
        return f"{found}, the only point."
    averaged = f" (mean of {len(best.ids)})" if len(best.ids) > 1 else ""
    first = f"Best {found}{averaged}"
    if basis == "none":
        return (
            f"{first}. With one seed a point nothing is known about noise: a repetition may turn "
            "out otherwise. Add seeds to the leading points."
        )
    sure = f"{text.value(100 * (1 - ALPHA))} % confidence over"
    if basis != "seeds":
        return f"{_on_split(standings, objective, direction, sure, digits)} {_repeat(standings)}"
    tied = _tied(standings)
    if not tied:
        return f"{first}, better than {_others(standings)} ({sure} seeds)."
    return f"{first}. Not to be told apart from it ({sure} seeds): {_listed(tied)}."


def _sentence_of_unlike(differs: Sequence[str], objective: str) -> str:
    """Say why no point is best."""
    return (
        f"The runs differ in their {' and '.join(differs)}, so that {objective} of one says "
        "nothing about that of another: no run is called the best."
    )


def _on_split(
    standings: Sequence[Standing], objective: str, direction: Direction, sure: str, digits: int
) -> str:
    """What a split tells of its runs, which is not what it tells of their configurations."""
    most, more = ("Lowest", "lower") if direction == "minimize" else ("Highest", "higher")
    best, tied = standings[0], _tied(standings)
    first = f"{most} {objective}: {text.figure(best.mean, digits)} with {_label(best)}"
    split = " ".join(["this", *filter(None, [SPLITS.get(objective.partition("/")[0])]), "split"])
    where = f"on {split} ({sure} its samples)"
    if not tied:
        return f"{first}, {more} than {_others(standings)} {where}."
    return f"{first}; not to be told apart from it {where}: {_listed(tied)}."


def _repeat(standings: Sequence[Standing]) -> str:
    leaders = [standings[0], *(_tied(standings) or standings[1:2])]
    names = [_label(one) for one in leaders]
    which = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) <= LEADERS else "the leaders"
    return (
        "Seeds were not varied, and another seed may reorder them: "
        f"repeat {which} with sweeps.seeds=3."
    )


def _tied(standings: Sequence[Standing]) -> list[Standing]:
    return [one for one in standings[1:] if one.tied]


def _others(standings: Sequence[Standing]) -> str:
    few = {2: "the other one", 3: "both others"}
    return few.get(len(standings), f"all {len(standings) - 1} others")


def _listed(tied: Sequence[Standing]) -> str:
    named = "; ".join(_label(one) for one in tied[:NAMED])
    return f"{named} and {len(tied) - NAMED} more" if len(tied) > NAMED else named


def _label(one: Standing) -> str:
    return text.label(one.varies) or "one configuration"


TOLERANCE = 0.05
"""The largest share by which tokens or compute may differ: a last batch, an uneven window."""


@dataclass(frozen=True)
class Unfairness:
    """Points of a sweep trained on unequal tokens, or with unequal compute.

    Args:
        what: What is unequal.
        favours_best: Whether the winner had more than the typical point, so that its lead may be
            due to that.
        text: The same in a sentence.
    """

    what: Literal["tokens", "compute"]
    favours_best: bool
    text: str


def unfairness(
    outcomes: Sequence[Outcome], ranking: Ranking, counted: str = "tokens"
) -> list[Unfairness]:
    """How a ranking compares what should not be compared without saying so.

    Args:
        outcomes: The jobs that were ranked.
        ranking: Their ranking.
        counted: What their `tokens` are: samples, where each has one target.
    """
    points = by_point(outcomes, ranking.objective)
    found = []
    for what in ("tokens", "compute"):
        amounts = {point: _amount(jobs, what) for point, jobs in points.items()}
        known = {point: amount for point, amount in amounts.items() if amount}
        if ranking.best is None or ranking.best.point not in known or len(known) < 2:
            continue
        if max(known.values()) > min(known.values()) * (1 + TOLERANCE):
            names = (counted, counted) if what == "tokens" else ("compute", "FLOP")
            found.append(_finding(what, names, known, known[ranking.best.point]))
    return found


def _amount(jobs: Sequence[Outcome], what: str) -> float | None:
    values = [job.tokens if what == "tokens" else job.compute for job in jobs]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _finding(
    what: Literal["tokens", "compute"], names: tuple[str, str], known: dict[str, float], best: float
) -> Unfairness:
    favours = best > float(np.median(list(known.values()))) * (1 + TOLERANCE)
    least, most = text.counts([min(known.values()), max(known.values())])
    consequence = (
        "the best point had more than most, and its lead may be due to that"
        if favours
        else "the best point did not need more than most"
    )
    said = f"Unequal {names[0]}: from {least} to {most} {names[1]}; {consequence}."
    return Unfairness(what, favours, said)
