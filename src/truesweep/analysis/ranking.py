"""Which point of a sweep is best, and which cannot be told apart from it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from truesweep.analysis.critical import critical_values
from truesweep.analysis.outcomes import Direction, Outcome, by_point, sign
from truesweep.analysis.uncertainty import paired_loss

Basis = Literal["seeds", "paired samples", "evaluation", "none"]
ALPHA = 0.05
NOISIER = 16.0
"""How many times the typical variance a point's own is before it is kept out of the pool."""
MEDIAN_VARIANCE = {1: 0.455, 2: 0.693, 3: 0.789, 4: 0.839, 5: 0.870, 6: 0.891, 7: 0.907}
"""Median of a chi-squared variable over its degrees of freedom."""


@dataclass(frozen=True)
class Standing:
    """A point's place.

    Args:
        point: What its jobs share.
        ids: Its jobs.
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
    """

    objective: str
    direction: Direction
    basis: Basis
    alpha: float
    deviation: float | None
    standings: Sequence[Standing]
    without: Sequence[str]
    text: str

    @property
    def best(self) -> Standing | None:
        """The winner; None where no job has the objective."""
        return self.standings[0] if self.standings else None

    @property
    def tied(self) -> list[Standing]:
        """Those that cannot be told apart from the winner, without it."""
        return [standing for standing in self.standings[1:] if standing.tied]


@dataclass(frozen=True)
class _Noise:
    """How far each point may be behind the best one [k]; NaN where that is not known."""

    basis: Basis
    margins: list[float]
    deviation: float | None = None


def rank(
    outcomes: Sequence[Outcome],
    objective: str,
    direction: Direction = "minimize",
    alpha: float = ALPHA,
) -> Ranking:
    """Rank the points of a sweep.

    Args:
        outcomes: Its jobs; those without a finite objective are set aside.
        objective: What to rank by.
        direction: Whether less or more of it is better.
        alpha: How often the best point may be missing among those said to be tied.

    Raises:
        DataError: The direction is not one.
    """
    factor = sign(direction)
    points = list(by_point(outcomes, objective).values())
    points.sort(key=lambda jobs: factor * _mean(jobs, objective))
    noise = _noise(points, objective, alpha)
    standings = [
        _standing(jobs, points[0], objective, margin)
        for jobs, margin in zip(points, noise.margins, strict=True)
    ]
    without = [one.id for one in outcomes if not math.isfinite(one.value(objective))]
    text = describe(standings, noise.basis, objective, alpha)
    return Ranking(
        objective, direction, noise.basis, alpha, noise.deviation, standings, without, text
    )


def _mean(jobs: Sequence[Outcome], objective: str) -> float:
    return float(np.mean([job.value(objective) for job in jobs]))


def _standing(jobs: list[Outcome], best: list[Outcome], objective: str, margin: float) -> Standing:
    values = [job.value(objective) for job in jobs]
    mean = _mean(jobs, objective)
    behind = abs(mean - _mean(best, objective))
    others = {name for job in jobs for name in job.objectives} - {objective}
    return Standing(
        point=jobs[0].point,
        ids=tuple(job.id for job in jobs),
        varies=jobs[0].varies,
        mean=mean,
        deviation=float(np.std(values, ddof=1)) if len(values) > 1 else None,
        behind=behind,
        margin=None if math.isnan(margin) else margin,
        tied=jobs is best or behind <= margin,
        means={name: _mean(jobs, name) for name in sorted(others)},
    )


def _noise(points: list[list[Outcome]], objective: str, alpha: float) -> _Noise:
    """The best that is known about noise: seeds, then samples, then standard errors."""
    if not points:
        return _Noise("none", [])
    if any(len(jobs) > 1 for jobs in points):
        return _from_seeds(points, objective, alpha)
    jobs = [jobs[0] for jobs in points]
    if all(job.samples is not None for job in jobs):
        return _Noise("paired samples", _scaled(_paired_errors(jobs), alpha))
    errors = [math.nan if j.standard_error is None else j.standard_error for j in jobs]
    if all(math.isfinite(error) for error in errors):
        spreads = np.hypot(errors, errors[0])
        critical = critical_values(tuple(errors), None, alpha)
        return _Noise("evaluation", (np.array(critical) * spreads).tolist())
    return _Noise("none", [math.nan] * len(points))


