"""Loss against parameters N, training tokens D or compute C, as a fitted power law.

    L = E + A / N^alpha                     one variable: sizes, tokens, or compute
    L = E + A / N^alpha + B / D^beta        both (Hoffmann et al. 2022, equation 2)

Fitted to log L under Huber's loss, as there (appendix D.3). For a compute of C = k N D the joint
fit prefers (equation 4)

    N = G (C / k)^(beta / (alpha + beta)),  G = (alpha A / (beta B))^(1 / (alpha + beta))

Uncertainty by a bootstrap of the residuals, each replicate with a noise level of its own that the
residuals' degrees of freedom allow, so that intervals from few points are as wide as Student's.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
import numpy.typing as npt

from truesweep.analysis.curves import Floats
from truesweep.text import count, figure, percent

REPLICATES = 300
LEAST_DISTINCT = 4
"""Distinct sizes without which a curve with a floor has nothing to be wrong about."""
LEAST_SPAN = 4.0
"""The largest size over the smallest one."""
SPARE_POINTS = 2
"""Points beyond the number of parameters."""
LARGEST_RESIDUAL = 0.25
"""Standard deviation of the residuals over that of log L; more is no law."""
LARGEST_EXPONENT_RANGE = 1.5
"""The width of an exponent's interval that still says something."""
MOST_ALIKE = 0.95
"""The correlation of the logarithms of two variables above which a fit confuses the two."""
FLOPS = 6.0
"""Training operations per parameter and token (Kaplan et al. 2020)."""

Variable = Literal["parameters", "tokens", "compute"]


@dataclass(frozen=True)
class Interval:
    """A figure with its 90 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Term:
    """A / x^alpha: what more of one variable still takes off the loss."""

    variable: Variable
    coefficient: Interval
    exponent: Interval


@dataclass(frozen=True)
class ScalingFit:
    """A fitted law.

    Args:
        floor: E, the loss that no amount of the variables goes below.
        terms: One a variable.
        points: How many points were fitted.
        ranges: The least and the most of each variable that was fitted, by its name.
        replicates: Fitted parameters of the bootstrap's replicates [R, 1 + 2 T]: logarithm of E,
            then logarithm of the coefficient and exponent of each term.
    """

    floor: Interval
    terms: Sequence[Term]
    points: int
    ranges: dict[Variable, tuple[float, float]]
    replicates: Floats

    @property
    def parameters(self) -> Floats:
        """Those of the fit itself, laid out as a replicate."""
        terms = ((math.log(t.coefficient.value), t.exponent.value) for t in self.terms)
        floor = math.log(max(self.floor.value, 1e-30))
        return np.array([floor, *(value for term in terms for value in term)])

    def predict(self, **sizes: float) -> Interval:
        """The loss at some size, by the names of the fit's variables."""
        logs = np.log([[sizes[term.variable] for term in self.terms]])
        drawn = np.exp(_model(self.replicates, logs)[0][:, 0])
        return _interval(float(np.exp(_model(self.parameters[None], logs)[0][0, 0])), drawn)

    def optimal_parameters(self, compute: float) -> Interval | None:
        """The size that the fit prefers for a compute budget; None without both terms.

        Args:
            compute: Operations of the whole training.
        """
        if [term.variable for term in self.terms] != ["parameters", "tokens"]:
            return None
        value = _optimum(self.parameters[None], compute / FLOPS)
        return _interval(float(value[0]), _optimum(self.replicates, compute / FLOPS))


