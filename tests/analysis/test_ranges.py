from typing import Any

import pytest

from tests.analysis.outcomes import outcome
from truesweep.analysis.ranges import Edge, edges
from truesweep.analysis.ranking import rank


def edge(values: list[Any], best: Any) -> Edge | None:
    """What is said of a sweep over a key whose best value is given."""
    jobs = [outcome(1.0 if v == best else 2.0, varies={"k": v}) for v in values]
    found = edges(rank(jobs, "loss"))
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


def test_values_inside_that_are_tied_leave_it_open() -> None:
    jobs = [
        outcome(loss + noise, varies={"k": k}, seed=i)
        for k, loss in ((1, 2.0), (2, 1.001), (3, 1.0))
        for i, noise in enumerate((-0.01, 0.0, 0.01))
    ]
    (found,) = edges(rank(jobs, "loss"))
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
    found = edges(rank(jobs, "loss"))
    assert [list(one.suggestion) for one in found] == suggestions
