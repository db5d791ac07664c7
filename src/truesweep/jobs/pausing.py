"""A search that pauses its jobs, as its study tells of them; `analysis/thaw.py` decides.

A job that may be paused reports every validation to the study and asks at its rungs whether it is
still the one to go on with. The search's driver asks the same when there is room for a job.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from truesweep.analysis.curves import Curve
from truesweep.analysis.thaw import Trial, choose, finals
from truesweep.optim.schedules import Schedule
from truesweep.record.study import PAUSED

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

FORECAST: Final = "forecast"
"""The pruner that pauses."""
STEPS, RATES = "steps", "rates"
"""Attributes of trials: the steps of the whole training, and its rates over their peak."""
KEPT = 200
"""Rates that are kept of a training, at even distances."""


def describe_rates(schedule: Schedule, total_steps: int) -> dict[str, Any]:
    """What a trial is given of a job's schedule."""
    kept = np.linspace(0, total_steps - 1, min(total_steps, KEPT)).round()
    factors = [round(schedule.factor(int(step), total_steps), 5) for step in kept]
    return {STEPS: total_steps, RATES: factors}


def is_to_pause(trials: Sequence["FrozenTrial"], number: int, *, first: int, sign: float) -> bool:
    """Whether a job that has just reported a validation leaves its place to another one.

    Args:
        trials: The study's.
        number: The job's trial.
        first: Steps between rungs; 0: a share of the training.
        sign: 1 where less of the objective is better, else -1.
    """
    known = board(trials, sign)
    mine = known[number]
    if len(mine.curve) == 0 or mine.ended or not mine.is_rung(first):
        return False
    if mine.is_first_rung(first):  # until every point has begun, and its forecast says something
        return True
    return choose(known, {*paused(trials), number}, first) != number


def thawed(
    trials: Sequence["FrozenTrial"], ready: Collection[int], *, first: int, sign: float
) -> int | None:
    """Which paused trial is to go on; None if none is worth it any more.

    Args:
        trials: The study's.
        ready: Those that wait, by their numbers.
        first: Steps between rungs; 0: a share of the training.
        sign: 1 where less of the objective is better, else -1.
    """
    return choose(board(trials, sign), ready, first)


def paused(trials: Sequence["FrozenTrial"]) -> set[int]:
    """The trials that wait."""
    return {t.number for t in trials if not t.state.is_finished() and t.user_attrs.get(PAUSED)}


def forecasts(trials: Sequence["FrozenTrial"], sign: float) -> dict[int, float]:
    """What is forecast of each trial that has reported and not ended, by its number.

    It is infinitely bad where the last report was no number.
    """
    known = board(trials, sign)
    expected = finals(known)
    return {
        number: sign * (expected[number].value if number in expected else np.inf)
        for number, one in known.items()
        if not one.ended
    }


def as_forecast(trials: Sequence["FrozenTrial"], sign: float) -> list["FrozenTrial"]:
    """The trials, those that wait as if they had ended with the value that is forecast."""
    from optuna.trial import TrialState, create_trial

    waiting, values = paused(trials), forecasts(trials, sign)
    return [
        create_trial(
            state=TrialState.COMPLETE,
            value=values[trial.number],
            params=trial.params,
            distributions=trial.distributions,
        )
        if trial.number in waiting and np.isfinite(values.get(trial.number, np.inf))
        else trial
        for trial in trials
    ]


def board(trials: Sequence["FrozenTrial"], sign: float) -> dict[int, Trial]:
    """What is known of each training that has reported anything."""
    return {
        trial.number: _trial(trial.intermediate_values, trial.user_attrs, sign)
        for trial in trials
        if trial.intermediate_values
        and RATES in trial.user_attrs
        and trial.state.name in ("RUNNING", "COMPLETE")
    }


def _trial(values: Mapping[int, float], about: Mapping[str, Any], sign: float) -> Trial:
    steps = np.array(sorted(values), np.int64)
    total, rates = int(about[STEPS]), np.array(about[RATES], np.float64)
    known = np.linspace(0, total - 1, len(rates)).round()
    curve = Curve(steps, sign * np.array([values[step] for step in steps], np.float64))
    return Trial(curve, np.interp(np.arange(total), known, rates))