def fit_scaling(
    losses: npt.ArrayLike,
    *,
    parameters: npt.ArrayLike | None = None,
    tokens: npt.ArrayLike | None = None,
    compute: npt.ArrayLike | None = None,
    seed: int = 0,
) -> ScalingFit | str:
    """Fit a law to the losses of M trainings, or say why they do not bear one.

    Give each size's best training, see `frontier`: a law through badly tuned ones is one of tuning.

    Args:
        losses: Final losses, nats [M].
        parameters: N of each [M].
        tokens: D of each [M].
        compute: C of each [M]; alone, since N and D make it up.
        seed: Of the bootstrap.

    Returns:
        The fit, or a sentence on what is missing.
    """
    given: dict[Variable, npt.ArrayLike | None] = {
        "parameters": parameters,
        "tokens": tokens,
        "compute": compute,
    }
    sizes = {k: np.asarray(v, np.float64) for k, v in given.items() if v is not None}
    assert sizes
    assert not ("compute" in sizes and len(sizes) > 1)
    values = np.asarray(losses, np.float64)
    reason = _too_little(values, sizes)
    if reason:
        return reason
    logs = np.log(np.stack(list(sizes.values()), axis=1))
    best = _best_fit(np.log(values), logs)
    residuals = np.log(values) - _model(best[None], logs)[0][0]
    reason = _no_law(residuals, np.log(values), best)
    if reason:
        return reason
    replicates = _bootstrap(best, residuals, logs, seed)
    fit = _assemble(best, replicates, residuals, sizes)
    return _too_vague(fit) or fit


