"""Critical values for many comparisons with the best, by simulation of their distribution.

With k points, of which any may be the best one, a point i is kept as a candidate unless

    mean_i - mean_best > d_i * s * sqrt(1 / n_i + 1 / n_best)

with s the pooled standard deviation and d_i the 1 - alpha quantile of the largest of the k - 1
correlated t statistics of the others against i: Dunnett's (1955) one-sided statistic with i as the
control. The candidates then hold the truly best point with probability at least 1 - alpha (Gupta
1965; Hsu 1984, multiple comparisons with the best).
"""

from functools import lru_cache

import numpy as np

from truesweep.text import rounded

DRAWS = 40_000
"""Leave about 0.01 of uncertainty in a critical value."""


def critical_values(errors: tuple[float, ...], freedom: int | None, alpha: float) -> list[float]:
    """d_i for each point, as the control.

    Args:
        errors: Relative standard error of each point's mean, such as 1 / sqrt(n_i) [k].
        freedom: Degrees of freedom of the pooled variance; None where it is known.
        alpha: The error rate that is allowed.
    """
    if len(errors) < 2:
        return [0.0] * len(errors)  # nothing to be told apart from
    # Points whose errors hardly differ share a value, which changes slowly with them.
    typical = float(np.median(errors)) or 1.0
    relative = tuple(rounded(error / typical, 2) for error in errors)
    controls = {error: index for index, error in enumerate(relative)}
    known = {e: _critical(relative, index, freedom, alpha) for e, index in controls.items()}
    return [known[error] for error in relative]


@lru_cache(maxsize=1024)
def _critical(errors: tuple[float, ...], control: int, freedom: int | None, alpha: float) -> float:
    generator = np.random.default_rng(0)
    own = errors[control] * generator.standard_normal(DRAWS)
    largest = np.full(DRAWS, -np.inf)
    for index, error in enumerate(errors):
        if index == control:
            continue
        other = error * generator.standard_normal(DRAWS)
        spread = float(np.hypot(error, errors[control])) or 1.0  # both are exact, and equal here
        np.maximum(largest, (own - other) / spread, out=largest)
    if freedom is not None:
        largest /= np.sqrt(generator.chisquare(freedom, DRAWS) / freedom)
    return float(np.quantile(largest, 1 - alpha))
