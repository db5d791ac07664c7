"""Which point of a sweep is best, and which cannot be told apart from it."""

import math
from collections.abc import Sequence

import numpy as np

from truesweep.analysis.noise import Paired, noise, unknown
from truesweep.analysis.outcomes import Direction, Outcome, by_point, sign, unlike
from truesweep.analysis.phrases import describe, describe_unlike
from truesweep.analysis.standings import Ranking, Standing
from truesweep.analysis.uncertainty import paired_mean

ALPHA = 0.05


def rank(
    outcomes: Sequence[Outcome],
    objective: str,
    direction: Direction = "minimize",
    alpha: float = ALPHA,
    paired: Paired = paired_mean,
) -> Ranking:
    """Rank the points of a sweep.

    Args:
        outcomes: Its jobs; those without a finite objective are set aside.
        objective: What to rank by.
        direction: Whether less or more of it is better.
        alpha: How often the best point may be missing among those said to be tied.
        paired: Compares two jobs sample by sample.

    Raises:
        DataError: The direction is not one.
    """
    factor = sign(direction)
    ranked = [one for one in outcomes if math.isfinite(one.value(objective))]
    points = list(by_point(ranked, objective).values())
    points.sort(key=lambda jobs: factor * _mean(jobs, objective))
    differs = unlike(ranked)
    known = unknown(len(points)) if differs else noise(points, objective, alpha, paired)
    standings = [
        _standing(jobs, _ids(jobs[0].point, ranked), points[0], objective, margin)
        for jobs, margin in zip(points, known.margins, strict=True)
    ]
    without = [one.id for one in outcomes if not math.isfinite(one.value(objective))]
    text = (
        describe_unlike(differs, objective)
        if differs
        else describe(standings, known.basis, objective, direction, alpha)
    )
    basis, deviation = known.basis, known.deviation
    return Ranking(objective, direction, basis, alpha, deviation, standings, without, text, differs)


def _ids(point: str, ranked: Sequence[Outcome]) -> tuple[str, ...]:
    return tuple(one.id for one in ranked if one.point == point)


def _mean(jobs: Sequence[Outcome], objective: str) -> float:
    return float(np.mean([job.value(objective) for job in jobs]))


def _standing(
    jobs: list[Outcome], ids: tuple[str, ...], best: list[Outcome], objective: str, margin: float
) -> Standing:
    values = [job.value(objective) for job in jobs]
    mean = _mean(jobs, objective)
    behind = abs(mean - _mean(best, objective))
    others = {name for job in jobs for name in job.objectives} - {objective}
    return Standing(
        point=jobs[0].point,
        ids=ids,
        varies=jobs[0].varies,
        mean=mean,
        deviation=float(np.std(values, ddof=1)) if len(values) > 1 else None,
        behind=behind,
        margin=None if math.isnan(margin) else margin,
        tied=jobs is best or behind <= margin,
        means={name: _mean(jobs, name) for name in sorted(others)},
    )
