"""Whether the jobs of a sweep were given the same chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from truesweep import text
from truesweep.analysis.outcomes import Outcome, by_point
from truesweep.analysis.ranking import Ranking

TOLERANCE = 0.05
"""The largest share by which tokens or compute may differ: a last batch, an uneven window."""


@dataclass(frozen=True)
class Unfairness:
    """Points of a sweep trained on unequal tokens, or with unequal compute.

    Args:
        what: What is unequal.
        low: The least of any point.
        high: The most of any point.
        best: The winner's.
        favours_best: Whether the winner had more than the typical point, so that its lead may be
            due to that.
        text: The same in a sentence.
    """

    what: Literal["tokens", "compute"]
    low: float
    high: float
    best: float
    favours_best: bool
    text: str


def unfairness(
    outcomes: Sequence[Outcome],
    ranking: Ranking,
    counted: str = "tokens",
    tolerance: float = TOLERANCE,
) -> list[Unfairness]:
    """How a ranking compares what should not be compared without saying so.

    Args:
        outcomes: The jobs that were ranked.
        ranking: Their ranking.
        counted: What their `tokens` are: samples, where each has one target.
        tolerance: The share by which the most may exceed the least.
    """
    points = by_point(outcomes, ranking.objective)
    found = []
    for what in ("tokens", "compute"):
        amounts = {point: _amount(jobs, what) for point, jobs in points.items()}
        known = {point: amount for point, amount in amounts.items() if amount}
        if ranking.best is None or ranking.best.point not in known or len(known) < 2:
            continue
        if max(known.values()) > min(known.values()) * (1 + tolerance):
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
    low, high = min(known.values()), max(known.values())
    favours = best > float(np.median(list(known.values()))) * (1 + TOLERANCE)
    least, most = text.counts([low, high])
    consequence = (
        "the best point had more than most, and its lead may be due to that"
        if favours
        else "the best point did not need more than most"
    )
    said = f"Unequal {names[0]}: from {least} to {most} {names[1]}; {consequence}."
    return Unfairness(what, low, high, best, favours, said)
