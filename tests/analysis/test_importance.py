from itertools import product
from typing import Any

import numpy as np
import pytest

from tests.analysis.outcomes import outcome
from truesweep.analysis.importance import importance
from truesweep.analysis.outcomes import Outcome


def grid(function: Any, **axes: list[Any]) -> list[Outcome]:
    points = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    return [outcome(function(**p), varies=p) for p in points]


def test_exact_shares_on_a_grid() -> None:
    # Variances 2/3 * 4, 1 * 1 and of the interaction 2/3 * 1/4, worked out by hand.
    jobs = grid(lambda a, b, c: 2 * a + b + 0.5 * a * b, a=[-1, 0, 1], b=[-1, 1], c=[1, 2])
    found = importance(jobs, "loss")
    total = 8 / 3 + 1 + 1 / 6
    assert found.method == "grid"
    assert list(found.shares) == ["a", "b", "c"]
    assert found.shares == pytest.approx({"a": 8 / 3 / total, "b": 1 / total, "c": 0.0})
    assert found.interactions["a", "b"] == pytest.approx(1 / 6 / total)
    assert found.rest == pytest.approx(0.0, abs=1e-12)


def test_a_missing_cell_is_filled_in_and_said() -> None:
    jobs = grid(lambda a, b: 2.0 * a + b, a=[0, 1, 2], b=[0, 1, 2])
    full, holed = importance(jobs, "loss"), importance(jobs[:-1], "loss")
    assert holed.shares == pytest.approx(full.shares, abs=1e-6)
    assert "1 of 9 cells" in holed.notes[0]


def test_a_diverged_point_does_not_decide_alone() -> None:
    jobs = grid(lambda lr, depth: 2 - depth / 10, lr=[1, 2, 3], depth=[1, 2, 3, 4])
    wild = [outcome(1e4, varies=jobs[0].varies), *jobs[1:]]
    found = importance(wild, "loss")
    assert found.shares["depth"] > 0.5
    assert "far worse" in found.notes[0]


def test_seeds_of_a_point_count_once() -> None:
    jobs = [outcome(float(k + s), varies={"k": k}, seed=s) for k in (0, 1, 2) for s in (-1, 1)]
    assert importance(jobs, "loss").shares == {"k": 1.0}


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_search_finds_the_key_that_decides(direction: Any) -> None:
    draw = np.random.default_rng(0)
    sign = 1 if direction == "minimize" else -1
    jobs = []
    for _ in range(60):
        varies: dict[str, Any] = {
            "lr": float(10 ** draw.uniform(-5, -1)),
            "dropout": float(draw.uniform(0, 0.5)),
            "optimizer": str(draw.choice(["adamw", "sgd"])),
        }
        loss = (np.log10(varies["lr"]) + 3) ** 2 + 0.1 * varies["dropout"]
        jobs.append(outcome(sign * float(loss), varies=varies))
    found = importance(jobs, "loss", direction)
    assert found.method == "search"
    assert next(iter(found.shares)) == "lr"
    assert found.shares["lr"] > 0.6
    assert sum(found.shares.values()) + found.rest == pytest.approx(1)


def test_shares_of_scattered_points_are_those_of_the_variance() -> None:
    draw = np.random.default_rng(1)
    jobs = []
    for _ in range(300):
        varies = {
            "batch": int(draw.choice([16, 32, 64])),
            "depth": int(draw.integers(1, 7)),
            "decay": float(draw.uniform()),
        }
        loss = 0.5 * varies["depth"] + 0.6 * np.log2(varies["batch"]) + draw.normal(0, 0.5)
        jobs.append(outcome(float(loss), varies=varies))
    total = 0.25 * 35 / 12 + 0.36 * 2 / 3 + 0.25
    found = importance(jobs, "loss").shares
    assert found["depth"] == pytest.approx(0.25 * 35 / 12 / total, abs=0.08)
    assert found["batch"] == pytest.approx(0.36 * 2 / 3 / total, abs=0.08)
    assert found["decay"] < 0.03


def test_too_few_points_say_so() -> None:
    assert "too few" in importance([outcome(1.0, varies={"k": 1})], "loss").notes[0]
    draw = np.random.default_rng(0)
    scattered = [
        outcome(float(i), varies={"a": float(draw.random()), "b": float(draw.random())})
        for i in range(8)
    ]
    found = importance(scattered, "loss")
    assert (found.shares, found.method) == ({}, "none")
    assert "8 points of no full grid" in found.notes[0]
    alike = [outcome(1.0, varies={"k": k}) for k in range(4)]
    assert importance(alike, "loss").notes == ["All points have the same objective."]
