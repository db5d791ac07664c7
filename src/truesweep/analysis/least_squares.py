"""Robust nonlinear least squares, for many data sets at once."""

from collections.abc import Callable

import numpy as np

from truesweep.analysis.curves import Floats

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
