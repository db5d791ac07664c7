"""A best value on the edge of its range, and the range to try next."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from truesweep.analysis.standings import Ranking

MANY = 8
"""Distinct values above which an axis counts as sampled from a range, not listed."""
EDGE = 0.05
"""The share of a sampled range, at either end, that is its edge."""
DOUBLE = 2.0
"""Two values that differ by this factor or more are taken to follow each other by factors."""


@dataclass(frozen=True)
class Edge:
    """A swept key whose best value has nothing tried beyond it.

    Args:
        key: The swept key.
        best: Its value in the winner.
        side: Which end of the range that is.
        spacing: How its values follow each other.
        conclusive: Whether no point away from this edge is tied with the winner.
        suggestion: Values to try next: the best one's inner neighbour, itself, and two beyond.
        text: The same in a sentence.
    """

    key: str
    best: float
    side: Literal["low", "high"]
    spacing: Literal["linear", "log"]
    conclusive: bool
    suggestion: Sequence[float]
    text: str


def edges(ranking: Ranking) -> list[Edge]:
    """The numeric keys of a sweep whose best value lies on the edge of what was tried.

    Of two values each is an edge, which is said only where the other one is worse for sure. Nothing
    is suggested beyond a natural end: zero, and one for shares.
    """
    if ranking.best is None:
        return []
    found = (_edge(ranking, key) for key in ranking.best.varies)
    return [edge for edge in found if edge is not None]


def _edge(ranking: Ranking, key: str) -> Edge | None:
    assert ranking.best is not None
    tried = sorted({v for s in ranking.standings if (v := _number(s.varies.get(key))) is not None})
    best = _number(ranking.best.varies.get(key))
    if best is None or len(tried) < 2:
        return None
    spacing = spacing_of(tried)
    side = _side(best, tried, spacing)
    if side is None:
        return None
    beyond = next_values(tried, side, spacing)
    if len(beyond) < 3:  # nothing beyond the edge
        return None
    inside = [_number(s.varies.get(key)) for s in ranking.tied]
    conclusive = not any(v is not None and _side(v, tried, spacing) != side for v in inside)
    if len(tried) == 2 and (not conclusive or ranking.basis == "none"):
        return None
    return Edge(key, best, side, spacing, conclusive, beyond, _text(key, best, beyond, conclusive))


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None


def spacing_of(tried: Sequence[float]) -> Literal["linear", "log"]:
    """Whether sorted values follow each other by factors or by steps, whichever is more even."""
    if tried[0] <= 0:
        return "linear"
    if len(tried) == 2:
        return "log" if tried[1] / tried[0] >= DOUBLE else "linear"
    steps = np.diff(tried)
    ratios = np.diff(np.log(tried))
    uneven = [float(np.std(d) / np.mean(d)) for d in (steps, ratios)]
    if len(tried) > MANY:  # sampled: even steps of the sorted values are not to be had
        return "log" if tried[-1] / tried[0] >= 30 else "linear"
    return "log" if uneven[1] < uneven[0] - 1e-9 else "linear"


def _side(
    value: float, tried: Sequence[float], spacing: Literal["linear", "log"]
) -> Literal["low", "high"] | None:
    if len(tried) <= MANY:
        return "low" if value == tried[0] else "high" if value == tried[-1] else None
    scale = math.log if spacing == "log" else float
    low, high = scale(tried[0]), scale(tried[-1])
    share = (scale(value) - low) / (high - low)
    return "low" if share < EDGE else "high" if share > 1 - EDGE else None


def next_values(
    tried: Sequence[float], side: Literal["low", "high"], spacing: Literal["linear", "log"]
) -> list[float]:
    """The edge's inner neighbour, the edge, and up to two values beyond it, ascending.

    Log-spaced values go on by their typical factor, others by their typical step; integers stay
    integers, and at least 1 where all were.
    """
    if len(tried) > MANY:  # four values over a quarter of the sampled range
        grid = np.geomspace if spacing == "log" else np.linspace
        tried = [float(v) for v in grid(tried[0], tried[-1], 5)]
    order = list(tried) if side == "high" else list(reversed(tried))
    edge, inner = order[-1], order[-2]
    if spacing == "log":
        factor = math.exp(float(np.median([math.log(b / a) for a, b in pairwise(order)])))
        beyond = [edge * factor, edge * factor**2]
    else:
        step = float(np.median([b - a for a, b in pairwise(order)]))
        beyond = [edge + step, edge + 2 * step]
    return sorted([inner, edge, *_allowed(beyond, tried)])


def _allowed(beyond: list[float], tried: Sequence[float]) -> list[float]:
    """Rounded as the values that were tried are, and within their natural bounds."""
    if all(float(v).is_integer() for v in tried) and max(tried) > 1:
        least = 1 if min(tried) >= 1 else 0
        whole = dict.fromkeys(round(v) for v in beyond)
        return [v for v in whole if v >= least and v not in tried]
    shares = min(tried) >= 0 and max(tried) < 1 and max(beyond) >= 1
    rounded = [float(f"{v:.3g}") for v in beyond]
    return [v for v in rounded if (v > 0 or min(tried) < 0) and not (shares and v >= 1)]


def _text(key: str, best: float, beyond: Sequence[float], conclusive: bool) -> str:
    values = ",".join(f"{v:g}" for v in beyond)
    sure = "" if conclusive else ", though values inside cannot be told apart from it"
    return f"The best {key}, {best:g}, is on the edge of its range{sure}. Try {key}={values}."
