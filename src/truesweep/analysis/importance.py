"""Which hyperparameter mattered in a sweep, and how much.

On a full grid the variance of the objective splits exactly into the shares of each key alone, of
each pair beyond its two keys, and the rest (functional analysis of variance, Hooker 2007; Hutter,
Hoos & Leyton-Brown 2014). Of random points and of a search, the share of each key alone is
estimated from the means over groups of its values, corrected for what chance would give (epsilon
squared, Kelley 1935).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from truesweep.analysis.outcomes import Direction, Outcome, by_point, sign

Floats = npt.NDArray[np.float64]
Key = TypeVar("Key")

MISSING_SHARE = 0.2
"""The share of a grid's cells that may be filled in."""
LEAST_SEARCH = 15
"""Points below which scattered points say nothing."""
MOST_GROUPS, LEAST_IN_GROUP = 6, 4
"""Into how many ranges numbers are cut, and how many points each of them has."""
FAR = 3.0
"""How many times the median's distance to the best a point may be worse before it is cut there."""


@dataclass(frozen=True)
class Importance:
    """Shares of the objective's variance; with the rest they sum up to 1.

    Args:
        shares: By swept key, the most important first; empty where nothing can be said.
        interactions: By pair of keys, beyond the two alone; of a grid only.
        rest: What is left: three and more keys together and, of scattered points, all interactions.
        method: How they were found.
        notes: What to keep in mind.
    """

    shares: Mapping[str, float]
    interactions: Mapping[tuple[str, str], float] = field(default_factory=dict)
    rest: float = 0.0
    method: Literal["grid", "search", "none"] = "none"
    notes: Sequence[str] = ()


def importance(
    outcomes: Sequence[Outcome], objective: str, direction: Direction = "minimize"
) -> Importance:
    """The importance of each swept key.

    Args:
        outcomes: The jobs of a sweep.
        objective: The figure that was to be improved.
        direction: Whether less or more of it is better.
    """
    points = list(by_point(outcomes, objective).values())
    means = np.array([np.mean([job.value(objective) for job in jobs]) for jobs in points])
    axes = _axes([jobs[0] for jobs in points])
    if not axes or len(points) < 3:
        return Importance({}, notes=[f"{len(points)} points are too few."])
    losses, notes = _cut(sign(direction) * means)
    if np.ptp(losses) == 0:
        return Importance({}, notes=["All points have the same objective."])
    grid = _grid(points, axes, losses)
    missing = float(np.isnan(grid).mean())
    if missing <= MISSING_SHARE:
        return _of_grid(_filled(grid, notes), list(axes), notes)
    return _of_search([jobs[0] for jobs in points], list(axes), losses, notes)


def _axes(jobs: Sequence[Outcome]) -> dict[str, list[Any]]:
    """The keys with two values or more, and their values."""
    values: dict[str, dict[str, Any]] = {}
    for job in jobs:
        for key, value in job.varies.items():
            values.setdefault(key, {})[repr(value)] = value
    return {key: list(found.values()) for key, found in values.items() if len(found) > 1}


def _cut(losses: Floats) -> tuple[Floats, list[str]]:
    """Bring diverged points near, so that they do not make up all the variance."""
    best, median = float(losses.min()), float(np.median(losses))
    limit = best + FAR * (median - best)
    far = int((losses > limit).sum())
    if far == 0 or limit <= best:
        return losses, []
    note = f"{far} far worse points count as {abs(limit):.4g}, so that they do not decide alone."
    return np.minimum(losses, limit), [note]


def _grid(points: list[list[Outcome]], axes: dict[str, list[Any]], losses: Floats) -> Floats:
    """The objective as an array with an axis a key; NaN where there is no point."""
    size = math.prod(len(values) for values in axes.values())
    if size > 4 * len(points):  # far from a grid, and maybe too large to write down
        return np.full(1, np.nan)
    grid = np.full([len(values) for values in axes.values()], np.nan)
    names = [[repr(v) for v in values] for values in axes.values()]
    for jobs, loss in zip(points, losses, strict=True):
        at = tuple(
            known.index(repr(jobs[0].varies.get(key)))
            for key, known in zip(axes, names, strict=True)
        )
        grid[at] = loss
    return grid


