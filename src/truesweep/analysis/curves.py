"""Curves out of the rows of `metrics.jsonl`, how noisy they are, and how they would go on.

The loss of a run falls as a power of the learning rates summed up so far, and lies the higher above
that the higher the rate is at the moment:

    L(s) = E + A t(s)^-a + B r(s),    t(s) = sum of r up to s,    r = lr / peak lr

This is the form of Tissue, Wang & Wang (2024, Scaling law with learning rate annealing) with the
annealing taken as immediate. A training of q times the steps on the same schedule ends with the
same r and q times the t, so that its loss is lower by A t^-a (1 - q^-a), however flat a rate
decayed to zero has made the curve's end.
"""

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


EXPONENTS = np.linspace(0.1, 1.5, 29)
"""Values of a; below, A and E cannot be told apart within a run."""
SKIPPED = 0.1
"""The share of the run, at its start, that follows no power law yet."""
LEAST_POINTS = 5
LEAST_NOISE = 0.003
"""Relative error of a loss that the form itself may have, however smooth the curve is."""
ANNEALING = 0.05
"""What a rate's decay commonly takes off the loss, as a share of it: the scale of a prior on B,
without which a falling rate explains a fall of any size."""


@dataclass(frozen=True)
class Forecast:
    """The expected loss of the same training with more steps.

    Args:
        steps_ratio: Its steps over this run's.
        now: This run's final loss, on the fitted curve.
        loss: Expected final loss.
        low: Lower end of the 90 % interval.
        high: Upper end; never above this run's loss.
    """

    steps_ratio: float
    now: float
    loss: float
    low: float
    high: float


@dataclass(frozen=True)
class _Fit:
    """The linear part of the form for one exponent."""

    end: float  # the loss at the end of the run
    amplitude: float  # A t^-a there
    variance: float  # of the amplitude, over that of the noise
    squares: float  # sum of squared residuals


def forecast(losses: Curve, rates: Curve, steps_ratios: tuple[float, ...]) -> list[Forecast]:
    """Expected losses after more steps; empty where the curve says too little.

    All exponents of a grid are fitted and averaged, weighted by their likelihood: a few validations
    rarely tell one exponent, and the interval has to cover what they leave open.

    Args:
        losses: Validation losses, or training losses of a single epoch.
        rates: Learning rates, in the rows of `metrics.jsonl`.
        steps_ratios: How many times the steps, such as 1.5 and 2.
    """
    losses = losses.finite
    if len(losses) < LEAST_POINTS or len(rates) == 0 or not rates.values.max() > 0:
        return []
    relative = relative_rates(rates, int(losses.steps[-1]))
    warm = int(np.argmax(relative >= 0.99)) + 1
    losses = losses.where(losses.steps >= max(SKIPPED * losses.steps[-1], warm))
    if len(losses) < LEAST_POINTS - 1:
        return []
    fits = [_fit(losses, relative, exponent) for exponent in EXPONENTS]
    return _average(fits, losses, steps_ratios)


def relative_rates(rates: Curve, steps: int) -> Floats:
    """The learning rate over its peak at steps 1 to `steps`, from where it was logged."""
    relative: Floats = np.interp(np.arange(1, steps + 1), rates.steps, rates.values)
    return np.asarray(relative / rates.values.max())


def _fit(losses: Curve, relative: Floats, exponent: float) -> _Fit:
    """Penalised least squares for E, A and B of one exponent; B is left out where not positive."""
    progress = np.cumsum(relative)[losses.steps - 1]
    power = (progress / progress[-1]) ** -exponent
    rate = relative[losses.steps - 1]
    # The prior is one more observation: that B is zero, give or take ANNEALING of the loss.
    design = np.stack([np.ones(len(power)), power, rate], axis=1)
    design = np.vstack([design, [0.0, 0.0, LEAST_NOISE / ANNEALING]])
    target = np.append(losses.values, 0.0)
    coefficients = np.linalg.lstsq(design, target, rcond=None)[0]
    if coefficients[2] <= 0:
        design = design[:, :2]
        coefficients = np.linalg.lstsq(design, target, rcond=None)[0]
    residuals = target - design @ coefficients
    variance = np.linalg.pinv(design.T @ design)[1, 1]
    end = float(design[-2] @ coefficients)
    return _Fit(end, float(coefficients[1]), float(variance), float(residuals @ residuals))


def _average(fits: list[_Fit], losses: Curve, steps_ratios: tuple[float, ...]) -> list[Forecast]:
    squares = np.array([fit.squares for fit in fits])
    freedom = max(1, len(losses) - 4)
    noise = max(squares.min() / freedom, (LEAST_NOISE * losses.last) ** 2)
    weights = np.exp((squares.min() - squares) / (2 * noise))
    weights /= weights.sum()
    amplitudes = np.array([fit.amplitude for fit in fits]).clip(min=0.0)
    variances = np.array([fit.variance for fit in fits]) * noise
    now = float(weights @ [fit.end for fit in fits])
    forecasts = []
    for ratio in steps_ratios:
        share = 1 - ratio**-EXPONENTS
        gain = float(weights @ (amplitudes * share))
        spread = float(weights @ ((amplitudes**2 + variances) * share**2)) - gain**2
        margin = 1.645 * max(spread, 0.0) ** 0.5
        high = now - max(0.0, gain - margin)
        loss, low = max(0.0, now - gain), max(0.0, now - gain - margin)
        forecasts.append(Forecast(ratio, now, loss, low, high))
    return forecasts
