"""Which of several unfinished trainings to go on with, by forecasts of how they will end.

What a curve y tells before its end is distorted by the schedule: while the rate is high, the loss
is too, the more so the higher the peak. As in `analysis/curves.py`, it is taken to be

    y(s) = E + A t(s)^-a + B r(s),    t(s) = sum of r up to s,    r = lr / peak lr

so that between step s and the end it falls by A (t(s)^-a - t(S)^-a) + B (r(s) - r(S)). A and B are
fitted to few points, early on to a single one; priors, in units of what trainings of this search
gain at all, hold them in place. Once trainings of the search have ended, what they fell from the
same share of their steps on is a second forecast, and the more certain one of the two is taken:
points near each other fall alike, whatever noise is on their curves. Freeze-thaw (Swersky, Snoek &
Adams 2014, arXiv 1406.3896): the training goes on whose optimistic forecast is the best, a slice at
a time, and when one that has ended is better than what all others may hope for, none does.
"""

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from truesweep.analysis.curves import Curve, Floats

RUNGS = 20
"""Slices of a training, where their length is not given."""
KEPT = 3
"""Of so many trainings one goes on to so many times the slices, whatever has ended by then."""
UNBELIEVED = 0.5
"""The share of the slices up to which that holds."""
OPTIMISM = 1.0
"""Standard deviations by which a training may be better than its forecast."""
EXPONENTS = np.array([0.2, 0.4, 0.6, 0.8, 1.0])
SKIPPED = 0.25
"""The share of the points, at the start, that follows no power law yet."""


@dataclass(frozen=True)
class _Form:
    """What is known of a curve before it is seen, in units of a search's gain.

    Args:
        power: Mean and standard deviation of A t^-a at the last step known.
        annealing: Mean and standard deviation of B.
        noise: Standard deviation of a value about the form.
        doubt: Standard deviation of the form itself, as a share of the fall that is forecast.
    """

    power: tuple[float, float]
    annealing: tuple[float, float]
    noise: float
    doubt: float


OWN = _Form((0.35, 0.9), (0.035, 0.1), noise=0.005, doubt=0.25)
"""Of a curve itself."""
LIKE_OTHERS = _Form((0.0, 0.1), (0.0, 0.05), noise=0.005, doubt=0.25)
"""Of its difference from the mean of those that have ended."""
UNLIKE = 0.1
"""How unlike what one falls may be to what they fell, as a share of it, besides."""


@dataclass(frozen=True)
class Trial:
    """A training as far as it is known.

    Args:
        curve: The objective at validated steps, less being better; at least one.
        rates: The learning rate over its peak at each step of the whole training [total steps].
    """

    curve: Curve
    rates: Floats

    @property
    def step(self) -> int:
        """The last step known."""
        return int(self.curve.steps[-1])

    @property
    def ended(self) -> bool:
        """Whether nothing is left to train."""
        return self.step >= len(self.rates)

    @property
    def best(self) -> float:
        """The best value so far; infinite without any."""
        return float(np.min(self.curve.finite.values, initial=np.inf))

    def rung(self, every: int) -> int:
        """How many slices are done.

        Args:
            every: Steps of a slice; 0: a share of the training.
        """
        return self._slices(self.step, every)

    def is_rung(self, every: int) -> bool:
        """Whether the last validation is the first one after a slice's end."""
        return self.rung(every) > self._before(every)

    def is_first_rung(self, every: int) -> bool:
        """Whether it is the first one of all that is after a slice's end."""
        return self.is_rung(every) and self._before(every) == 0

    def _before(self, every: int) -> int:
        """The slices that were done at the validation before the last."""
        return self._slices(int(self.curve.steps[-2]), every) if len(self.curve) > 1 else 0

    def _slices(self, step: int, every: int) -> int:
        return step // _slice(len(self.rates), every)


def first_rung(total: int, validate_every: int, every: int) -> int:
    """After how many steps a training waits for the first time: a validation.

    Args:
        total: Steps of the whole training.
        validate_every: Steps between validations.
        every: Steps of a slice; 0: a share of the training.
    """
    return min(total, validate_every * math.ceil(_slice(total, every) / validate_every))


