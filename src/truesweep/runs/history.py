"""What a run's `metrics.jsonl` says, small enough to keep for hundreds of runs."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from truesweep.errors import DataError
from truesweep.figures import BUILT_IN
from truesweep.record.rows import AXES, read

MAIN_SHARE = 4
"""A loss is drawn with so many times the points of a learning rate or a norm."""
LONG = frozenset(figure.name for figure in BUILT_IN.values() if figure.curve)
KNOTS = 48
"""Rows from which tokens and seconds are interpolated at any step."""


@dataclass(frozen=True)
class Curve:
    """One metric over a run.

    Args:
        steps: Optimizer steps, ascending.
        values: The values there; None where not finite, which breaks the line.
        recorded: How many points the run recorded.
        lowest: The lowest finite value recorded, None if there is none.
        highest: The highest.
    """

    steps: list[int]
    values: list[float | None]
    recorded: int
    lowest: float | None
    highest: float | None


@dataclass(frozen=True)
class History:
    """A run's curves.

    Args:
        curves: By the metric's name.
        clock: Some rows of (step, tokens, seconds), the first and the last among them.
        last: The last row.
        problem: Why there are none, if the record is damaged.
    """

    curves: Mapping[str, Curve] = field(default_factory=dict)
    clock: Sequence[tuple[int, int, float]] = ()
    last: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None


def read_history(path: Path, points: int, long: Collection[str] = LONG) -> History:
    """Read a `metrics.jsonl`; one that was read before and has not grown is not read again.

    Args:
        path: The file; without one there are no curves.
        points: The most that are kept of a long curve.
        long: The figures whose curves are long, in training and in validation.
    """
    try:
        stat = path.stat()
    except OSError:
        return History()
    stamp = stat.st_size, stat.st_mtime_ns, points
    known, history = _last_read.get(path, (None, History()))
    if known != stamp:
        history = _read(path, points, long)
        _last_read[path] = stamp, history
    return history


_last_read: dict[Path, tuple[tuple[int, int, int], History]] = {}
"""Of each file its size, its time and the points asked for, and what was made of it."""


def _read(path: Path, points: int, long: Collection[str]) -> History:
    try:
        rows = read(path)
    except (OSError, DataError) as error:
        return History(problem=str(error))
    if not rows:
        return History()
    columns = _columns(rows)
    few = max(points // MAIN_SHARE, 24)
    curves = {
        name: _curve(*column, points if name.rpartition("/")[2] in long else few)
        for name, column in columns.items()
    }
    return History(curves, _clock(rows), rows[-1])


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[list[int], list[float]]]:
    """The steps and the values of each metric."""
    columns: dict[str, tuple[list[int], list[float]]] = {}
    for row in rows:
        step = row["step"]
        for name, value in row.items():
            if name in AXES or not isinstance(value, int | float):
                continue
            steps, values = columns.setdefault(name, ([], []))
            steps.append(step)
            values.append(value)
    return columns


def _curve(steps: list[int], values: list[float], points: int) -> Curve:
    finite = [i for i, value in enumerate(values) if math.isfinite(value)]
    x, y = [steps[i] for i in finite], [values[i] for i in finite]
    shown: list[tuple[int, float | None]] = [(x[i], y[i]) for i in lttb(x, y, points)]
    if len(finite) < len(values):
        shown = sorted([*shown, *_breaks(steps, values)], key=lambda pair: pair[0])
    return Curve(
        [step for step, _ in shown],
        [value for _, value in shown],
        len(values),
        min(y, default=None),
        max(y, default=None),
    )


def _breaks(steps: list[int], values: list[float]) -> list[tuple[int, None]]:
    """Where a curve stops being finite: the first of each stretch of such points."""
    finite = [True, *map(math.isfinite, values)]
    return [(step, None) for i, step in enumerate(steps) if finite[i] and not finite[i + 1]]


def _clock(rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, int, float]]:
    every = max(1, math.ceil((len(rows) - 1) / (KNOTS - 1)))
    chosen = [*rows[:-1:every], rows[-1]]
    return [(row["step"], row.get("tokens", 0), row.get("time", 0.0)) for row in chosen]


# -- fewer points that look the same -----------------------------------------------------------


def lttb(x: Sequence[float], y: Sequence[float], points: int) -> list[int]:
    """Choose the points of a curve that keep its shape: Largest-Triangle-Three-Buckets.

    The first and the last point stay; of each of `points - 2` buckets of neighbours stays the one
    that spans the largest triangle with the point kept before it and the mean of the next bucket.
    S. Steinarsson, "Downsampling Time Series for Visual Representation", 2013.

    Args:
        x: Positions, ascending, of the same length as `y`.
        y: Values, finite.
        points: How many to keep, at least 3.

    Returns:
        Indices of the kept points, ascending; all if there are no more than `points`.
    """
    count = len(x)
    if count <= points:
        return list(range(count))
    every = (count - 2) / (points - 2)
    edges = [1 + int(every * i) for i in range(points - 1)]
    kept = [0]
    for i in range(points - 2):
        # The bucket after the last one is the last point alone.
        after = range(edges[i + 1], edges[i + 2] if i + 2 < len(edges) else count)
        mean_x = sum(x[j] for j in after) / len(after)
        mean_y = sum(y[j] for j in after) / len(after)
        kept.append(_largest(x, y, kept[-1], mean_x, mean_y, range(edges[i], edges[i + 1])))
    return [*kept, count - 1]


def _largest(
    x: Sequence[float],
    y: Sequence[float],
    before: int,
    mean_x: float,
    mean_y: float,
    bucket: range,
) -> int:
    """The point of a bucket with the largest triangle to the two given ones."""
    run, rise = x[before] - mean_x, mean_y - y[before]
    at_x, at_y = x[before], y[before]
    best, area = bucket[0], -1.0
    for j in bucket:
        size = abs(run * (y[j] - at_y) - (at_x - x[j]) * rise)
        if size > area:
            best, area = j, size
    return best