def _filled(grid: Floats, notes: list[str]) -> Floats:
    """Fill missing cells with what the keys' separate effects add up to there (Yates 1933)."""
    missing = np.isnan(grid)
    if not missing.any():
        return grid
    notes.append(f"{int(missing.sum())} of {grid.size} cells of the grid were filled in.")
    full = np.where(missing, np.nanmean(grid), grid)
    for _ in range(100):
        added = np.sum([_main(full, axis) for axis in range(grid.ndim)], axis=0) + full.mean()
        full[missing] = added[missing]
    return full


def _main(grid: Floats, axis: int) -> Floats:
    """A key's effect alone, in the shape of the whole grid."""
    others = tuple(a for a in range(grid.ndim) if a != axis)
    effect: Floats = grid.mean(others, keepdims=True) - grid.mean()
    return np.broadcast_to(effect, grid.shape)


def _of_grid(grid: Floats, names: list[str], notes: list[str]) -> Importance:
    """Exact shares: variances of the effects, which are orthogonal on a grid."""
    total = float(grid.var())
    effects = [_main(grid, axis) for axis in range(grid.ndim)]
    alone = {name: float(e.var()) / total for name, e in zip(names, effects, strict=True)}
    pairs = {}
    for a, b in combinations(range(grid.ndim), 2):
        others = tuple(axis for axis in range(grid.ndim) if axis not in (a, b))
        both = np.broadcast_to(grid.mean(others, keepdims=True) - grid.mean(), grid.shape)
        pairs[names[a], names[b]] = float((both - effects[a] - effects[b]).var()) / total
    rest = max(0.0, 1 - sum(alone.values()) - sum(pairs.values()))
    return Importance(_sorted(alone), _sorted(pairs), rest, "grid", notes)


def _of_search(
    jobs: list[Outcome], names: list[str], losses: Floats, notes: list[str]
) -> Importance:
    if len(jobs) < LEAST_SEARCH:
        few = f"{len(jobs)} points of no full grid are too few; {LEAST_SEARCH} would do."
        return Importance({}, notes=[*notes, few])
    alone = {
        name: _explained(_groups([job.varies.get(name) for job in jobs]), losses) for name in names
    }
    total = sum(alone.values())
    if total == 0:
        return Importance({}, notes=[*notes, "No key alone explains the differences."])
    shares = {name: share / max(1.0, total) for name, share in alone.items()}
    notes = [*notes, "Estimated from scattered points; a search's crowd where it was good."]
    return Importance(_sorted(shares), {}, max(0.0, 1 - total), "search", notes)


def _groups(values: Sequence[Any]) -> npt.NDArray[np.int64]:
    """The group of each point: one a value or, of many numbers, ranges with as many points each."""
    texts = [repr(value) for value in values]
    distinct = sorted(set(texts))
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if not numbers or len(distinct) <= MOST_GROUPS:
        return np.array([distinct.index(text) for text in texts])
    ranks = np.argsort(np.argsort(np.array(values, np.float64), kind="stable"))
    count = min(MOST_GROUPS, len(values) // LEAST_IN_GROUP)
    groups: npt.NDArray[np.int64] = ranks * count // len(values)
    return groups


def _explained(groups: npt.NDArray[np.int64], losses: Floats) -> float:
    """The share of the variance between groups, less what chance puts there; not below 0."""
    means = np.array([losses[groups == group].mean() for group in groups])
    between = float(((means - losses.mean()) ** 2).sum())
    within = float(((losses - means) ** 2).sum())
    freedom = len(set(groups.tolist())) - 1
    left = len(losses) - freedom - 1
    if left <= 0:
        return 0.0
    return max(0.0, (between - freedom * within / left) / (between + within))


def _sorted(shares: Mapping[Key, float]) -> dict[Key, float]:
    return dict(sorted(shares.items(), key=lambda item: -item[1]))
