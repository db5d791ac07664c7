import math
import random

import numpy as np
import pytest
from benchmarks.search_replay import (
    TABLE,
    TIED,
    Run,
    best_of_seeds,
    by_forecasts,
    by_optuna,
    load,
    noise,
)

from truesweep.analysis.curves import Curve

TASKS = load(TABLE)


@pytest.mark.parametrize("task", TASKS)
def test_the_search_ends_with_the_best_or_a_tie_at_a_quarter_of_the_steps(task: str) -> None:
    points, rng = TASKS[task], random.Random(1)
    assert [len(seeds) for seeds in points] == [2] * 36
    runs = [rng.choice(seeds) for seeds in points]
    value, steps = by_forecasts(runs)
    assert value - min(run.best for run in runs) <= TIED * noise(best_of_seeds(points))
    assert steps < 0.28 * sum(len(run.rates) for run in runs)


def test_noise_is_that_of_the_better_half() -> None:
    def run(value: float) -> Run:
        return Run(Curve(np.array([1, 2]), np.array([9.0, value])), np.ones(2))

    points = [[run(1.0), run(1.2)], [run(7.0), run(9.0)]]
    assert noise(best_of_seeds(points)) == pytest.approx(math.sqrt(0.02))


def test_a_pruner_costs_what_it_lets_train() -> None:
    steps = np.arange(10, 101, 10)
    runs = [Run(Curve(steps, np.full(10, float(value))), np.ones(100)) for value in (1, *[2] * 8)]
    value, spent = by_optuna("halving")(runs)
    assert value == 1.0
    assert 100 + 8 * 20 <= spent < 900