def _slice(total: int, every: int) -> int:
    """Steps of a slice, `every` if that is given."""
    return every or max(1, total // RUNGS)


@dataclass(frozen=True)
class Final:
    """How a training is expected to end.

    Args:
        value: The objective, less being better.
        low: What may be hoped for.
    """

    value: float
    low: float


def choose(trials: Mapping[int, Trial], ready: Collection[int], every: int = 0) -> int | None:
    """The training to go on with for another slice; None if none is worth it.

    Before forecasts are believed, a third of all go on to three slices, a ninth to nine, and so on,
    those with the best forecasts first: no form foresees what begins to learn late.

    Args:
        trials: All that have begun, by any number.
        ready: Which of them wait to go on.
        every: Steps of a slice; 0: a share of the training.
    """
    hopes = {key: one.low for key, one in finals(trials).items() if key in ready}
    best = _first(hopes)
    if best is None:
        return None
    slices, number = KEPT, math.ceil(len(trials) / KEPT)
    while slices <= UNBELIEVED * RUNGS:
        behind = {key for key, one in trials.items() if not one.ended and one.rung(every) < slices}
        if len(trials) - len(behind) < number and behind & hopes.keys():
            return _first({key: hopes[key] for key in behind & hopes.keys()})
        slices, number = slices * KEPT, math.ceil(number / KEPT)
    ended = min((one.best for one in trials.values() if one.ended), default=np.inf)
    return None if hopes[best] >= ended else best


def _first(hopes: Mapping[int, float]) -> int | None:
    """The training with the best hope; of equals the one that began first."""
    return min(hopes, key=lambda key: (hopes[key], key), default=None)


def finals(trials: Mapping[int, Trial]) -> dict[int, Final]:
    """How trainings that have not ended will; those that have come to no number are left out."""
    live = {key: one for key, one in trials.items() if np.isfinite(one.curve.last)}
    gain = _gain(live)
    ended = [one for one in live.values() if one.ended]
    others = _Others.of(ended, gain) if ended else None
    return {key: _final(one, gain, others) for key, one in live.items() if not one.ended}


def _gain(trials: Mapping[int, Trial]) -> float:
    """What there is to gain from training: from a common first value to the best of all.

    Where each has been validated once only, a tenth of the best at least.
    """
    firsts = [one.curve.finite.values[0] for one in trials.values()]
    if not firsts:
        return 0.0
    lowest = min(one.best for one in trials.values())
    return max(float(np.median(firsts)) - lowest, 0.1 * abs(lowest), 1e-12)


@dataclass(frozen=True)
class _Others:
    """Trainings of a search that have ended.

    Args:
        curves: Theirs.
        form: What is known of how another one differs from their mean.
    """

    curves: Sequence[Curve]
    form: _Form

    @classmethod
    def of(cls, ended: Sequence[Trial], gain: float) -> "_Others":
        """The values' noise is what their own form leaves of them."""
        fits = [_Fitted.of(OWN, one.curve.finite, one.rates, gain) for one in ended]
        noise = OWN.noise * statistics.fmean(fit.inflated for fit in fits) ** 0.5
        return cls([one.curve.finite for one in ended], replace(LIKE_OTHERS, noise=noise))

    def at(self, shares: Floats) -> Floats:
        """Their values at shares of their steps [curves, n]."""
        return np.stack(
            [np.interp(shares * one.steps[-1], one.steps, one.values) for one in self.curves]
        )


def _final(trial: Trial, gain: float, others: _Others | None) -> Final:
    """How a training will end, by the more certain of two forecasts.

    One is of its curve, the other of its difference from the mean of those that have ended.
    """
    curve = trial.curve.finite
    fitted = _Fitted.of(OWN, curve, trial.rates, gain)
    fall, deviation = gain * fitted.fall, gain * fitted.deviation
    if others is not None:
        values = others.at(np.append(curve.steps, len(trial.rates)) / len(trial.rates))
        falls = values[:, -2] - values[:, -1]
        between = Curve(curve.steps, curve.values - values[:, :-1].mean(axis=0))
        fitted = _Fitted.of(others.form, between, trial.rates, gain)
        like = gain * fitted.fall + float(falls.mean())
        apart = (gain * fitted.deviation) ** 2 + float(falls.var()) + (UNLIKE * like) ** 2
        fall, deviation = min((fall, deviation), (like, apart**0.5), key=lambda one: one[1])
    low = curve.last - fall - OPTIMISM * deviation
    return Final(min(trial.best, curve.last - fall), min(trial.best, low))


@dataclass(frozen=True)
class _Fitted:
    """The mean of the forecasts of all exponents, weighted by their likelihood.

    Args:
        fall: From the last value known to the end, in units of the gain, as all here.
        deviation: Its standard deviation.
        inflated: The variance of the values over that of the form's noise, 1 at least.
    """

    fall: float
    deviation: float
    inflated: float

    @classmethod
    def of(cls, form: _Form, curve: Curve, rates: Floats, gain: float) -> "_Fitted":
        """Fit a form to a curve."""
        step = int(curve.steps[-1])
        curve = curve.where(np.arange(len(curve)) >= int(SKIPPED * len(curve)))
        progress = np.cumsum(rates)
        now, rate = progress[step - 1], rates[curve.steps - 1]
        power = (progress[curve.steps - 1] / now)[None] ** -EXPONENTS[:, None]
        left = 1 - (progress[-1] / now) ** -EXPONENTS
        ends = np.stack([0 * left, left, np.full_like(left, rate[-1] - rates[-1])], axis=1)
        found, covariances, squares = _fit(form, power, rate, curve.values / gain)
        falls = np.sum(ends * found, axis=1)
        variances = np.einsum("ei,eij,ej->e", ends, covariances, ends)
        inflated = max(1.0, squares.min() / max(1, len(curve) - 3))
        weights = np.exp((squares.min() - squares) / (2 * inflated))
        weights /= weights.sum()
        fall = float(weights @ falls)
        spread = float(weights @ ((falls - fall) ** 2 + variances)) + (form.doubt * fall) ** 2
        return cls(fall, spread**0.5, float(inflated))


def _fit(form: _Form, power: Floats, rate: Floats, values: Floats) -> tuple[Floats, Floats, Floats]:
    """Penalised least squares for each exponent.

    Args:
        form: What is known beforehand.
        power: t^-a, 1 at the last step known [exponents, n].
        rate: r [n].
        values: y [n].

    Returns:
        E, A and B [exponents, 3]; their covariances [exponents, 3, 3]; and the sums of squares over
        the noise's [exponents].
    """
    points = np.stack([np.ones_like(power), power, np.broadcast_to(rate, power.shape)], axis=2)
    weight = np.array([0.0, form.noise / form.power[1], form.noise / form.annealing[1]]) ** 2
    wanted = weight * np.array([0.0, form.power[0], form.annealing[0]])
    inverse = np.linalg.inv(points.transpose(0, 2, 1) @ points + np.diag(weight))
    found = np.einsum("eij,ej->ei", inverse, values @ points + wanted)
    if form is OWN:  # a loss falls; a difference may go either way
        found[:, 1:] = found[:, 1:].clip(min=0.0)
    residuals = (values - np.einsum("eni,ei->en", points, found)) / form.noise
    return found, form.noise**2 * inverse, np.sum(residuals**2, axis=1)
