"""Loss against parameters, tokens and compute, where a comparison varies them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from truesweep.analysis.outcomes import Outcome
from truesweep.analysis.scaling import Interval, ScalingFit, Variable, fit_scaling, frontier
from truesweep.report.comparison import Comparison

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
    if not objective.name.endswith("loss"):
        return {"curves": [], "budgets": []}
    known = [one for one in comparison.outcomes if np.isfinite(one.value(objective.name))]
    losses = {one.id: one.value(objective.name) for one in known}
    curves = [_curve(name, known, losses) for name in VARIABLES if _varies(name, known)]
    shown = {str(run.directory.path) for run in comparison.runs}
    for curve in curves:
        curve["points"] = [point for point in curve["points"] if point[0] in shown]
    return {"curves": curves, "budgets": _budgets(known, losses)}


def _size(variable: Variable, one: Outcome) -> float | None:
    size = getattr(one, variable)
    return None if size is None else float(size)


def _varies(variable: Variable, known: Sequence[Outcome]) -> bool:
    sizes = [_size(variable, one) for one in known]
    told = [size for size in sizes if size is not None]
    return bool(told) and len(told) == len(sizes) and max(told) > 1.05 * min(told)


def _curve(
    variable: Variable, known: Sequence[Outcome], losses: dict[str, float]
) -> dict[str, Any]:
    """All points, which of them are the best of their size, and what runs through those."""
    sizes = np.array([_size(variable, one) for one in known], float)
    values = np.array([losses[one.id] for one in known])
    best = frontier(sizes, values)
    if variable == "compute":
        best = best[values[best] <= np.minimum.accumulate(values[best])]
    given: dict[str, Any] = {variable: sizes[best]}
    fit = fit_scaling(values[best], **given)
    return {
        "variable": variable,
        "points": [[one.id, float(sizes[i]), i in best] for i, one in enumerate(known)],
        **(_nothing(fit) if isinstance(fit, str) else _law(variable, fit)),
    }


def _nothing(reason: str) -> dict[str, Any]:
    return {"line": [], "text": reason}


def _law(variable: Variable, fit: ScalingFit) -> dict[str, Any]:
    low, high = fit.ranges[variable]
    at = np.geomspace(low, high * BEYOND, DRAWN)
    found = [(float(x), fit.predict(**{variable: float(x)})) for x in at]
    exponent = fit.terms[0].exponent
    text = (
        f"Loss = {_between(fit.floor)} + A / {variable}^{_between(exponent)} through the best of "
        f"{fit.points} sizes, 90 % intervals in brackets; beyond {high:.3g} it is extrapolated."
    )
    return {"line": [[x, one.value, one.low, one.high] for x, one in found], "text": text}


def _budgets(known: Sequence[Outcome], losses: dict[str, float]) -> list[list[float]]:
    """The size that a fit over both parameters and tokens prefers: [FLOP, value, low, high]."""
    if not (_varies("parameters", known) and _varies("tokens", known)):
        return []
    sizes = np.array([[one.parameters, one.tokens] for one in known], float)
    values = np.array([losses[one.id] for one in known])
    best = frontier(sizes, values)
    fit = fit_scaling(values[best], parameters=sizes[best, 0], tokens=sizes[best, 1])
    spent = [one.compute for one in known if one.compute is not None]
    if isinstance(fit, str) or not spent:
        return []
    asked = [max(spent) * factor for factor in BUDGETS]
    found = [(budget, fit.optimal_parameters(budget)) for budget in asked]
    return [[budget, one.value, one.low, one.high] for budget, one in found if one is not None]


def _between(one: Interval) -> str:
    return f"{one.value:.3g} [{one.low:.3g}, {one.high:.3g}]"
