"""Which hyperparameter mattered in a sweep, how much, and how much of it noise alone would give.

On a full grid the variance of the objective splits exactly into the shares of each key alone, of
each pair beyond its two keys, and the rest (functional analysis of variance, Hooker 2007; Hutter,
Hoos & Leyton-Brown 2014). Of random points and of a search, the share of each key alone is
estimated from the means over groups of its values, corrected for what chance would give (epsilon
squared, Kelley 1935). What noise alone would give is known from seeds and from simulation: row 0 of
all arrays over B is the sweep; the other rows are draws of normal noise at its points, where no key
has an effect. A key is told from noise where the ratio of its mean square to the error's (Fisher's
F) is larger than the largest of any key in 19 of 20 draws.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from truesweep.analysis.curves import Floats
from truesweep.analysis.outcomes import Outcome, by_point, sign
from truesweep.figures import Direction
from truesweep.text import figure, finite, percent, plural

Integers = npt.NDArray[np.int64]
Effect = tuple[int, ...]
"""The axes of an effect: one, or two together beyond what each does alone."""

DRAWS = 400
CONFIDENCE = 0.95
TINY = 1e-12
"""Of the whole variance: rounding, which is no error to measure effects by."""


@dataclass(frozen=True)
class Sample:
    """The points' figures, and what seeds say of their noise.

    Args:
        means: Of each point over its seeds [B, N].
        noise: Variance of such a mean by seeds, pooled over points [B]; None without repetitions.
        freedom: Its degrees of freedom.
    """

    means: Floats
    noise: Floats | None
    freedom: int


@dataclass(frozen=True)
class Effects:
    """Shares of the whole variance.

    Args:
        shares: Of each effect, without what seeds say is noise.
        noise: What noise alone gives it, to be compared with its share; 1 where that is not known.
        seeds: What noise between seeds makes up of the whole.
        missing: Cells of a grid that were filled in.
    """

    shares: Mapping[Effect, float]
    noise: Mapping[Effect, float]
    seeds: float = 0.0
    missing: int = 0


def with_noise(points: Sequence[Floats]) -> Sample:
    """The figures of N points, each over its seeds, and draws of noise in their place."""
    jobs = np.concatenate(points)
    counts = np.array([len(values) for values in points])
    noise = np.random.default_rng(0).standard_normal((DRAWS, len(jobs)))
    rows = np.concatenate([(jobs - jobs.mean())[None], noise])
    means = np.add.reduceat(rows, np.cumsum(counts) - counts, axis=1) / counts
    freedom = len(jobs) - len(points)
    if freedom == 0:
        return Sample(means, None, 0)
    within = (rows**2).sum(1) - (counts * means**2).sum(1)
    return Sample(means, within / freedom * (1 / counts).mean(), freedom)


def on_grid(sample: Sample, cells: Integers) -> Effects:
    """Effects over a full grid, where they are orthogonal; exact but for cells filled in.

    Args:
        sample: N points.
        cells: The place of each along each axis [N, K].
    """
    shape = [int(longest) + 1 for longest in cells.max(0)]
    grids = _filled(sample.means, cells, shape)
    size = math.prod(shape)
    missing = size - len(np.unique(cells, axis=0))
    total = grids.reshape(len(grids), -1).var(1)
    variances = _variances(grids)
    freedoms = {one: math.prod(shape[axis] - 1 for axis in one) for one in variances}
    noise: dict[Effect, float] = {}
    by_seeds = np.zeros(len(total)) if sample.noise is None else sample.noise / size
    for order in (1, 2):
        upto = [one for one in variances if len(one) <= order]
        left = size - missing - 1 - sum(freedoms[one] for one in upto)
        error, freedom = by_seeds, sample.freedom
        if left > freedom:  # what these effects leave over is better known than noise between seeds
            error, freedom = (total - sum(variances[one] for one in upto)) / left, left
        some = {one: variances[one] / freedoms[one] for one in upto if len(one) == order}
        limit = _limit(some, error + TINY * total) if freedom else math.inf
        noise |= {one: limit * freedoms[one] * float(error[0] + TINY * total[0]) for one in some}
    off = {one: freedoms[one] * float(by_seeds[0]) for one in variances}
    whole = float(total[0])
    return Effects(
        {one: max(0.0, float(v[0]) - off[one]) / whole for one, v in variances.items()},
        {one: min(1.0, max(0.0, noise[one] - off[one]) / whole) for one in variances},
        min(1.0, (size - 1) * float(by_seeds[0]) / whole),
        missing,
    )


def _limit(squares: Mapping[Effect, Floats], error: Floats) -> float:
    """The ratio to the error's mean square that noise alone brings some effect to."""
    largest = np.max([square / error for square in squares.values()], axis=0)
    return float(np.quantile(largest[1:], CONFIDENCE))


