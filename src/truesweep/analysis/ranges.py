"""A best value on the edge of its range, and the range to try next."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from truesweep import text
from truesweep.analysis.outcomes import Outcome
from truesweep.analysis.ranking import Ranking
from truesweep.text import finite

MANY = 8
"""Distinct values above which an axis counts as sampled from a range, not listed."""
EDGE = 0.05
"""The share of a sampled range, at either end, that is its edge."""
DOUBLE = 2.0
"""Two values that differ by this factor or more are taken to follow each other by factors."""


@dataclass(frozen=True)
class Edge:
    """A swept key whose best value has nothing beyond it that ran, or will.

    Args:
        key: The swept key.
        best: Its value in the winner.
        side: Which end of the range that is.
        spacing: How its values follow each other.
        conclusive: Whether no point away from this edge is tied with the winner.
        suggestion: Values to try next: the best one's inner neighbour, itself, and two beyond;
            none where what lies beyond failed.
        text: The same in a sentence.
    """

    key: str
    best: float
    side: Literal["low", "high"]
    spacing: Literal["linear", "log"]
    conclusive: bool
    suggestion: Sequence[float]
    text: str


def edges(ranking: Ranking, jobs: Sequence[Outcome]) -> list[Edge]:
    """The numeric keys of a sweep whose best value lies on the edge of what was tried.

    What was pruned was tried, and what waits will be. Of two values each is an edge, which is said
    only where the other one is worse for sure. Nothing is suggested beyond a natural end: zero, and
    one for shares.

    Args:
        ranking: Of the jobs that finished.
        jobs: All of them.
    """
    if ranking.best is None:
        return []
    found = (_edge(ranking, jobs, key) for key in ranking.best.varies)
    return [edge for edge in found if edge is not None]


def _values(jobs: Sequence[Outcome], key: str) -> list[float]:
    return sorted({v for job in jobs if (v := finite(job.varies.get(key))) is not None})


def _edge(ranking: Ranking, jobs: Sequence[Outcome], key: str) -> Edge | None:
    assert ranking.best is not None
    tried = _values([job for job in jobs if job.state != "failed"], key)
    best = finite(ranking.best.varies.get(key))
    if best is None or len(tried) < 2:
        return None
    spacing = spacing_of(tried)
    side = _side(best, tried, spacing)
    if side is None:
        return None
    failed = [v for v in _values(jobs, key) if (v > tried[-1] if side == "high" else v < tried[0])]
    beyond = [] if failed else next_values(tried, side, spacing)
    if not failed and len(beyond) < 3:  # nothing beyond the edge
        return None
    inside = [finite(s.varies.get(key)) for s in ranking.tied]
    conclusive = not any(v is not None and _side(v, tried, spacing) != side for v in inside)
    if len(tried) == 2 and (not conclusive or ranking.basis == "none"):
        return None
    text = (
        _text_of_failed(key, best, side, failed) if failed else _text(key, best, beyond, conclusive)
    )
    return Edge(key, best, side, spacing, conclusive, beyond, text)


def spacing_of(tried: Sequence[float]) -> Literal["linear", "log"]:
    """Whether sorted values follow each other by factors or by steps, whichever is more even."""
    if tried[0] <= 0:
        return "linear"
    if len(tried) == 2:
        return "log" if tried[1] / tried[0] >= DOUBLE else "linear"
    steps = np.diff(np.divide(tried, tried[-1]))  # whose squares do not overflow
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
        whole = all(isinstance(v, int) for v in tried)
        steps = [float(v) for v in grid(tried[0], tried[-1], 5)]
        tried = sorted({round(v) for v in steps}) if whole else steps
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
    rounded = [text.rounded(v, 3) for v in beyond]
    return [v for v in rounded if (v > 0 or min(tried) < 0) and not (shares and v >= 1)]


def _text(key: str, best: float, beyond: Sequence[float], conclusive: bool) -> str:
    values = ",".join(map(text.value, beyond))
    sure = "" if conclusive else ", though values inside cannot be told apart from it"
    where = f"The best {key}, {text.value(best)}, is on the edge of its range{sure}."
    return f"{where} Try {key}={values}."


def _text_of_failed(
    key: str, best: float, side: Literal["low", "high"], failed: Sequence[float]
) -> str:
    which, nearest = ("highest", failed[0]) if side == "high" else ("lowest", failed[-1])
    return (
        f"The best {key}, {text.value(best)}, is the {which} that did not fail: "
        f"{text.value(nearest)} did."
    )
