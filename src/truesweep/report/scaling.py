"""Loss against parameters, tokens and compute, where a comparison varies them."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from truesweep.analysis.curves import Floats
from truesweep.analysis.outcomes import Outcome, by_point
from truesweep.analysis.ranking import TOLERANCE
from truesweep.analysis.scaling import Interval, ScalingFit, Variable, fit_scaling, frontier
from truesweep.figures import LOSS
from truesweep.report.comparison import Comparison
from truesweep.runs.snapshot import Snapshot
from truesweep.text import count, counts, figures, number

VARIABLES: tuple[Variable, ...] = ("parameters", "tokens", "compute")
DRAWN = 40
"""Points of a fitted curve."""
BEYOND = 3.0
"""How many times the largest size a curve is drawn to."""
BUDGETS = (1.0, 10.0, 100.0)
"""Times the largest compute that was spent."""


def scaling(comparison: Comparison) -> dict[str, Any]:
    """The curves of those variables that differ; of a loss only, as other figures have no law.

    A law is one of all runs; of its points those are told that belong to runs which are shown.
    """
    objective = comparison.objective
    if objective.name.rpartition("/")[2] != LOSS.name:
        return {"curves": [], "budgets": [], "note": ""}
    points = [
        _point(jobs, objective.name)
        for jobs in by_point(comparison.outcomes, objective.name).values()
    ]
    shown = {str(run.directory.path) for run in comparison.runs}
    curves = [_curve(name, points, shown) for name in VARIABLES if _varies(name, points)]
    return {"curves": curves, "budgets": _budgets(points), "note": _repeated(comparison.runs)}


@dataclass(frozen=True)
class _Point:
    """The mean over a point's seeds."""

    ids: Sequence[str]
    loss: float
    sizes: Mapping[Variable, float | None]


def _point(jobs: Sequence[Outcome], objective: str) -> _Point:
    def mean(values: Sequence[float | None]) -> float | None:
        known = [float(value) for value in values if value]
        return float(np.mean(known)) if len(known) == len(values) else None

    loss = float(np.mean([job.value(objective) for job in jobs]))
    sizes = {name: mean([getattr(job, name) for job in jobs]) for name in VARIABLES}
    return _Point([job.id for job in jobs], loss, sizes)


def _sizes(variable: Variable, points: Sequence[_Point]) -> Floats:
    """NaN where it is not known [M]."""
    return np.array([point.sizes[variable] for point in points], float)


def _varies(variable: Variable, points: Sequence[_Point]) -> bool:
    sizes = _sizes(variable, points)
    return bool(len(sizes) and np.isfinite(sizes).all() and not _agree(sizes))


def _agree(sizes: Floats) -> bool:
    return bool(sizes.max() <= (1 + TOLERANCE) * sizes.min())


def _curve(variable: Variable, points: Sequence[_Point], shown: Set[str]) -> dict[str, Any]:
    """All runs that are shown, which of them are the best of their size, and the law of those."""
    sizes, losses = _sizes(variable, points), np.array([point.loss for point in points])
    best = frontier(sizes, losses)
    if variable == "compute":
        best = best[losses[best] <= np.minimum.accumulate(losses[best])]
    given: dict[str, Any] = {variable: sizes[best]}
    law = _confused(variable, [points[i] for i in best]) or fit_scaling(losses[best], **given)
    return {
        "variable": variable,
        "points": [
            [id, float(sizes[i]), i in best]
            for i, point in enumerate(points)
            for id in point.ids
            if id in shown
        ],
        **(_nothing(law) if isinstance(law, str) else _law(variable, law)),
    }


def _confused(variable: Variable, best: Sequence[_Point]) -> str:
    """Why a law of one variable would be one of another, which is not the same for all sizes."""
    if variable == "compute":
        return ""
    other: Variable = "tokens" if variable == "parameters" else "parameters"
    amounts = _sizes(other, best)
    if not np.isfinite(amounts).all():
        return f"No curve of {variable} alone: the {other} of some runs are not known."
    if _agree(amounts):
        return ""
    low, high = counts([float(amounts.min()), float(amounts.max())])
    return (
        f"No curve of {variable} alone: the best runs of each size differ in {other}, too, from "
        f"{low} to {high}, and what is due to which cannot be told. Compare sizes at equal {other}."
    )


def _nothing(reason: str) -> dict[str, Any]:
    return {"line": [], "text": reason}


def _law(variable: Variable, fit: ScalingFit) -> dict[str, Any]:
    low, high = fit.ranges[variable]
    at = np.geomspace(low, high * BEYOND, DRAWN)
    found = [(float(x), fit.predict(**{variable: float(x)})) for x in at]
    exponent = fit.terms[0].exponent
    text = (
        f"Loss = {_between(fit.floor)} + A / {variable}^{_between(exponent)} through the best of "
        f"{fit.points} sizes, 90 % intervals in brackets; beyond {count(high)} it is extrapolated."
    )
    return {"line": [[x, one.value, one.low, one.high] for x, one in found], "text": text}


def _budgets(points: Sequence[_Point]) -> list[list[float]]:
    """The size that a fit over both parameters and tokens prefers: [FLOP, value, low, high]."""
    if not (_varies("parameters", points) and _varies("tokens", points)):
        return []
    sizes = np.stack([_sizes("parameters", points), _sizes("tokens", points)], axis=1)
    losses = np.array([point.loss for point in points])
    best = frontier(sizes, losses)
    fit = fit_scaling(losses[best], parameters=sizes[best, 0], tokens=sizes[best, 1])
    spent = float(np.nanmax(_sizes("compute", points)))
    if isinstance(fit, str):
        return []
    found = [(spent * factor, fit.optimal_parameters(spent * factor)) for factor in BUDGETS]
    return [[budget, one.value, one.low, one.high] for budget, one in found if one is not None]


def _repeated(runs: Sequence[Snapshot]) -> str:
    """That later passes over the data teach less than the first, if there were any."""
    most = max((_passes(run) for run in runs), default=0.0)
    if most < 1 + TOLERANCE:
        return ""
    return (
        f"Runs passed over the data up to {count(most)} times: repeated tokens teach less than "
        "fresh ones, and the more the fewer there are, so these curves hold for this much data."
    )


def _passes(run: Snapshot) -> float:
    """How often a run went through its data, as its verdict knows it; 0 where it has none."""
    passes, best = (number(run.verdict.get(key)) for key in ("sufficient_epochs", "best_step"))
    return run.step * passes / best if passes and best else 0.0


def _between(one: Interval) -> str:
    value, low, high = figures([one.value, one.low, one.high], digits=3)
    return f"{value} [{low}, {high}]"
