import numpy as np
import pytest

from truesweep.analysis.curves import Curve
from truesweep.analysis.thaw import Trial, choose, finals
from truesweep.optim.schedules import Cosine

TOTAL, EVERY = 200, 20
RATES = np.array([Cosine().factor(step, TOTAL) for step in range(TOTAL)])
DONE = np.cumsum(RATES)


def loss(step: int, end: float, height: float = 0.0) -> float:
    """A curve of the form that is fitted, which comes to `end` when the rate is zero."""
    power = (DONE[step - 1] / DONE[-1]) ** -0.5 - 1
    return float(end + 0.1 * power + height * (RATES[step - 1] - RATES[-1]))


def trial(upto: int, end: float, height: float = 0.0) -> Trial:
    steps = np.arange(EVERY, upto + 1, EVERY)
    return Trial(Curve(steps, np.array([loss(int(s), end, height) for s in steps])), RATES)


@pytest.mark.parametrize("upto", [100, 120])
def test_the_schedule_does_not_fool_a_forecast(upto: int) -> None:
    """The higher rate is behind until it decays; raw losses say the opposite of the end."""
    high, low = trial(upto, 2.0, height=0.1), trial(upto, 2.02)
    assert high.curve.last > low.curve.last
    forecast = finals({0: high, 1: low, 2: trial(TOTAL, 2.5)})
    assert forecast.keys() == {0, 1}
    assert forecast[0].value < forecast[1].value
    assert forecast[0].value == pytest.approx(2.0, abs=0.02)


@pytest.mark.parametrize("upto", [20, 40, 60])
def test_what_others_fell_tells_more_than_a_few_noisy_values(upto: int) -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, (9, TOTAL // EVERY))

    def noisy(one: Trial, index: int) -> Trial:
        values = one.curve.values + 0.3 * (one.curve.steps < 40) + noise[index, : len(one.curve)]
        return Trial(Curve(one.curve.steps, values), RATES)

    begun = {key: noisy(trial(upto, 2.0 + 0.05 * key), key) for key in range(8)}
    alone = finals(begun)
    beside = finals(begun | {8: noisy(trial(TOTAL, 2.2), 8)})
    missed, left = (
        [abs(one[key].value - 2.0 - 0.05 * key) for key in begun] for one in (alone, beside)
    )
    assert 2 * np.mean(left) < np.mean(missed)
    assert np.mean(left) < 0.03


def test_others_that_differ_among_themselves_say_little() -> None:
    late = {key: trial(TOTAL, 2.0 + 0.1 * key, height=0.4 * key) for key in range(3)}
    one, two = finals({9: trial(40, 2.0), 0: late[0]})[9], finals({9: trial(40, 2.0)} | late)[9]
    assert one.value - one.low < two.value - two.low


def test_a_forecast_becomes_surer_and_never_worse_than_what_was_reached() -> None:
    margins = [
        (one := finals({0: trial(upto, 2.0), 1: trial(40, 2.5)})[0]).value - one.low
        for upto in (20, 60, 120, 180)
    ]
    assert margins == sorted(margins, reverse=True)
    rising = Trial(Curve(np.array([20, 40]), np.array([1.0, 3.0])), RATES)
    assert finals({0: rising})[0].value <= 1.0


def replay(ends: dict[int, float], heights: dict[int, float]) -> tuple[list[int], dict[int, int]]:
    """Every training begins; then those go on that are chosen. The order, and the steps of each."""
    steps = dict.fromkeys(ends, EVERY)
    order: list[int] = []
    while True:
        known = {key: trial(steps[key], ends[key], heights[key]) for key in ends}
        chosen = choose(known, [key for key in ends if not known[key].ended], EVERY)
        if chosen is None:
            return order, steps
        order.append(chosen)
        steps[chosen] += EVERY


def test_the_best_is_trained_to_its_end_at_a_fraction_of_the_steps() -> None:
    ends = {key: 2.0 + 0.05 * key for key in range(12)}
    heights = {key: 0.02 * (12 - key) for key in range(12)}
    firsts = {key: loss(EVERY, ends[key], heights[key]) for key in ends}
    assert min(firsts, key=lambda key: firsts[key]) == 0
    order, steps = replay(ends, heights)
    assert steps[0] == TOTAL
    assert sum(steps.values()) < 0.35 * 12 * TOTAL
    assert replay(ends, heights) == (order, steps)


def test_one_that_waits_goes_on_when_the_leader_disappoints() -> None:
    leader = Trial(Curve(np.array([20, 40]), np.array([2.2, 2.0])), RATES)
    waits = Trial(Curve(np.array([20]), np.array([2.3])), RATES)
    assert choose({7: leader, 4: waits}, [7, 4]) == 7
    stuck = Trial(Curve(np.arange(20, 161, 20), np.array([2.4, *[2.3] * 7])), RATES)
    assert choose({7: stuck, 4: waits}, [7, 4]) == 4
    assert choose({7: stuck, 4: waits}, [7]) == 7


def test_what_learns_late_is_not_given_up_at_once() -> None:
    """On a plateau no forecast tells anything: a third goes on, before one that ended decides."""
    flat = np.array([2.08, 2.08])
    begun = {key: Trial(Curve(np.array([10, 20]), flat + 0.001 * key), RATES) for key in range(9)}
    ended = {9: Trial(Curve(np.array([100, TOTAL]), flat - 0.01), RATES)}
    assert choose(begun | ended, begun, EVERY) == 0
    late = np.arange(20, 181, 20), np.full(9, 2.08)
    further = {key: Trial(Curve(*late), RATES) for key in range(4)}
    assert choose(begun | further | ended, further, EVERY) is None


def test_nothing_goes_on_that_cannot_beat_what_has_ended() -> None:
    ended, late = trial(TOTAL, 1.9), trial(160, 2.0)
    assert choose({0: ended, 1: late}, [1]) is None
    assert choose({0: trial(TOTAL, 2.1), 1: late}, [1]) == 1
    assert choose({}, []) is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_has_diverged_waits_for_good(value: float) -> None:
    diverged = Trial(Curve(np.array([20, 40]), np.array([2.0, value])), RATES)
    assert choose({0: diverged, 1: trial(40, 3.0)}, [0, 1]) == 1
    assert choose({0: diverged}, [0]) is None


def test_a_score_that_grows_is_forecast_with_its_sign_turned() -> None:
    steps = np.array([20, 40, 60])
    good = Trial(Curve(steps, -np.array([0.1, 0.5, 0.6])), RATES)
    bad = Trial(Curve(steps, -np.array([0.1, 0.12, 0.13])), RATES)
    assert choose({0: bad, 1: good}, [0, 1]) == 1


def test_rungs_are_the_first_validations_after_a_slice() -> None:
    for upto, every, rung in ((20, 0, True), (20, 30, False), (40, 30, True), (60, 30, True)):
        assert trial(upto, 2.0).is_rung(every) is rung
    assert [trial(upto, 2.0).rung(30) for upto in (20, 40, 60)] == [0, 1, 2]
