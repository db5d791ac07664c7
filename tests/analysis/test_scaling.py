import re
from typing import Any

import numpy as np
import pytest

from truesweep.analysis.scaling import Interval, ScalingFit, fit_scaling, frontier, robust_fit

pytestmark = pytest.mark.numbers

SIZES = np.geomspace(1e5, 1e7, 7)
E, A, ALPHA = 1.7, 90.0, 0.35


def fitted(losses: np.ndarray, **sizes: Any) -> ScalingFit:
    fit = fit_scaling(losses, **sizes)
    assert isinstance(fit, ScalingFit), fit
    return fit


def holds(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def test_exact_points_give_exact_constants() -> None:
    fit = fitted(E + A * SIZES**-ALPHA, parameters=SIZES)
    assert fit.floor.value == pytest.approx(E, rel=1e-4)
    assert fit.terms[0].coefficient.value == pytest.approx(A, rel=1e-3)
    assert fit.terms[0].exponent.value == pytest.approx(ALPHA, rel=1e-4)
    assert fit.predict(parameters=1e8).value == pytest.approx(E + A * 1e8**-ALPHA, rel=1e-4)


def test_intervals_hold_the_constants_as_often_as_they_say() -> None:
    draw = np.random.default_rng(0)
    hits = []
    for _ in range(25):
        noise = 0.004 * draw.standard_normal(len(SIZES))
        fit = fitted((E + A * SIZES**-ALPHA) * np.exp(noise), parameters=SIZES)
        hits.append([holds(fit.floor, E), holds(fit.terms[0].exponent, ALPHA)])
    assert (np.mean(hits, axis=0) >= 0.75).all()  # 0.9 less two and a half deviations


def test_the_size_for_a_budget() -> None:
    draw = np.random.default_rng(0)
    n, d = (x.ravel() for x in np.meshgrid(SIZES[::2], np.geomspace(1e6, 3e8, 5)))
    beta, b = 0.3, 60.0
    losses = (E + A * n**-ALPHA + b * d**-beta) * np.exp(0.003 * draw.standard_normal(len(n)))
    fit = fitted(losses, parameters=n, tokens=d)
    assert holds(fit.terms[1].exponent, beta)
    budget = 6 * 1e14
    tried = np.geomspace(1e4, 1e9, 4001)  # the best of all ways to spend it, by search
    best = tried[np.argmin(A * tried**-ALPHA + b * (1e14 / tried) ** -beta)]
    preferred = fit.optimal_parameters(budget)
    assert preferred is not None
    assert holds(preferred, float(best))
    assert fitted(losses, parameters=n, tokens=d).optimal_parameters(budget) == preferred


def test_variables_that_rise_together_are_not_told_apart() -> None:
    sizes = np.geomspace(1e5, 1e7, 8)
    found = fit_scaling(E + A * sizes**-ALPHA, parameters=sizes, tokens=20 * sizes)
    assert isinstance(found, str)
    assert "rise together" in found


def test_one_variable_prefers_no_size() -> None:
    fit = fitted(E + A * SIZES**-ALPHA, compute=SIZES * 1e6)
    assert fit.terms[0].variable == "compute"
    assert fit.optimal_parameters(1e15) is None


def test_a_point_far_off_does_not_bend_the_curve() -> None:
    sizes = np.geomspace(1e5, 3e7, 12)
    draw = np.random.default_rng(1)
    losses = (E + A * sizes**-ALPHA) * np.exp(0.001 * draw.standard_normal(12))
    losses[4] *= 1.03
    logs = np.log(sizes)

    def line(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        slope = np.stack([np.ones(12), logs], axis=1)[None].repeat(len(p), 0)
        return p @ slope[0].T, slope

    straight = (0.5 - 0.01 * logs)[None].copy()
    straight[0, 3] += 1.0
    robust = robust_fit(line, straight, np.zeros((1, 2)))[0]
    plain = np.polyfit(logs, straight[0], 1)
    assert abs(robust[0] - 0.5) < 0.5 * abs(plain[1] - 0.5)
    assert fitted(losses, parameters=sizes).floor.value == pytest.approx(E, rel=0.1)


@pytest.mark.parametrize(
    ("sizes", "losses", "reason"),
    [
        (SIZES[:4], E + A * SIZES[:4] ** -ALPHA, "4 points"),
        (SIZES[[0, 0, 0, 6, 6, 6]], np.linspace(3, 2, 6), "2 different parameters"),
        (np.linspace(1e6, 2e6, 8), np.linspace(3, 2, 8), "factor of 2"),
        (SIZES, np.full(7, 2.0), "do not follow a power law"),
        (SIZES, np.array([2.1, 2.5, 2.0, 2.4, 2.2, 2.6, 2.1]), "do not follow a power law"),
        (SIZES, np.linspace(2, 3, 7), "power law|do not fall"),
        (SIZES, np.array([3, 2.8, 2.6, np.nan, 2.4, 2.3, 2.2]), "finite"),
    ],
)
def test_what_bears_no_curve(sizes: np.ndarray, losses: np.ndarray, reason: str) -> None:
    found = fit_scaling(losses, parameters=sizes)
    assert isinstance(found, str), found
    assert re.search(reason, found), found


def test_the_best_of_each_size() -> None:
    sizes = [[2, 1], [1, 1], [2, 1], [1, 2]]
    assert frontier(sizes, [3.0, 5.0, 2.0, 4.0]).tolist() == [1, 3, 2]
    assert frontier([5, 5, 1], [1.0, 0.5, 9.0]).tolist() == [2, 1]
