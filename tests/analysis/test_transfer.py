"""Best rates and growth of which the truth is known."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from truesweep.analysis.transfer import Growth, Transfer, Tried, judge_transfer, slope

RATES = [2.0**k for k in range(-10, -3)]


def tried(
    best: Sequence[float],
    noise: float = 0.0,
    seeds: int = 1,
    rates: Sequence[float] = RATES,
    sign: float = 1.0,
) -> list[Tried]:
    """Losses 2 + (log2 of rate over best)^2 / 10, by width; seeds differ by noise."""
    rng = np.random.default_rng(0)
    return [
        Tried(
            {"model.width": 32 * 2**i},
            1000 * 4**i,
            rate,
            [
                sign * (2 + math.log2(rate / at) ** 2 / 10 + rng.normal(0, noise))
                for _ in range(seeds)
            ],
        )
        for i, at in enumerate(best)
        for rate in rates
    ]


def judged(*args: object, **kwargs: object) -> Transfer:
    return judge_transfer(tried(*args, **kwargs), mode="min")  # type: ignore[arg-type]


def test_the_best_rate_lies_between_those_that_were_tried() -> None:
    truth = [0.003, 0.0025, 0.0034]
    found = judged(truth)
    assert [one.rate for one in found.best] == pytest.approx(truth)
    assert [one.loss for one in found.best] == pytest.approx([2, 2, 2])
    assert found.factor == pytest.approx(0.0034 / 0.0025)
    assert found.verdict == "transfers"
    more = judge_transfer(tried(truth, sign=-1), mode="max")
    assert [one.rate for one in more.best] == pytest.approx(truth)
    assert more.best[0].loss == pytest.approx(-2)
    assert more.best[0].losses[0] < more.best[0].losses[3]


def test_a_shift_between_flat_bowls_is_found_in_noise() -> None:
    """Slow on the left and steep on the right, as trainings are; three seeds of noise."""
    rng = np.random.default_rng(2)
    errors = []
    for _ in range(40):
        shift = rng.uniform(-1, 1)
        rows = [
            Tried({"w": i}, i, rate, list(2 + bowl + rng.normal(0, 0.02, 3)))
            for i, at in ((1, 0.0), (2, shift))
            for rate in RATES
            for over in [math.log2(rate) + 7 - at]
            for bowl in [0.05 * (2 ** (1 - over / 2) + 0.4 * 2 ** (2.5 * over) - 2.4)]
        ]
        first, second = judge_transfer(rows, mode="min").best
        errors.append(math.log2(second.rate / first.rate) - shift)
    assert np.sqrt(np.mean(np.square(errors))) < 0.12


def test_a_rate_that_moves_costs_what_the_largest_size_loses() -> None:
    found = judged([2.0**-6, 2.0**-7, 2.0**-8])
    assert found.verdict == "moves"
    assert found.factor == pytest.approx(4)
    assert found.cost == pytest.approx(0.4)
    assert judged([2.0**-6, 2.0**-6]).cost == pytest.approx(0)


def test_a_seed_alone_leaves_half_a_step_to_either_side() -> None:
    found = judged([2.0**-6.5, 2.0**-8.3])
    assert found.best[0].low == pytest.approx(2.0**-7)
    assert found.best[0].high == pytest.approx(2.0**-6)
    assert found.verdict == "moves"


@pytest.mark.parametrize("count", [1, 2])
def test_few_rates_have_an_edge(count: int) -> None:
    found = judged([2.0**-6, 2.0**-9], rates=RATES[3 : 3 + count])
    assert all(one.edge for one in found.best)
    assert found.verdict == "undecided"
    assert judged([2.0**-6, 2.0**-9], noise=0.1, seeds=2, rates=RATES[3:5]).factor >= 1


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    inside = 0
    rng = np.random.default_rng(1)
    for _ in range(200):
        rows = [
            replace(one, losses=[one.losses[0] + rng.normal(0, 0.03) for _ in range(4)])
            for one in tried([0.003, 0.003])
        ]
        found = judge_transfer(rows, mode="min")
        inside += sum(one.low <= 0.003 <= one.high for one in found.best)
    assert 0.9 <= inside / 400 <= 0.99


def test_what_noise_may_have_moved_is_undecided() -> None:
    found = judged([0.003, 0.006], noise=0.3, seeds=2)
    assert found.factor > math.sqrt(2)
    assert found.verdict == "undecided"
    assert judged([0.003, 0.0047], noise=0.005, seeds=2).verdict == "moves"


def test_an_edge_hides_how_far_the_best_rate_moves() -> None:
    found = judged([2.0**-5, 2.0**-9], rates=RATES[2:])
    assert (found.best[1].edge, found.best[1].low) == ("low", 0)
    assert found.verdict == "moves"
    found = judged([2.0**-8, 2.0**-9], rates=RATES[2:])
    assert [one.edge for one in found.best] == ["low", "low"]
    assert found.verdict == "undecided"


def test_a_rate_that_failed_was_tried() -> None:
    rows = [
        Tried(one.size, one.parameters, one.rate, [math.inf] if one.rate > 2**-7 else one.losses)
        for one in tried([2.0**-7, 2.0**-7])
    ]
    found = judge_transfer(rows, mode="min")
    assert [one.edge for one in found.best] == [None, None]
    assert [one.rate for one in found.best] == pytest.approx([2.0**-7] * 2)
    assert found.verdict == "transfers"


def test_a_slope_is_the_exponent_of_a_power_law() -> None:
    sizes = [32, 64, 128]
    amounts = [[3 * s**0.5 for s in sizes], [2 * s**0.7 for s in sizes]]
    assert slope(sizes, amounts) == pytest.approx((0.6, 0.1))
    assert math.isnan(slope(sizes, [[0.0, 1.0, 1.0]])[0])


@pytest.mark.parametrize(
    ("start", "step", "error", "narrow", "breaks"),
    [
        (0, 0.1, 0.0, False, False),
        (0, 0.9, 0.1, False, True),
        (0, -0.9, 0.1, False, True),
        (0, 0.9, 0.4, False, False),
        (0.5, 0, 0.0, False, True),
        (-0.5, 0, 0.0, False, True),
        (-0.5, 0, 0.0, True, False),
        (math.nan, 0, 0.0, False, False),
    ],
)
def test_a_layer_breaks_if_it_follows_the_size_beyond_noise(
    start: float, step: float, error: float, narrow: bool, breaks: bool
) -> None:
    assert Growth("x", start, step, 0.0, error, narrow).breaks == breaks
