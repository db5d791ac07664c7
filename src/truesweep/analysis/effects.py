"""Variance that keys explain, alone and in pairs, and how much of it noise alone would give.

Row 0 of all arrays over B is the sweep; the other rows are draws of normal noise at its points,
where no key has an effect. A key is told from noise where the ratio of its mean square to the
error's (Fisher's F) is larger than the largest of any key in 19 of 20 draws.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from truesweep.analysis.curves import Floats

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
