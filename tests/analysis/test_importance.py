from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from tests.analysis.outcomes import outcome
from truesweep.analysis.importance import Importance, importance
from truesweep.analysis.outcomes import Outcome

pytestmark = pytest.mark.numbers


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
    assert sum(found.shares.values()) + sum(found.interactions.values()) == pytest.approx(1)


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
    points = [outcome(float(k + 2 * j), varies={"k": k, "j": j}) for k in (0, 1) for j in (0, 1, 2)]
    seeds = [replace(one, seed=seed) for one in points for seed in (1, 2)]
    assert importance(seeds, "loss").shares == importance(points, "loss").shares


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
    assert sum(found.shares.values()) <= 1


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
    alike = grid(lambda a, b: 1.0, a=[1, 2], b=[1, 2])
    assert importance(alike, "loss").notes == ["All points have the same objective."]


def test_one_key_has_no_importance() -> None:
    found = importance([outcome(float(k), varies={"k": k}) for k in range(3)], "loss")
    assert (found.shares, found.notes) == ({}, ["Only k varied: it has no rival."])


def test_keys_that_determine_each_other_are_one() -> None:
    points = grid(lambda a, b: a + 0.5 * b, a=[1, 2, 3], b=[1, 2])
    zipped = [replace(one, varies={**one.varies, "w": 10 - one.varies["a"]}) for one in points]
    found = importance(zipped, "loss")
    assert found.method == "grid"
    assert found.shares == {
        "a + w": pytest.approx(importance(points, "loss").shares["a"]),
        "b": pytest.approx(importance(points, "loss").shares["b"]),
    }
    draw = np.random.default_rng(0)
    rates = draw.uniform(size=(40, 2))  # all values are their keys' own, and yet two keys
    free = [outcome(float(a), varies={"a": float(a), "b": float(b)}) for a, b in rates]
    assert list(importance(free, "loss").shares) == ["a", "b"]
    tied = [outcome(float(a), varies={"a": float(a), "b": float(a) / 10}) for a, _ in rates]
    assert importance(tied, "loss").notes == ["Only a + b varied: it has no rival."]


AXES: dict[str, list[Any]] = {"lr": [1, 2, 3], "batch": [16, 32], "depth": [2, 4], "epochs": [1, 2]}


def clear(found: Importance) -> set[str]:
    return {key for key, share in found.shares.items() if share > found.noise[key]}


def scattered(draw: np.random.Generator) -> list[Outcome]:
    keys = {"lr": draw.uniform(size=24), "decay": draw.uniform(size=24)}
    return [
        outcome(float(draw.normal()), varies={key: float(v[i]) for key, v in keys.items()})
        for i in range(24)
    ]


@pytest.mark.parametrize(
    "sweep",
    [
        lambda draw: grid(lambda **_: draw.normal(), **AXES),
        lambda draw: grid(lambda **_: draw.normal(), **AXES)[2:-2],
        lambda draw: grid(lambda a, b: draw.normal(), a=[1, 2], b=[1, 2]),
        lambda draw: repeated(draw, 0.0),
        scattered,
    ],
    ids=["grid", "holed grid", "2 x 2", "seeds", "search"],
)
def test_noise_alone_seldom_looks_like_a_key(sweep: Any) -> None:
    found = [importance(sweep(np.random.default_rng(i)), "loss") for i in range(60)]
    assert sum(bool(clear(one)) for one in found) <= 8  # of 3 expected; more in 1 of 200 cases
    quiet = next(one for one in found if not clear(one))
    assert "No key is distinguishable" in quiet.notes[-1]


def repeated(draw: np.random.Generator, effect: float) -> list[Outcome]:
    points = grid(lambda lr, batch, depth, epochs: effect * depth, **AXES)
    return [
        outcome(one.value("loss") + draw.normal(), varies=one.varies, seed=seed)
        for one in points
        for seed in range(3)
    ]


def test_what_matters_is_told_from_noise_whatever_else_matters() -> None:
    found = []
    for i in range(20):
        noise = np.random.default_rng(i).normal(0, 0.5, 24)
        points = grid(lambda lr, batch, depth, epochs: 9 * depth + 2 * epochs, **AXES)
        values = [one.value("loss") + n for one, n in zip(points, noise, strict=True)]
        jobs = [outcome(v, varies=one.varies) for v, one in zip(values, points, strict=True)]
        found.append(importance(jobs, "loss"))
    assert all(clear(one) >= {"depth", "epochs"} for one in found)
    assert sum(clear(one) == {"depth", "epochs"} for one in found) >= 16
    assert found[1].shares["epochs"] < 0.05
    assert "2 of 4 keys are not" in found[1].notes[-1]


def test_seeds_take_their_noise_off() -> None:
    found = [importance(repeated(np.random.default_rng(i), 0.5), "loss") for i in range(20)]
    # The effect's variance is 1/4 and the noise's, with three seeds, 1/3.
    depth = np.mean([one.shares["depth"] for one in found])
    assert depth == pytest.approx(0.25 / (0.25 + 1 / 3), abs=0.06)
    assert np.mean([one.shares["lr"] for one in found]) < 0.04
    assert "Noise between seeds" in found[0].notes[0]
