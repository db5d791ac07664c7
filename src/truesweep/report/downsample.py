"""Fewer points that look the same."""

from collections.abc import Sequence


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