def frontier(sizes: npt.ArrayLike, losses: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The index of the best training of each distinct size, by rising size.

    Args:
        sizes: One or several variables of each training, [M] or [M, T].
        losses: Their final losses [M].
    """
    table = np.asarray(sizes, np.float64)
    table = table.reshape(len(table), -1)
    order = np.lexsort([np.asarray(losses), *table.T[::-1]])
    new = np.ones(len(order), bool)
    new[1:] = (np.diff(table[order], axis=0) != 0).any(1)
    return np.asarray(order[new])


def _too_little(losses: Floats, sizes: dict[Variable, Floats]) -> str:
    if not (np.isfinite(losses).all() and (losses > 0).all()):
        return "A scaling curve needs finite, positive losses."
    needed = 1 + 2 * len(sizes) + SPARE_POINTS
    if len(losses) < needed:
        return f"{len(losses)} points do not bear a scaling curve; {needed} would be the least."
    for name, values in sizes.items():
        distinct, span = len(np.unique(values)), float(values.max() / values.min())
        if distinct < LEAST_DISTINCT:
            return f"{distinct} different {name} do not bear a curve; {LEAST_DISTINCT} would."
        if span < LEAST_SPAN:
            return (
                f"The {name} span a factor of {count(span)}; a curve needs at least "
                f"{count(LEAST_SPAN)}."
            )
    if len(sizes) > 1 and abs(np.corrcoef(np.log(list(sizes.values())))[0, 1]) > MOST_ALIKE:
        return f"The {' and '.join(sizes)} rise together, so what each does cannot be told."
    return ""


def _no_law(residuals: Floats, log_losses: Floats, best: Floats) -> str:
    spread = float(log_losses.std())
    if spread == 0 or float(residuals.std()) > LARGEST_RESIDUAL * spread:
        return (
            "The losses do not follow a power law: they scatter by "
            f"{percent(float(residuals.std()))} around the best one, and vary by "
            f"{percent(spread)} in all. Tune each size, or average seeds."
        )
    if (best[2::2] <= 0).any():
        return "The losses do not fall with size, so no scaling curve describes them."
    return ""


def _too_vague(fit: ScalingFit) -> str:
    for term in fit.terms:
        width = term.exponent.high - term.exponent.low
        if width > LARGEST_EXPONENT_RANGE or term.exponent.low <= 0:
            return (
                f"The exponent of {term.variable} could be anything from "
                f"{figure(term.exponent.low, 2)} to {figure(term.exponent.high, 2)}: the points do "
                "not bear a scaling curve. Add sizes, further apart, or seeds."
            )
    return ""


def _model(parameters: Floats, logs: Floats) -> tuple[Floats, Floats]:
    """Logarithm of the loss and its derivatives, for parameters [B, P] at M sizes [M, T].

    log L = logsumexp(e, a - alpha log N, b - beta log D), whose derivatives are shares of L.
    """
    coefficients, exponents = parameters[:, 1::2], parameters[:, 2::2]
    terms = coefficients[:, None] - exponents[:, None] * logs[None]  # [B, M, T]
    floor = np.broadcast_to(parameters[:, None, :1], (len(parameters), len(logs), 1))
    parts = np.concatenate([floor, terms], axis=2)
    top = parts.max(2, keepdims=True)
    total = top + np.log(np.exp(parts - top).sum(2, keepdims=True))
    shares = np.exp(parts - total)
    slope = np.empty((*total.shape[:2], parameters.shape[1]))
    slope[..., 0] = shares[..., 0]
    slope[..., 1::2] = shares[..., 1:]
    slope[..., 2::2] = -shares[..., 1:] * logs[None]
    return total[..., 0], slope


def _best_fit(log_losses: Floats, logs: Floats) -> Floats:
    """The best of fits from a grid of starts, as the cost has several minima."""
    lowest, spread = float(log_losses.min()), float(np.ptp(np.exp(log_losses)))
    starts = []
    for floor, exponents in product(
        (0.2, 0.6, 0.9), product((0.1, 0.35, 0.8), repeat=logs.shape[1])
    ):
        # Each term begins as its share of the whole fall at the smallest size.
        terms = [
            (math.log(spread / logs.shape[1] + 1e-12) + exponent * float(column.min()), exponent)
            for exponent, column in zip(exponents, logs.T, strict=True)
        ]
        starts.append([lowest + math.log(floor), *(v for term in terms for v in term)])
    start = np.array(starts)
    target = np.broadcast_to(log_losses, (len(start), len(log_losses)))
    fitted = robust_fit(lambda p: _model(p, logs), target, start)
    costs = cost(target - _model(fitted, logs)[0], start.shape[1])
    best: Floats = fitted[int(np.argmin(costs))]
    return best


def _bootstrap(best: Floats, residuals: Floats, logs: Floats, seed: int) -> Floats:
    generator = np.random.default_rng(seed)
    points = len(residuals)
    freedom = points - len(best)
    # Residuals of a fit are smaller than errors; and how large those are is itself uncertain.
    inflated = (residuals - residuals.mean()) * math.sqrt(points / freedom)
    drawn = generator.choice(inflated, (REPLICATES, points))
    drawn *= np.sqrt(freedom / generator.chisquare(freedom, (REPLICATES, 1)))
    target = _model(best[None], logs)[0] + drawn
    return robust_fit(lambda p: _model(p, logs), target, np.tile(best, (REPLICATES, 1)))


def _assemble(
    best: Floats, replicates: Floats, residuals: Floats, sizes: dict[Variable, Floats]
) -> ScalingFit:
    def interval(index: int, log: bool) -> Interval:
        values = replicates[:, index]
        if log:
            return _interval(math.exp(best[index]), np.exp(values))
        return _interval(float(best[index]), values)

    terms = [
        Term(name, interval(1 + 2 * i, log=True), interval(2 + 2 * i, log=False))
        for i, name in enumerate(sizes)
    ]
    return ScalingFit(
        floor=interval(0, log=True),
        terms=terms,
        points=len(residuals),
        ranges={name: (float(v.min()), float(v.max())) for name, v in sizes.items()},
        replicates=replicates,
    )


def _interval(value: float, drawn: Floats) -> Interval:
    low, high = np.quantile(drawn, [0.05, 0.95])
    return Interval(value, float(low), float(high))


def _optimum(parameters: Floats, product: float) -> Floats:
    """N of least loss for N D = product, from parameters [B, 5]."""
    _, a, alpha, b, beta = parameters.T
    exponents = alpha + beta
    log_g = (np.log(np.maximum(alpha, 1e-9)) + a - np.log(np.maximum(beta, 1e-9)) - b) / exponents
    return np.asarray(np.exp(log_g + beta / exponents * math.log(product)))


# -- fitting many curves at once -------------------------------------------------------------------

Model = Callable[[Floats], tuple[Floats, Floats]]
"""From parameters [B, P] to predictions [B, M] and their derivatives [B, M, P]."""

HUBER = 1.345
"""Residuals beyond so many standard deviations count linearly: 95 % efficient under normal noise
(Huber 1964)."""
HUBER_VARIANCE = 0.7101
"""Mean square of a standard normal variable cut at HUBER."""
ITERATIONS = 60
CONVERGED = 1e-6
"""The largest step that is not worth taking, parameters being logarithms and exponents."""


def robust_fit(model: Model, target: Floats, start: Floats) -> Floats:
    """Minimise Huber's loss of the residuals of B data sets of M points, from B starts.

    Levenberg and Marquardt's steps on iteratively reweighted residuals; each data set has its own
    damping, and the scale of its residuals is estimated as it goes (Huber's 1964 proposal 2, which
    unlike a median stays above zero where a few points can be met exactly).

    Args:
        model: Predicts the target.
        target: What is to be predicted [B, M].
        start: Parameters to start from [B, P].

    Returns:
        The fitted parameters [B, P].
    """
    parameters = start.copy()
    damping = np.full(len(start), 1e-2)
    prediction, slope = model(parameters)
    residuals = target - prediction
    for _ in range(ITERATIONS):
        scale = residual_scale(residuals, start.shape[1])
        weights = _weights(residuals, scale)
        step = _step(slope, residuals, weights, damping)
        if np.abs(step).max() < CONVERGED:
            break
        moved, moved_slope = model(parameters + step)
        better = _cost(target - moved, scale) <= _cost(residuals, scale)
        parameters = np.where(better[:, None], parameters + step, parameters)
        residuals = np.where(better[:, None], target - moved, residuals)
        slope = np.where(better[:, None, None], moved_slope, slope)
        damping = np.clip(np.where(better, damping / 5, damping * 5), 1e-9, 1e9)
    return parameters


def residual_scale(residuals: Floats, parameters: int) -> Floats:
    """Standard deviation of residuals [B, M] of a fit, cut at HUBER times it; [B]."""
    freedom = max(1, residuals.shape[1] - parameters)
    squares: Floats = residuals**2
    scale = np.sqrt(squares.sum(1) / freedom)
    for _ in range(10):
        cut = np.minimum(squares, (HUBER * scale[:, None]) ** 2)
        scale = np.sqrt(cut.sum(1) / (HUBER_VARIANCE * freedom))
    return np.asarray(np.maximum(scale, 1e-9))


def cost(residuals: Floats, parameters: int) -> Floats:
    """Huber's loss of residuals [B, M], each data set on its own scale; [B]."""
    scale = residual_scale(residuals, parameters)
    return _cost(residuals, scale) * scale**2


def _weights(residuals: Floats, scale: Floats) -> Floats:
    relative = np.abs(residuals) / (HUBER * scale[:, None])
    return 1 / np.maximum(1.0, relative)


def _cost(residuals: Floats, scale: Floats) -> Floats:
    relative = np.abs(residuals) / scale[:, None]
    quadratic = np.minimum(relative, HUBER)
    total: Floats = (quadratic * (relative - quadratic / 2)).sum(1)
    return np.where(np.isfinite(total), total, np.inf)


def _step(slope: Floats, residuals: Floats, weights: Floats, damping: Floats) -> Floats:
    weighted = slope * weights[..., None]
    normal = np.einsum("bmp,bmq->bpq", weighted, slope)
    gradient = np.einsum("bmp,bm->bp", weighted, residuals)
    diagonal = np.einsum("bpp->bp", normal)
    size = normal.shape[1]
    normal = normal + np.eye(size) * (damping[:, None] * diagonal + 1e-12)[:, None, :]
    step: Floats = np.linalg.solve(normal, gradient[..., None])[..., 0]
    return np.clip(step, -2.0, 2.0)
