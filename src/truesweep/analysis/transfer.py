"""Whether the best learning rate stays where it is as models grow, and which layer moves it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from truesweep.analysis.curves import Floats
from truesweep.figures import Mode

Verdict = Literal["transfers", "moves", "undecided"]
Side = Literal["low", "high"]

STILL = math.sqrt(2)
"""A best rate that moves by no more than this factor stays: half a step of a grid by doubling."""
REACH = math.log(8)
"""How far from the vertex rates have a say in where it is, as a logarithm; the nearer, the more.

Bowls are flat: of three rates by factors of two the vertex follows the noise. Those within eight
times find a shift between two sizes with a half to a quarter of that error.
"""
ROUNDS = 6
"""Of fits around the last vertex."""
DRAWS = 1000
"""How often losses are drawn again with their noise."""


@dataclass(frozen=True)
class Tried:
    """What one learning rate came to at one size.

    Args:
        size: What makes the size, such as `model.width`, by key.
        parameters: By which sizes are ordered.
        rate: The learning rate.
        losses: The objective of each seed; not finite where a training has failed.
    """

    size: Mapping[str, Any]
    parameters: int
    rate: float
    losses: Sequence[float]


@dataclass(frozen=True)
class Best:
    """The best learning rate of a size.

    Args:
        size: The size, by key.
        rates: The rates that were tried, ascending.
        losses: The mean over seeds of each; infinite where one has failed.
        rate: The best one: the vertex of a parabola in the rate's logarithm through those
            that were tried around it, by least squares.
        low: Lower end of its interval: 95 % by the noise of seeds, or with one seed half a step to
            either side. 0 where nothing was tried beyond.
        high: Upper end; infinite where nothing was tried beyond.
        loss: The objective there, by the parabola.
        edge: The side on which nothing was tried beyond the best one.
    """

    size: Mapping[str, Any]
    rates: Sequence[float]
    losses: Sequence[float]
    rate: float
    low: float
    high: float
    loss: float
    edge: Side | None


@dataclass(frozen=True)
class Transfer:
    """Whether one learning rate is for all sizes.

    Args:
        best: Of each size, the smallest one first.
        factor: The largest of the best rates over the smallest; at least that, where a best rate
            lies on an edge.
        cost: How much worse the largest size is with the smallest one's best rate than with its
            own; None where that rate was not tried near.
        verdict: `transfers`: the best rate moves by less than `STILL`; `moves`: it moves by more,
            and two intervals have nothing in common; `undecided` otherwise, or where an edge hides
            how far it moves.
    """

    best: Sequence[Best]
    factor: float
    cost: float | None
    verdict: Verdict


def judge_transfer(tried: Sequence[Tried], *, mode: Mode) -> Transfer:
    """Lay the rates of all sizes over each other.

    Args:
        tried: Rates of at least two sizes, with the same seeds.
        mode: Which way the objective is better.
    """
    sizes: dict[tuple[tuple[str, Any], ...], list[Tried]] = {}
    for one in sorted(tried, key=lambda one: (one.parameters, one.rate)):
        sizes.setdefault(tuple(one.size.items()), []).append(one)
    sign = 1.0 if mode == "min" else -1.0
    noise = _noise(list(sizes.values()), sign)
    best = [_best(rows, sign, noise) for rows in sizes.values()]
    rates = [one.rate for one in best]
    factor = max(rates) / min(rates)
    apart = max(one.low for one in best) > min(one.high for one in best)
    verdict: Verdict = "undecided"
    if factor > STILL and apart:
        verdict = "moves"
    elif factor <= STILL and not any(one.edge for one in best):
        verdict = "transfers"
    return Transfer(best, factor, _cost(best[-1], best[0].rate, sign), verdict)


def _means(rows: Sequence[Tried], sign: float) -> Floats:
    """By rate, less is better; infinite where a training has failed."""
    means = np.array([float(np.mean(row.losses)) if row.losses else math.inf for row in rows])
    return np.where(np.isfinite(means), sign * means, np.inf)


def _noise(sizes: Sequence[Sequence[Tried]], sign: float) -> float:
    """The standard deviation of a seed's loss near the best rates of all sizes; 0: not known."""
    squares, degrees = 0.0, 0
    for rows in sizes:
        middle = int(np.argmin(_means(rows, sign)))
        for row in rows[max(0, middle - 1) : middle + 2]:
            if len(row.losses) > 1 and np.isfinite(row.losses).all():
                squares += float(np.var(row.losses)) * len(row.losses)
                degrees += len(row.losses) - 1
    return math.sqrt(squares / degrees) if degrees else 0.0


