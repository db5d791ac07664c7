"""Whether one configuration is better than another, from paired seeds and as few as it takes.

Looking after each seed whether a t-test has become significant finds differences where there are
none. The evidence here may be looked at after every seed: if there is no difference, it exceeds
1 / error at any time, however long one goes on, with a probability of at most `error`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from truesweep.figures import Mode

Verdict = Literal["better", "worse", "alike", "undecided"]

EFFECT = 4.0
"""Variance of the effects for which evidence is sharpest; an effect is the mean difference in
standard deviations of a seed's difference. Paired seeds make two of them nothing unusual.
"""
LIMIT = 100_000
"""No more seeds than that are foretold."""


@dataclass(frozen=True)
class Duel:
    """What the seeds so far say of a challenger's difference to the champion.

    Args:
        difference: Mean of challenger minus champion over the seeds.
        low: Lower end of its interval, which holds the truth at any time with 1 - error.
        high: Upper end.
        evidence: How much likelier the seeds are if there is a difference than if there is none.
        seeds: How many there are.
        verdict: `better` or `worse`, of the challenger; `alike` where the interval lies within the
            least difference that matters; else `undecided`.
        needed: Seeds that would settle a difference of this size, about; None where it is settled,
            or where there is nothing to go by.
        needed_for_half: Seeds that would settle a difference half as large, about; None where there
            is nothing to go by, or they are more than anybody trains.
    """

    difference: float
    low: float
    high: float
    evidence: float
    seeds: int
    verdict: Verdict
    needed: int | None
    needed_for_half: int | None


def judge(
    champion: Sequence[float],
    challenger: Sequence[float],
    *,
    mode: Mode,
    error: float,
    smallest: float = 0.0,
) -> Duel:
    """Judge by the figures of the same seeds.

    Args:
        champion: One configuration's figures, by seed.
        challenger: The other's, for the same seeds.
        mode: Which way is better.
        error: How often a difference may be found where there is none.
        smallest: The least difference that matters; 0: every one does.
    """
    differences = np.subtract(challenger, champion, dtype=np.float64)
    seeds, mean = len(differences), float(np.mean(differences))
    spread = _spread(differences)
    evidence = e_value(differences)
    reach = half_width(seeds, error) * spread if spread else math.inf
    if not spread and evidence >= 1 / error:
        reach = 0.0
    low, high = mean - reach, mean + reach
    verdict: Verdict = "undecided"
    if evidence >= 1 / error:
        verdict = "better" if (mean < 0) == (mode == "min") else "worse"
    elif smallest and -smallest < low and high < smallest:
        verdict = "alike"
    size = abs(mean) / spread if spread else 0.0
    needed = seeds_needed(size, error) if size and verdict == "undecided" else None
    half = seeds_needed(size / 2, error) if size else None
    return Duel(mean, low, high, evidence, seeds, verdict, needed, half)


def e_value(differences: Sequence[float] | np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    """Evidence against a mean of zero, an e-value at any number of differences.

    The Bayes factor of the t-test with a normal effect of variance g = `EFFECT` (Gönen et al.
    2005), which with the right Haar prior on the scale is a test martingale (Pérez-Ortiz et al.
    2024, E-statistics, group invariance and anytime-valid testing):

        (1 + n g)^(-1/2) * ((1 + t^2 / v) / (1 + t^2 / (v (1 + n g))))^(n / 2),  v = n - 1

    Differences that are all the same have no t. Figures of few samples, such as an accuracy, come
    to that by chance, so that only their sign counts: against signs that are either with one half,
    2^n / (n + 1), the mean over all other chances.
    """
    found = np.asarray(differences, dtype=np.float64)
    seeds, spread = len(found), _spread(found)
    mean = float(found.mean()) if seeds else 0.0
    if seeds < 2 or not mean:
        return 1.0
    if not spread:
        return 2.0**seeds / (seeds + 1)
    ratio = seeds * (mean / spread) ** 2 / (seeds - 1)
    shrink = 1 + seeds * EFFECT
    logarithm = seeds / 2 * (math.log1p(ratio) - math.log1p(ratio / shrink)) - math.log(shrink) / 2
    return math.exp(min(logarithm, 700.0))


def half_width(seeds: int, error: float) -> float:
    """Half of the interval in standard deviations of the differences: where `e_value` is 1 / error.

    Infinite where so few seeds can tell nothing.
    """
    if seeds < 2:
        return math.inf
    shrink = 1 + seeds * EFFECT
    bound = (math.sqrt(shrink) / error) ** (2 / seeds)
    if bound >= shrink:
        return math.inf
    return math.sqrt((bound - 1) / (1 - bound / shrink) * (seeds - 1) / seeds)


def seeds_needed(size: float, error: float) -> int | None:
    """Seeds that settle a difference of so many standard deviations; None: more than `LIMIT`."""
    low, high = 1, LIMIT
    if half_width(high, error) > size:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if half_width(middle, error) <= size else (middle, high)
    return high


def _spread(differences: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    return float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
