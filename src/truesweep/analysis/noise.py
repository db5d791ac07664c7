"""How far a point may be behind the best one and still be the best.

Critical values for many comparisons with the best, by simulation of their distribution: with k
points, of which any may be the best one, a point i is kept as a candidate unless

    mean_i - mean_best > d_i * s * sqrt(1 / n_i + 1 / n_best)

with s the pooled standard deviation and d_i the 1 - alpha quantile of the largest of the k - 1
correlated t statistics of the others against i: Dunnett's (1955) one-sided statistic with i as the
control. The candidates then hold the truly best point with probability at least 1 - alpha (Gupta
1965; Hsu 1984, multiple comparisons with the best).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from truesweep.analysis.outcomes import Outcome, Samples
from truesweep.analysis.uncertainty import Estimate
from truesweep.text import rounded

Basis = Literal["seeds", "paired samples", "evaluation", "none"]
"""What tells points apart; `evaluation`: each one's own standard error."""
Paired = Callable[[Samples, Samples], Estimate]
"""The difference of two jobs' figures, first minus second, from the same samples of both."""

DRAWS = 40_000
"""Leave about 0.01 of uncertainty in a critical value."""
NOISIER = 16.0
"""How many times the typical variance a point's own is before it is kept out of the pool."""
MEDIAN_VARIANCE = {1: 0.455, 2: 0.693, 3: 0.789, 4: 0.839, 5: 0.870, 6: 0.891, 7: 0.907}
"""Median of a chi-squared variable over its degrees of freedom."""


@dataclass(frozen=True)
class Noise:
    """How far each point may be behind the best one [k]; NaN where that is not known."""

    basis: Basis
    margins: list[float]


def unknown(points: int) -> Noise:
    """Nothing tells points apart."""
    return Noise("none", [math.nan] * points)


def noise(points: list[list[Outcome]], objective: str, alpha: float, paired: Paired) -> Noise:
    """The best that is known about noise: seeds, then samples, then standard errors.

    Args:
        points: Each point's jobs, the best point first.
        objective: What they are ranked by.
        alpha: How often the best point may be missing among those within their margins.
        paired: Compares two jobs sample by sample.
    """
    if any(len(jobs) > 1 for jobs in points):
        return _from_seeds(points, objective, alpha)
    jobs = [jobs[0] for jobs in points]
    return (
        _from_samples(jobs, objective, alpha, paired)
        or _from_errors(jobs, alpha)
        or unknown(len(jobs))
    )


def _from_seeds(points: list[list[Outcome]], objective: str, alpha: float) -> Noise:
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
    return Noise("seeds", margins.tolist())


def _median_variance(freedom: int) -> float:
    # Wilson and Hilferty's (1931) approximation, within 0.1 % from eight degrees of freedom on.
    return MEDIAN_VARIANCE.get(freedom, (1 - 2 / (9 * max(freedom, 1))) ** 3)


def _from_samples(
    jobs: list[Outcome], objective: str, alpha: float, paired: Paired
) -> Noise | None:
    """Margins from paired differences, with the correlation of equally exact points."""
    tables = [job.samples for job in jobs if job.samples is not None]
    if len(tables) < len(jobs) or not tables or len(tables[0]) < 2:
        return None
    errors = [_paired_error(job, jobs[0], objective, paired) for job in jobs]
    if not np.isfinite(errors).all():
        return None
    critical = critical_values((1.0,) * len(errors), len(tables[0]) - 1, alpha)
    return Noise("paired samples", (np.array(critical) * errors).tolist())


def _paired_error(job: Outcome, best: Outcome, objective: str, paired: Paired) -> float:
    """The standard error of a job's difference to the best one, in the objective's own unit.

    An objective that follows from the loss, as perplexity does, differs by as many standard errors.
    """
    assert job.samples is not None
    assert best.samples is not None
    difference = paired(job.samples, best.samples)
    if difference.value == 0:
        return difference.standard_error
    behind = job.value(objective) - best.value(objective)
    return difference.standard_error * abs(behind / difference.value)


def _from_errors(jobs: list[Outcome], alpha: float) -> Noise | None:
    """Margins from each evaluation's own standard error."""
    errors = [math.nan if j.standard_error is None else j.standard_error for j in jobs]
    if not errors or not np.isfinite(errors).all():
        return None
    critical = critical_values(tuple(errors), None, alpha)
    return Noise("evaluation", (np.array(critical) * np.hypot(errors, errors[0])).tolist())


def critical_values(errors: tuple[float, ...], freedom: int | None, alpha: float) -> list[float]:
    """d_i for each point, as the control.

    Args:
        errors: Relative standard error of each point's mean, such as 1 / sqrt(n_i) [k].
        freedom: Degrees of freedom of the pooled variance; None where it is known.
        alpha: The error rate that is allowed.
    """
    if len(errors) < 2:
        return [0.0] * len(errors)  # nothing to be told apart from
    # Points whose errors hardly differ share a value, which changes slowly with them.
    typical = float(np.median(errors)) or 1.0
    relative = tuple(rounded(error / typical, 2) for error in errors)
    controls = {error: index for index, error in enumerate(relative)}
    known = {e: _critical(relative, index, freedom, alpha) for e, index in controls.items()}
    return [known[error] for error in relative]


@lru_cache(maxsize=1024)
def _critical(errors: tuple[float, ...], control: int, freedom: int | None, alpha: float) -> float:
    generator = np.random.default_rng(0)
    own = errors[control] * generator.standard_normal(DRAWS)
    largest = np.full(DRAWS, -np.inf)
    for index, error in enumerate(errors):
        if index == control:
            continue
        other = error * generator.standard_normal(DRAWS)
        spread = float(np.hypot(error, errors[control])) or 1.0  # both are exact, and equal here
        np.maximum(largest, (own - other) / spread, out=largest)
    if freedom is not None:
        largest /= np.sqrt(generator.chisquare(freedom, DRAWS) / freedom)
    return float(np.quantile(largest, 1 - alpha))