def _variances(grids: Floats) -> dict[Effect, Floats]:
    """Of the effect of each axis alone, and of each pair beyond the two; of grids [B, ...]."""

    def of_means(kept: Effect) -> Floats:
        others = tuple(axis + 1 for axis in range(grids.ndim - 1) if axis not in kept)
        return np.asarray(grids.mean(others).reshape(len(grids), -1).var(1))

    alone: dict[Effect, Floats] = {(a,): of_means((a,)) for a in range(grids.ndim - 1)}
    pairs = combinations(range(grids.ndim - 1), 2)
    return alone | {(a, b): of_means((a, b)) - alone[a,] - alone[b,] for a, b in pairs}


def _filled(means: Floats, cells: Integers, shape: Sequence[int]) -> Floats:
    """Grids [B, ...]; missing cells have what the separate effects add up to (Yates 1933)."""
    every = np.stack(np.unravel_index(np.arange(math.prod(shape)), shape), axis=1)
    at = np.ravel_multi_index(tuple(cells.T), tuple(shape))
    grids = np.empty((len(means), len(every)))
    grids[:, at] = means
    missing = np.setdiff1d(np.arange(len(every)), at)
    if len(missing):
        one_hot = np.concatenate([np.eye(n)[every[:, a]] for a, n in enumerate(shape)], axis=1)
        added = np.linalg.lstsq(one_hot[at], means.T, rcond=None)[0]
        grids[:, missing] = (one_hot[missing] @ added).T
    return grids.reshape(len(means), *shape)


def of_groups(sample: Sample, groups: Sequence[Integers]) -> Effects:
    """Effects of single keys on scattered points, less what chance gives (epsilon squared).

    Args:
        sample: N points.
        groups: By key the group of each point [N].
    """
    means = sample.means - sample.means.mean(1, keepdims=True)
    total = (means**2).sum(1)
    between: dict[Effect, Floats] = {}
    ratios: dict[Effect, Floats] = {}
    freedoms: dict[Effect, tuple[int, int]] = {}
    for key, group in enumerate(groups):
        one_hot = np.eye(int(group.max()) + 1)[group]
        freedoms[key,] = (one_hot.shape[1] - 1, len(group) - one_hot.shape[1])
        between[key,] = ((means @ one_hot) ** 2 / one_hot.sum(0)).sum(1)
        more, left = freedoms[key,]
        within = total - between[key,] + TINY * total
        ratios[key,] = between[key,] / more / (within / max(left, 1))
    limit = _limit(ratios, np.ones(len(total)))

    def share(ratio: float, more: int, left: int) -> float:
        explained = ratio * more / (ratio * more + left)
        return max(0.0, explained - more / left * (1 - explained)) if left > 0 else 0.0

    return Effects(
        {one: share(float(ratios[one][0]), *freedoms[one]) for one in ratios},
        {one: share(limit, *freedoms[one]) for one in ratios},
    )


JOIN = " + "
"""Between the names of keys that vary as one."""
MISSING_SHARE = 0.2
"""The share of a grid's cells that may be filled in."""
LEAST_SEARCH = 15
"""Points below which scattered points say nothing."""
MOST_GROUPS, LEAST_IN_GROUP = 6, 4
"""Into how many ranges numbers are cut, and how many points each of them has."""
FAR = 3.0
"""How many times the median's distance to the best a job may be worse before it is cut there."""

Columns = Mapping[str, Sequence[Any]]
"""By key, or by keys that vary as one: the value of each point."""


@dataclass(frozen=True)
class Importance:
    """Shares of the objective's variance.

    What they lack of 1 is of three and more keys together, noise between seeds and, of scattered
    points, all interactions.

    Args:
        shares: By swept key, the most important first; keys that determine each other are one,
            `lr + warmup`. Empty where nothing can be said.
        interactions: By pair of keys, beyond the two alone; of a grid only.
        noise: What noise alone gives each of them in one of twenty sweeps; a share that is not
            larger is not distinguishable from noise.
        method: How they were found.
        notes: What to keep in mind.
    """

    shares: Mapping[str, float]
    interactions: Mapping[tuple[str, str], float] = field(default_factory=dict)
    noise: Mapping[str | tuple[str, str], float] = field(default_factory=dict)
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
    columns = _columns([jobs[0] for jobs in points])
    if not columns or len(points) < 3:
        return Importance({}, notes=[f"{plural(len(points), 'point')}: too few."])
    if len(columns) == 1:
        return Importance({}, notes=[f"Only {next(iter(columns))} varied: it has no rival."])
    figures = [np.array([job.value(objective) for job in jobs]) for jobs in points]
    losses, notes = _cut([sign(direction) * values for values in figures])
    if np.ptp([values.mean() for values in losses]) == 0:
        return Importance({}, notes=["All points have the same objective."])
    cells = np.stack([_categories(values) for values in columns.values()], axis=1)
    size = math.prod(cells.max(0) + 1)
    if len(np.unique(cells, axis=0)) >= (1 - MISSING_SHARE) * size:
        return _of_grid(with_noise(losses), cells, list(columns), notes)
    return _of_search(losses, columns, notes)


