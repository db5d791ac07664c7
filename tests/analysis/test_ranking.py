import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.analysis.outcomes import outcome, seeded
from truesweep.analysis.noise import critical_values
from truesweep.analysis.outcomes import Outcome, pareto_front, pareto_points
from truesweep.analysis.ranking import rank, unfairness
from truesweep.analysis.uncertainty import Estimate
from truesweep.errors import DataError


def covered(truths: np.ndarray, noise: float, sweeps: int, seed: int) -> float:
    draw = np.random.default_rng(seed)
    hits = 0
    for _ in range(sweeps):
        ranking = rank(seeded(truths.tolist(), noise, 3, draw), "loss")
        assert ranking.best is not None
        hits += any(s.varies["k"] == 0 for s in (ranking.best, *ranking.tied))
    return hits / sweeps


@pytest.mark.parametrize("effect", [0.0, 0.01, 0.2])
def test_the_true_winner_is_chosen_or_tied(effect: float) -> None:
    truths = 2 + effect * np.linspace(0, 1, 12)
    assert covered(truths, noise=0.01, sweeps=300, seed=1) >= 0.93  # 0.95 less two deviations


def test_a_clear_winner_is_told() -> None:
    draw = np.random.default_rng(0)
    truths = [2.0] + [2.05] * 11
    alone = [not rank(seeded(truths, 0.01, 3, draw), "loss").tied for _ in range(100)]
    assert sum(alone) >= 95


def test_a_point_of_several_seeds_is_said_to_be_judged_by_their_mean() -> None:
    draw = np.random.default_rng(0)
    ranking = rank(seeded([2.0, 2.5], 0.01, 3, draw), "loss")
    assert ranking.best is not None
    told = f"Best loss: {ranking.best.mean:.3f} with k=0 (mean of 3), better than"
    assert ranking.text.startswith(told)
    one = rank([outcome(2 + i, varies={"k": i}) for i in range(2)], "loss")
    assert one.text.startswith("Best loss: 2.000 with k=0. With one seed a point")


def test_critical_values_are_dunnetts() -> None:
    # Dunnett (1955), table 1a: one-sided, 5 %, three treatments, 16 degrees of freedom.
    value = critical_values((0.5,) * 4, 16, 0.05)[0]
    assert value == pytest.approx(2.23, abs=0.03)
    # One comparison with known variance is the normal distribution's.
    assert critical_values((1.0, 1.0), None, 0.05)[0] == pytest.approx(1.645, abs=0.03)


def test_a_noisy_point_does_not_hide_the_others() -> None:
    draw = np.random.default_rng(0)
    jobs = seeded([2.0, 2.1, 2.2, 2.3], 0.005, 3, draw)
    wild = [outcome(v, seed=i, varies={"k": 9}) for i, v in enumerate([2.5, 6.0, 9.0])]
    ranking = rank([*jobs, *wild], "loss")
    assert {s.varies["k"] for s in ranking.tied} <= {9}


def test_equal_seeds_leave_no_noise() -> None:
    jobs = [outcome(v, seed=s, varies={"k": v}) for v in (1.0, 2.0) for s in (0, 1)]
    ranking = rank(jobs, "loss")
    assert ranking.tied == []


def test_a_standard_error_ties_what_it_covers() -> None:
    jobs = [outcome(value, varies={"k": value}, standard_error=0.01) for value in (1.0, 1.02, 1.2)]
    ranking = rank(jobs, "loss")
    assert ranking.basis == "evaluation"
    assert [s.mean for s in ranking.tied] == [1.02]
    assert ranking.text == (
        "Lowest loss: 1.000 with k=1; not to be told apart from it on this split (95 % confidence "
        "over its samples): k=1.02. Seeds were not varied, and another seed may reorder them: "
        "repeat k=1 and k=1.02 with sweeps.seeds=3."
    )


def test_samples_of_the_same_split_tell_more_than_standard_errors() -> None:
    draw = np.random.default_rng(0)
    hard = draw.gamma(2.0, 10.0, 400)
    jobs = []
    for k, worse in enumerate((0.0, 0.1)):
        sums = hard + worse + 0.1 * draw.standard_normal(400)
        table = np.stack([sums, np.full(400, 10.0)], axis=1)
        jobs.append(outcome(sums.mean() / 10, varies={"k": k}, samples=table, standard_error=0.07))
    ranking = rank(jobs, "loss")
    assert (ranking.basis, ranking.tied) == ("paired samples", [])
    assert "lower than the other one on this split (95 % confidence over its" in ranking.text
    assert "better" not in ranking.text
    assert "repeat k=0 and k=1 with sweeps.seeds=3" in ranking.text
    unpaired = [outcome(j.value("loss"), varies=j.varies, standard_error=0.07) for j in jobs]
    assert len(rank(unpaired, "loss").tied) == 1