def _best(rows: Sequence[Tried], sign: float, noise: float) -> Best:
    logs, means = np.log([row.rate for row in rows]), _means(rows, sign)
    place = int(np.argmin(means))
    at, loss = (float(found) for found in _vertex(logs, means))
    low, high = _half_steps(logs, place, at)
    if noise:
        errors = noise / np.sqrt([max(1, len(row.losses)) for row in rows])
        drawn = means + np.random.default_rng(0).normal(0, 1, (DRAWS, len(rows))) * errors
        low, high = np.quantile(_vertex(logs, drawn)[0], [0.025, 0.975])
    # A rate that has failed was tried: beyond it there is nothing to be found.
    edge: Side | None = None
    if place == 0:
        edge, low = "low", -math.inf
    elif place == len(rows) - 1:
        edge, high = "high", math.inf
    return Best(
        size=dict(rows[0].size),
        rates=[row.rate for row in rows],
        losses=[float(sign * mean) for mean in means],
        rate=math.exp(at),
        low=math.exp(low),
        high=math.exp(high) if math.isfinite(high) else math.inf,
        loss=sign * loss,
        edge=edge,
    )


def _half_steps(logs: Floats, place: int, at: float) -> tuple[float, float]:
    """Half of the way from a rate to its neighbours, to either side of the vertex beside it."""
    ends = logs[max(0, place - 1)], logs[min(len(logs) - 1, place + 1)]
    return float(at - (logs[place] - ends[0]) / 2), float(at + (ends[1] - logs[place]) / 2)


def _vertex(logs: Floats, means: Floats) -> tuple[Floats, Floats]:
    """Where a parabola through the least value and those around is least, and its value.

    By least squares, weighted by how near values are to the vertex itself, which is found by a few
    rounds. The least value itself where it has no two neighbours that are finite.

    Args:
        logs: The rates' logarithms [N].
        means: Losses at them [..., N].
    """
    place, least = np.argmin(means, axis=-1), np.min(means, axis=-1)
    finite = np.isfinite(means)
    beside = np.abs(np.arange(len(logs)) - place[..., None]) <= 1
    known = (beside & finite).sum(-1) == 3
    with np.errstate(invalid="ignore"):
        over = np.where(finite, means - least[..., None], 0.0)
    reach = max(REACH, 2 * float(np.diff(logs).max(initial=0.0)))
    at, lowest = logs[place], least
    for _ in range(ROUNDS):
        away = logs - at[..., None]
        weights = finite * np.maximum(1 - (away / reach) ** 2, 0.0)
        powers = away[..., None] ** np.arange(5)
        moments = (weights[..., None, :] @ powers)[..., 0, :]
        normal = moments[..., np.add.outer(np.arange(3), np.arange(3))] + 1e-9 * np.eye(3)
        fitted = np.linalg.solve(
            normal, np.swapaxes(powers[..., :3], -1, -2) @ (weights * over)[..., None]
        )
        floor, slope, bend = np.moveaxis(fitted[..., 0], -1, 0)
        known &= bend > 0
        step = np.clip(-slope / np.where(known, 2 * bend, np.inf), -math.log(2), math.log(2))
        at = np.clip(at + step, logs[0], logs[-1])
        lowest = np.where(known, least + floor + slope * step + bend * step**2, least)
    return np.where(known, at, logs[place]), lowest


def _cost(largest: Best, rate: float, sign: float) -> float | None:
    """How much worse a size is with a rate than with its best one, between those it has tried."""
    known = [i for i, loss in enumerate(largest.losses) if math.isfinite(loss)]
    rates, losses = ([values[i] for i in known] for values in (largest.rates, largest.losses))
    if not rates or not rates[0] <= rate <= rates[-1]:
        return None
    if abs(math.log(rate / largest.rate)) < 1e-9:
        return 0.0
    found = float(np.interp(math.log(rate), np.log(rates), losses))
    return max(0.0, sign * (found - largest.loss))


# -- a coordinate check ----------------------------------------------------------------------------

FLAT = 0.3
"""A slope that says nothing: small widths, and few steps, leave as much."""


@dataclass(frozen=True)
class Growth:
    """How what a layer does follows the size: the exponent of a power law.

    Args:
        layer: Its name in the model.
        start: Of what it gives with the weights that it started from; NaN where they are zero.
        step: Of what training has added to that.
        start_error: The standard error of `start` over seeds.
        step_error: That of `step`.
        narrow: Whether it has as many outputs in all sizes, which start smaller in wider models.
    """

    layer: str
    start: float
    step: float
    start_error: float
    step_error: float
    narrow: bool

    @property
    def breaks(self) -> bool:
        """Whether the layer does more or less in larger models, beyond noise."""
        low = -math.inf if self.narrow else -FLAT
        return _outside(self.step, self.step_error, -FLAT) or _outside(
            self.start, self.start_error, low
        )


def _outside(slope: float, error: float, low: float) -> bool:
    return slope - 2 * error > FLAT or slope + 2 * error < low


def slope(sizes: Sequence[float], amounts: npt.ArrayLike) -> tuple[float, float]:
    """The exponent of a power law of amounts in sizes, and its standard error over seeds.

    NaN and 0 where an amount is zero.

    Args:
        sizes: Such as widths [N].
        amounts: By seed and size [S, N].
    """
    table = np.asarray(amounts, np.float64)
    if not (table > 0).all():
        return math.nan, 0.0
    slopes = np.polyfit(np.log(sizes), np.log(table).T, 1)[0]
    error = float(np.std(slopes, ddof=1)) / math.sqrt(len(slopes)) if len(slopes) > 1 else 0.0
    return float(np.mean(slopes)), error