def _columns(jobs: Sequence[Outcome]) -> dict[str, list[Any]]:
    """What varies, keys that determine each other under one name."""
    keys = dict.fromkeys(key for job in jobs for key in job.varies)
    together: list[list[str]] = []
    values = {key: [job.varies.get(key) for job in jobs] for key in keys}
    for key in keys:
        if len({repr(value) for value in values[key]}) > 1:
            same = (one for one in together if _same(values[one[0]], values[key]))
            known = next(same, None)
            together.append([key]) if known is None else known.append(key)
    return {JOIN.join(group): values[group[0]] for group in together}


def _same(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """Whether each value of a key goes with one of the other's, and not by being unique."""
    texts = [(repr(one), repr(other)) for one, other in zip(a, b, strict=True)]
    pairs, ones, others = len(set(texts)), len({t[0] for t in texts}), len({t[1] for t in texts})
    if not pairs == ones == others:
        return False
    return pairs < len(texts) or _ordered_alike(a, b)


def _ordered_alike(a: Sequence[Any], b: Sequence[Any]) -> bool:
    if not (_numbers(a) and _numbers(b)):
        return False
    one, other = (np.argsort(np.array(values, np.float64)) for values in (a, b))
    return np.array_equal(one, other) or np.array_equal(one, other[::-1])


def _numbers(values: Sequence[Any]) -> bool:
    return all(finite(v) is not None for v in values)


def _cut(losses: list[Floats]) -> tuple[list[Floats], list[str]]:
    """Bring diverged jobs near, so that they do not make up all the variance."""
    every = np.concatenate(losses)
    best, median = float(every.min()), float(np.median(every))
    limit = best + FAR * (median - best)
    far = int((every > limit).sum())
    if far == 0 or limit <= best:
        return losses, []
    note = f"{far} far worse runs count as {figure(abs(limit))}, so that they do not decide alone."
    return [np.minimum(values, limit) for values in losses], [note]


def _of_grid(sample: Sample, cells: Integers, names: list[str], notes: list[str]) -> Importance:
    found = on_grid(sample, cells)
    if found.missing:
        size = math.prod(cells.max(0) + 1)
        notes.append(f"{found.missing} of {size} cells of the grid were filled in.")
    if found.seeds:
        notes.append(f"Noise between seeds, {percent(found.seeds)} of the variance, is taken off.")
    return _importance(found, names, "grid", notes)


def _of_search(losses: list[Floats], columns: Columns, notes: list[str]) -> Importance:
    if len(losses) < LEAST_SEARCH:
        few = f"{len(losses)} points of no full grid are too few; {LEAST_SEARCH} would do."
        return Importance({}, notes=[*notes, few])
    found = of_groups(with_noise(losses), [_groups(values) for values in columns.values()])
    if not any(found.shares.values()):
        return Importance({}, notes=[*notes, "No key alone explains the differences."])
    notes.append("Estimated from scattered points; a search's crowd where it was good.")
    return _importance(found, list(columns), "search", notes)


def _importance(
    found: Effects, names: list[str], method: Literal["grid", "search"], notes: list[str]
) -> Importance:
    scale = max(1.0, sum(found.shares.values()))
    ordered = sorted(found.shares.items(), key=lambda item: -item[1])
    shares = {names[one[0]]: share / scale for one, share in ordered if len(one) == 1}
    pairs = {
        (names[one[0]], names[one[1]]): share / scale for one, share in ordered if len(one) == 2
    }
    noise: dict[str | tuple[str, str], float] = {
        names[one[0]] if len(one) == 1 else (names[one[0]], names[one[1]]): share / scale
        for one, share in found.noise.items()
    }
    below = sum(share <= noise[name] for name, share in shares.items())
    return Importance(shares, pairs, noise, method, [*notes, *_doubt(below, len(shares))])


def _doubt(below: int, keys: int) -> list[str]:
    if below == 0:
        return []
    which = f"{below} of {keys} keys {'is' if below == 1 else 'are'} not"
    which = "No key is" if below == keys else which
    return [
        f"{which} distinguishable from noise: in one of twenty draws of nothing but noise, some "
        "key's effect stands out as much."
    ]


def _categories(values: Sequence[Any]) -> Integers:
    """The group of each point: one a value."""
    texts = [repr(value) for value in values]
    known = {text: i for i, text in enumerate(sorted(set(texts)))}
    return np.array([known[text] for text in texts])


def _groups(values: Sequence[Any]) -> Integers:
    """One a value or, of many numbers, ranges with as many points each."""
    found = _categories(values)
    if not _numbers(values) or found.max() < MOST_GROUPS:
        return found
    ranks = np.argsort(np.argsort(np.array(values, np.float64), kind="stable"))
    count = min(MOST_GROUPS, len(values) // LEAST_IN_GROUP)
    groups: Integers = ranks * count // len(values)
    return groups