def measured(losses: list[list[float]], **changes: Any) -> list[Outcome]:
    """Jobs whose losses are the means of what their samples have."""
    return [
        outcome(float(np.mean(row)), samples=np.stack([row, np.ones(len(row))], 1), **changes)
        for row in losses
    ]


@pytest.mark.parametrize(("samples", "error"), [(1, 0.0), (1, math.nan), (3, math.nan)])
def test_what_has_no_error_tells_nothing_apart(samples: int, error: float) -> None:
    jobs = measured([[loss] * samples for loss in (1.0, 2.0, 3.0)], standard_error=math.nan)
    paired = Estimate(1.0, error)
    ranking = rank(jobs, "loss", paired=lambda first, second: paired)
    assert (ranking.basis, ranking.tied) == ("none", [])
    assert rank(measured([[1.0], [2.0]]), "loss").basis == "none"


def test_few_samples_tell_little_apart() -> None:
    draw = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):  # two equal configurations, three samples
        wrong += not rank(measured(draw.normal(2, 0.1, (2, 3)).tolist()), "loss").tied
    assert wrong / 400 <= 0.12  # both may be the best one; the normal distribution has 0.2


@pytest.mark.parametrize("figure", [np.exp, lambda loss: loss / math.log(2) / 3.5])
def test_what_follows_from_the_loss_is_tied_as_the_loss_is(figure: Callable[..., float]) -> None:
    draw = np.random.default_rng(0)
    hard = draw.normal(2, 0.5, 200)
    rows = [hard + i * 0.004 + draw.normal(0, 0.05, 200) for i in range(8)]
    jobs = measured([row.tolist() for row in rows])
    others = [
        # `figure` is one of several one-argument functions; mypy joins their types to `object`.
        replace(job, objectives={"loss": figure(job.objectives["loss"])})  # type: ignore[arg-type]
        for job in jobs
    ]
    by_loss, by_other = rank(jobs, "loss"), rank(others, "loss")
    assert by_other.basis == "paired samples"
    assert [s.tied for s in by_other.standings] == [s.tied for s in by_loss.standings]
    assert 0 < len(by_loss.tied) < 7


def test_one_seed_says_nothing_about_noise() -> None:
    ranking = rank([outcome(1.0), outcome(2.0)], "loss")
    assert ranking.basis == "none"
    assert ranking.tied == []
    assert "nothing is known about noise" in ranking.text


def test_more_can_be_better_and_some_have_nothing() -> None:
    jobs = [outcome(0.5), outcome(0.9), outcome(None, id="failed"), outcome(float("nan"), id="x")]
    ranking = rank(jobs, "loss", "maximize")
    assert [s.mean for s in ranking.standings] == [0.9, 0.5]
    empty = rank(jobs, "bleu")
    assert (empty.best, empty.text) == (None, "No job has bleu.")
    with pytest.raises(DataError, match="'up'"):
        rank(jobs, "loss", "up")  # type: ignore[arg-type]


def test_unequal_tokens_are_named() -> None:
    jobs = [
        outcome(1.0, varies={"k": 1}, tokens=4_000_000, parameters=1000),
        outcome(1.1, varies={"k": 2}, tokens=1_000_000, parameters=1000),
        outcome(1.2, varies={"k": 3}, tokens=1_000_000, parameters=1000),
    ]
    found = unfairness(jobs, rank(jobs, "loss"))
    assert [f.what for f in found] == ["tokens", "compute"]
    assert found[0].favours_best
    assert "from 1.00M to 4.00M tokens" in found[0].text
    alike = [outcome(v, tokens=t) for v, t in ((1.0, 100_000), (2.0, 103_000))]
    assert unfairness(alike, rank(alike, "loss")) == []


def test_a_larger_model_on_equal_tokens_has_more_compute() -> None:
    jobs = [outcome(v, tokens=10, parameters=n) for v, n in ((1.0, 10), (2.0, 1000))]
    (found,) = unfairness(jobs, rank(jobs, "loss"))
    assert (found.what, found.favours_best) == ("compute", False)


def test_the_front_of_two_objectives() -> None:
    values = [[1.0, 5.0], [2.0, 6.0], [3.0, 5.0], [0.5, np.nan], [1.0, 5.0]]
    front = pareto_front(values, ["minimize", "maximize"])
    assert front.tolist() == [True, True, False, False, True]
    jobs = [
        outcome(None, point=str(i), objectives={"loss": row[0], "bleu": row[1]})
        for i, row in enumerate(values)
    ]
    points = pareto_points(jobs, {"bleu": "maximize", "loss": "minimize"})
    assert list(points) == ["1", "0", "4"]
    assert points["1"] == {"bleu": 6.0, "loss": 2.0}
