"""Several objectives at once."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from truesweep.analysis.outcomes import Direction, Outcome, by_point, sign


def pareto_front(values: npt.ArrayLike, directions: Sequence[Direction]) -> npt.NDArray[np.bool_]:
    """Which rows no other row is at least as good as in all columns and better than in one.

    Args:
        values: Points by objectives [N, K]; a row with a NaN is on no front.
        directions: Of each objective [K].
    """
    signs = np.array([sign(d) for d in directions])
    table = np.multiply(np.asarray(values, np.float64), signs)
    finite = np.asarray(~np.isnan(table).any(axis=1))
    no_worse = (table[:, None] <= table[None]).all(-1)
    better = (table[:, None] < table[None]).any(-1)
    dominated = (no_worse & better & finite[:, None]).any(0)
    return np.asarray(finite & ~dominated)


def pareto_points(
    outcomes: Sequence[Outcome], directions: dict[str, Direction]
) -> dict[str, dict[str, float]]:
    """The points on the front of the means over seeds, with these means, best first one first.

    Args:
        outcomes: The jobs of a sweep.
        directions: Of each objective, by its name.
    """
    names = list(directions)
    points = by_point(outcomes, names[0])
    means = {
        point: {name: float(np.mean([job.value(name) for job in jobs])) for name in names}
        for point, jobs in points.items()
    }
    if not means:
        return {}
    front = pareto_front([list(row.values()) for row in means.values()], list(directions.values()))
    chosen = [item for item, kept in zip(means.items(), front, strict=True) if kept]
    chosen.sort(key=lambda item: sign(directions[names[0]]) * item[1][names[0]])
    return dict(chosen)