def _from_seeds(points: list[list[Outcome]], objective: str, alpha: float) -> _Noise:
    """Margins from the variance over seeds, pooled over points.

    A point that is far noisier than the others, as under a rate near divergence, would hide all
    differences among them; it has its own variance, and they have theirs.
    """
    values = [np.array([job.value(objective) for job in jobs]) for jobs in points]
    freedoms = np.array([len(v) - 1 for v in values])
    variances = np.array([v.var(ddof=1) if len(v) > 1 else math.nan for v in values])
    typical = np.nanmedian(variances / [_median_variance(f) for f in freedoms])
    pooled = (freedoms > 0) & ~(variances > NOISIER * typical)
    variance = float((variances * freedoms)[pooled].sum() / freedoms[pooled].sum())
    own = np.where((freedoms > 0) & ~pooled, variances, variance)
    errors = np.sqrt(own / (freedoms + 1))
    relative = errors / math.sqrt(variance) if variance > 0 else np.ones(len(points))
    freedom = int(freedoms[pooled].sum())
    critical = critical_values(tuple(relative.round(6).tolist()), freedom, alpha)
    margins = np.array(critical) * np.hypot(errors, errors[0])
    return _Noise("seeds", margins.tolist(), math.sqrt(variance))


def _median_variance(freedom: int) -> float:
    # Wilson and Hilferty's (1931) approximation, within 0.1 % from eight degrees of freedom on.
    return MEDIAN_VARIANCE.get(freedom, (1 - 2 / (9 * max(freedom, 1))) ** 3)


def _paired_errors(jobs: list[Outcome]) -> list[float]:
    """The standard error of each job's difference to the first one."""
    best = jobs[0].samples
    assert best is not None
    errors = []
    for job in jobs:
        assert job.samples is not None
        sums, counts = (job.samples[:, 0], best[:, 0]), (job.samples[:, 1], best[:, 1])
        errors.append(paired_loss(sums, counts).standard_error)
    return errors


def _scaled(errors: list[float], alpha: float) -> list[float]:
    """Margins of differences to the best, with the correlation of equally exact points."""
    critical = critical_values((1.0,) * len(errors), None, alpha)
    return [c * error for c, error in zip(critical, errors, strict=True)]


def describe(standings: Sequence[Standing], basis: Basis, objective: str, alpha: float) -> str:
    """Say which point is best and how sure that is."""
    if not standings:
        return f"No job has {objective}."
    best, tied = standings[0], [one for one in standings[1:] if one.tied]
    first = f"Best {objective}: {best.mean:.4g} with {label(best.varies)}"
    if len(standings) == 1:
        return f"{first}, the only point."
    if basis == "none":
        return (
            f"{first}. With one seed a point nothing is known about noise: a repetition may turn "
            "out otherwise. Add seeds to the leading points."
        )
    means = {
        "seeds": "over seeds",
        "paired samples": "over the samples of the split; seeds were not varied",
        "evaluation": "over the samples of the split; seeds were not varied",
    }[basis]
    confidence = f"{100 * (1 - alpha):.3g} % confidence {means}"
    if not tied:
        others = "the other one" if len(standings) == 2 else f"all {len(standings) - 1} others"
        return f"{first}, better than {others} ({confidence})."
    named = "; ".join(label(one.varies) for one in tied[:5])
    more = f" and {len(tied) - 5} more" if len(tied) > 5 else ""
    return f"{first}. Not to be told apart from it ({confidence}): {named}{more}."


def label(varies: Mapping[str, Any]) -> str:
    """Swept values in short, such as `lr=0.001 depth=4`."""
    parts = (f"{k.rsplit('.', 1)[-1]}={_short(v)}" for k, v in varies.items())
    return " ".join(parts) or "one configuration"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
