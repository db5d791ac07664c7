from typing import Any

import pytest

from tests.analysis.outcomes import outcome
from truesweep.analysis.ranges import Edge, edges
from truesweep.analysis.ranking import rank


def edge(values: list[Any], best: Any) -> Edge | None:
    """What is said of a sweep over a key whose best value is given."""
    jobs = [outcome(1.0 if v == best else 2.0, varies={"k": v}) for v in values]
    found = edges(rank(jobs, "loss"), jobs)
    return found[0] if found else None


@pytest.mark.parametrize(
    ("values", "best", "suggestion"),
    [
        ([1e-4, 3e-4, 1e-3], 1e-3, [3e-4, 1e-3, 3.16e-3, 1e-2]),
        ([1e-4, 1e-3, 1e-2], 1e-4, [1e-6, 1e-5, 1e-4, 1e-3]),
        ([16, 32, 64], 64, [32, 64, 128, 256]),
        ([2, 4, 6], 6, [4, 6, 8, 10]),
        ([1, 2, 3], 3, [2, 3, 4, 5]),
        ([4, 8, 16], 4, [1, 2, 4, 8]),
        ([0.1, 0.2, 0.3], 0.3, [0.2, 0.3, 0.4, 0.5]),
        ([0.1, 0.5, 0.9], 0.9, None),
        ([0.0, 0.1, 0.2], 0.0, None),
        ([1, 2, 4], 1, None),
        ([1e-4, 1e-3, 1e-2], 1e-3, None),
        ([1, 2], 2, None),
        (["adamw", "muon", "sgd"], "sgd", None),
        ([True, False], True, None),
    ],
)
def test_the_range_to_try_next(values: list[Any], best: Any, suggestion: Any) -> None:
    found = edge(values, best)
    assert (
        None if found is None else pytest.approx(list(found.suggestion), rel=0.06)
    ) == suggestion


def test_an_axis_of_a_random_search() -> None:
    values = [10 ** (-5 + 3 * i / 29) for i in range(30)]
    found = edge(values, values[-1])
    assert found is not None
    assert (found.spacing, found.side) == ("log", "high")
    assert found.suggestion[-1] == pytest.approx(1e-2 * 10**1.5, rel=0.1)
    assert edge(values, values[15]) is None


@pytest.mark.parametrize(
    ("beyond", "text"),
    [
        ({}, "The best lr, 0.01, is on the edge of its range. Try lr=0.003,0.01,0.0316,0.1."),
        ({0.03: "pruned"}, None),
        ({0.03: "failed", 0.1: "pruned"}, None),
        ({0.03: "running"}, None),
        ({0.03: "queued"}, None),
        ({0.03: "completed"}, None),  # and its loss is not finite
        ({0.03: "failed"}, "The best lr, 0.01, is the highest that did not fail: 0.03 did."),
        ({0.1: "failed", 0.03: "failed"}, "The best lr, 0.01, is the highest that did not fail: "
         "0.03 did."),
    ],
)  # fmt: skip
def test_what_was_tried_without_an_end_is_not_proposed(
    beyond: dict[float, str], text: str | None
) -> None:
    jobs = [outcome(1 - lr, varies={"lr": lr}) for lr in (0.001, 0.003, 0.01)]
    jobs += [outcome(None, varies={"lr": lr}, state=state) for lr, state in beyond.items()]
    found = edges(rank(jobs, "loss"), jobs)
    assert [one.text for one in found] == ([] if text is None else [text])


def test_what_failed_below_is_said_too() -> None:
    jobs = [outcome(k, varies={"k": k}) for k in (2.5, 3.5, 4.5)]
    jobs += [outcome(None, varies={"k": k}, state="failed") for k in (0.5, 1.5)]
    (found,) = edges(rank(jobs, "loss"), jobs)
    assert found.text == "The best k, 2.5, is the lowest that did not fail: 1.5 did."
    assert list(found.suggestion) == []


def test_integers_keep_all_their_digits() -> None:
    found = edge([500_000, 1_000_000, 2_000_000], 2_000_000)
    assert found is not None
    assert "k, 2000000, is" in found.text
    assert "Try k=1000000,2000000,4000000,8000000." in found.text


def test_a_sampled_axis_of_integers_goes_on_in_integers() -> None:
    found = edge([3 * i + 10 for i in range(20)], 67)
    assert found is not None
    assert all(isinstance(v, int) for v in found.suggestion)


def test_values_inside_that_are_tied_leave_it_open() -> None:
    jobs = [
        outcome(loss + noise, varies={"k": k}, seed=i)
        for k, loss in ((1, 2.0), (2, 1.001), (3, 1.0))
        for i, noise in enumerate((-0.01, 0.0, 0.01))
    ]
    (found,) = edges(rank(jobs, "loss"), jobs)
    assert not found.conclusive
    assert "cannot be told apart" in found.text
    assert "Try k=2,3,4,5" in found.text


@pytest.mark.parametrize(
    ("losses", "suggestions"), [({2: 1.5, 4: 1.0}, [[2, 4, 8, 16]]), ({2: 1.001, 4: 1.0}, [])]
)
def test_of_two_values_the_better_one_is_an_edge_if_it_is_better_for_sure(
    losses: dict[int, float], suggestions: list[list[int]]
) -> None:
    jobs = [
        outcome(loss + noise, varies={"k": k}, seed=i)
        for k, loss in losses.items()
        for i, noise in enumerate((-0.01, 0.0, 0.01))
    ]
    found = edges(rank(jobs, "loss"), jobs)
    assert [list(one.suggestion) for one in found] == suggestions
