"""Curves out of the rows of `metrics.jsonl`, and how noisy they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Rows = Sequence[Mapping[str, Any]]

NORMAL_MAD = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


@dataclass(frozen=True)
class Curve:
    """Values against optimizer steps, both [n]."""

    steps: npt.NDArray[np.int64]
    values: Floats

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def last(self) -> float:
        """The value at the last step."""
        return float(self.values[-1])

    @property
    def finite(self) -> "Curve":
        """The points that are neither NaN nor infinite."""
        return self.where(np.isfinite(self.values))

    def where(self, chosen: npt.NDArray[np.bool_]) -> "Curve":
        """Some of the points."""
        return Curve(self.steps[chosen], self.values[chosen])

    def level(self, step: float) -> float:
        """The median of about a tenth of the points, at least three, that lie nearest to a step."""
        nearest = np.argsort(np.abs(self.steps - step), kind="stable")[: self.window(3)]
        return float(np.median(self.values[nearest]))

    def levels(self) -> Floats:
        """The running median of as many points as in `level` [n]."""
        half = self.window(3) // 2
        parts = (self.values[max(0, i - half) : i + half + 1] for i in range(len(self)))
        return np.array([np.median(part) for part in parts])

    def tail(self) -> float:
        """The median of the last tenth of the points, at least five: more than a spike lasts.

        Of fewer than 15 points it is that of the last third, which is an end still, and no middle.
        """
        return float(np.median(self.values[-min(self.window(5), max(1, len(self) // 3)) :]))

    def window(self, least: int) -> int:
        """An odd number of points: a tenth of them, but at least so many."""
        return max(least, len(self) // 10) // 2 * 2 + 1

    def noise(self) -> float:
        """Standard deviation of a value around its smooth course.

        From each point's distance to the line through its neighbours (Gasser, Sroka &
        Jennen-Steinmetz 1986), cut at three typical ones, so that spikes hardly count; of the later
        two thirds, since early on a curve bends more than it trembles. Zero for fewer than three
        points.
        """
        x, y = self.steps.astype(float), self.values
        if len(x) < 3:
            return 0.0
        share = (x[1:-1] - x[:-2]) / (x[2:] - x[:-2])
        distance = y[1:-1] - (1 - share) * y[:-2] - share * y[2:]
        distance /= np.sqrt(1 + share**2 + (1 - share) ** 2)
        late = distance[len(distance) // 3 :]
        typical = NORMAL_MAD * np.median(np.abs(late))
        return float(np.sqrt(np.mean(np.minimum(np.abs(late), 3 * typical) ** 2)))


def curve(rows: Rows, key: str) -> Curve:
    """The values of a metric in the rows that have it; NaN and infinities stay."""
    points = [(int(row["step"]), float(row[key])) for row in rows if row.get(key) is not None]
    table = np.array(points, np.float64).reshape(-1, 2)
    return Curve(table[:, 0].astype(np.int64), table[:, 1])


def at_interval_centers(means: Curve) -> Curve:
    """Move each value, a mean over the steps since the last row, to the middle of those steps."""
    begins = np.concatenate([[0], means.steps[:-1]])
    return Curve((begins + means.steps + 1) // 2, means.values)
