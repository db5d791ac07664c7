"""Duels of which the truth is known, by simulation and by the formula written out."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from truesweep.analysis.duel import EFFECT, e_value, half_width, judge, seeds_needed


def simulate(
    effect: float, duels: int, most: int, error: float, seed: int = 0
) -> tuple[float, float]:
    """Duels that are ended when decided: the share that is decided, and seeds spent on average."""
    rng = np.random.default_rng(seed)
    decided, spent = 0, 0
    for _ in range(duels):
        common, own = rng.normal(0, 1, most), rng.normal(0, 0.1, (2, most))
        champion, challenger = common + own[0], common + own[1] + effect * 0.1 * math.sqrt(2)
        for seeds in range(2, most + 1):
            duel = judge(champion[:seeds], challenger[:seeds], mode="min", error=error)
            if duel.verdict != "undecided":
                decided += 1
                break
        spent += seeds
    return decided / duels, spent / duels


def test_at_most_one_tie_in_a_hundred_is_called_a_win_at_that_rate() -> None:
    share, _ = simulate(0, duels=3000, most=20, error=0.01)
    assert share <= 0.01


def test_ties_are_called_wins_by_whoever_looks_at_a_t_test_after_each_seed() -> None:
    """What the evidence is for: the same ties, judged by p < 0.01 after each seed."""
    rng = np.random.default_rng(0)
    fooled = 0
    for _ in range(100):
        differences = rng.normal(0, 1, 40)
        p_values = [stats.ttest_1samp(differences[:n], 0).pvalue for n in range(2, 41)]
        fooled += min(p_values) < 0.01
    assert fooled / 100 > 0.05


def test_differences_are_found_and_pairs_need_a_fraction_of_the_seeds() -> None:
    share, spent = simulate(2, duels=100, most=40, error=0.05)
    assert share == 1
    assert spent < 10
    # Unpaired: ten times the noise of the pairs' own hides the same difference.
    unpaired = stats.norm.isf([0.025, 0.2]).sum() ** 2 * 2 * (1 + 0.1**2) / (2 * 0.1) ** 2 / 2
    assert spent < unpaired / 3


def test_evidence_is_the_integral_that_it_stands_for() -> None:
    differences = np.array([0.3, 0.1, 0.4, 0.2, 0.05])
    n, t = len(differences), stats.ttest_1samp(differences, 0).statistic

    def likelihood(effect: float) -> float:
        return float(stats.nct.pdf(t, n - 1, effect * math.sqrt(n)))

    scale = math.sqrt(EFFECT)
    with_effect, _ = integrate.quad(
        lambda e: likelihood(e) * stats.norm.pdf(e, 0, scale), -12, 12, limit=400, points=[1.6]
    )
    assert e_value(differences) == pytest.approx(with_effect / stats.t.pdf(t, n - 1), rel=1e-5)


def test_the_interval_ends_where_the_evidence_does() -> None:
    differences = np.random.default_rng(1).normal(0.1, 0.05, 12)
    reach = half_width(12, 0.05) * differences.std(ddof=1)
    for sign in (-1, 1):
        end = differences.mean() + sign * reach
        assert e_value(differences - end) == pytest.approx(20, rel=1e-6)
    assert half_width(2, 0.05) == math.inf


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_better_one_is_the_one_that_is_better(mode: str) -> None:
    champion, challenger = [2.0, 2.1, 1.9, 2.05, 2.0], [1.8, 1.91, 1.7, 1.86, 1.79]
    duel = judge(champion, challenger, mode=mode, error=0.05)  # type: ignore[arg-type]
    assert duel.verdict == ("better" if mode == "min" else "worse")
    assert duel.low < duel.difference < duel.high < 0


def test_what_does_not_matter_is_alike() -> None:
    rng = np.random.default_rng(0)
    champion = rng.normal(2, 0.1, 12).tolist()
    challenger = [value + rng.normal(0, 0.001) for value in champion]
    assert judge(champion, challenger, mode="min", error=0.05).verdict == "undecided"
    known = judge(champion, challenger, mode="min", error=0.05, smallest=0.01)
    assert known.verdict == "alike"


def test_what_would_settle_it_is_told() -> None:
    duel = judge([1.0, 1.0, 1.0], [1.1, 0.9, 1.03], mode="min", error=0.05)
    assert duel.verdict == "undecided"
    size = duel.difference / float(np.std([0.1, -0.1, 0.03], ddof=1))
    assert duel.needed is not None
    assert duel.needed == seeds_needed(size, 0.05)
    assert half_width(duel.needed, 0.05) <= size < half_width(duel.needed - 1, 0.05)
    assert duel.needed_for_half == seeds_needed(size / 2, 0.05)
    clear = judge([1.0] * 6, [1.1, 1.11, 1.09, 1.1, 1.12, 1.1], mode="min", error=0.05)
    assert (clear.verdict, clear.needed, clear.needed_for_half) == ("worse", None, 4)


def test_the_same_difference_each_time_counts_by_its_sign() -> None:
    same = judge([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], mode="min", error=0.05)
    assert (same.verdict, same.difference, same.needed) == ("undecided", 0.0, None)
    assert judge([1.0], [1.5], mode="min", error=0.05).low == -math.inf
    few, many = (judge([1.0] * n, [1.5] * n, mode="min", error=0.05) for n in (6, 8))
    assert (few.verdict, few.low, few.high) == ("undecided", -math.inf, math.inf)
    assert (many.verdict, many.low, many.high) == ("worse", 0.5, 0.5)


def test_ties_of_coarse_figures_are_called_no_more_wins() -> None:
    """Of figures that are either, one in eight ties begins with four differences that are alike."""
    draw = np.random.default_rng(0)
    wins = 0
    for _ in range(1000):
        challenger = draw.integers(0, 2, 12).astype(float).tolist()
        verdicts = {
            judge([0.5] * n, challenger[:n], mode="max", error=0.05).verdict for n in range(4, 13)
        }
        wins += verdicts != {"undecided"}
    assert wins / 1000 <= 0.05
