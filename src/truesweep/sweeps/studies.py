"""The studies of one search: a space that Optuna takes for another one gets a study of its own.

Numbers may get other bounds and a space may get further keys, but a study's choices stay as they
are. The first study has the sweep's name. A later one inherits what the others know of its points.
"""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from truesweep.errors import ConfigError
from truesweep.jobs.pausing import RATES, STEPS
from truesweep.sweeps.sampling import Dimensions
from truesweep.sweeps.settings import Sweep

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

NOTE, DRIVER, JOBS = "note", "driver", "jobs"
"""Attributes of trials: why one led to no job, whose it is, and the ids of its jobs."""
MISSING, AGAIN, ORIGIN = "missing", "again", "origin"
"""Further ones: the figure that its results lack, whose number a trial goes on for that has failed,
and which trial of another study it is."""
KEPT = (JOBS, MISSING, STEPS, RATES)
"""Attributes that a trial keeps in another study."""
SWEEP = "sweep"
"""Attribute of a study that is not the search's first: the first one's name."""
RUNG = "completed_rung_"
"""How Optuna's halving begins the names of what it keeps of a trial."""


def open_study(storage: "BaseStorage", name: str, settings: Sweep) -> "Study":
    """A study, which is made if it is not there.

    Raises:
        ConfigError: It is about something else.
    """
    import optuna

    directions, about = settings.directions, settings.objectives
    study = optuna.create_study(
        study_name=name, storage=storage, directions=directions, load_if_exists=True
    )
    known = study.user_attrs.get("objectives", about)
    if known != about or [d.name.lower() for d in study.directions] != directions:
        raise ConfigError(
            f"sweeps.objective: the study {name} is about {', '.join(known)} "
            f"({', '.join(d.name.lower() for d in study.directions)}); "
            "give this search another name="
        )
    if "objectives" not in study.user_attrs:
        study.set_user_attr("objectives", about)
    return study


def study_of_space(
    storage: "BaseStorage", first: "Study", settings: Sweep, dimensions: Dimensions
) -> tuple["Study", list["Study"]]:
    """The study of a space, and the search's others."""
    name = first.study_name
    later = [s for s in storage.get_all_studies() if s.user_attrs.get(SWEEP) == name]
    known = [first, *(open_study(storage, s.study_name, settings) for s in later)]
    for study in known:
        if dimensions.suit(study.get_trials(deepcopy=False)):
            return study, [other for other in known if other is not study]
    digest = hashlib.sha256(repr(sorted(dimensions.distributions.items())).encode()).hexdigest()
    study = open_study(storage, f"{name}-{digest[:8]}", settings)
    study.set_user_attr(SWEEP, name)
    return study, known


def inherit(study: "Study", other: "Study", dimensions: Dimensions) -> int:
    """Add another study's trials that have ended, if their points lie in the space.

    Returns:
        How many points of the other study count in the budget besides those that were added.
    """
    origins = {trial.user_attrs.get(ORIGIN) for trial in study.get_trials(deepcopy=False)}
    trials = [t for t in other.get_trials(deepcopy=False) if ORIGIN not in t.user_attrs]
    added = 0
    for trial in latest_tries(trials):
        origin = f"{other.study_name}/{trial.number}"
        wanted = JOBS in trial.user_attrs and dimensions.contain(trial.params)
        if wanted and trial.state.is_finished():
            added += 1
            if origin not in origins:
                study.add_trial(_copy(trial, origin, dimensions))
    return len(counted(trials)) - added


def counted(trials: Sequence["FrozenTrial"]) -> list["FrozenTrial"]:
    """The trials that the budget counts: each point with jobs once, however often it was tried."""
    return [
        trial
        for trial in trials
        if trial.state.name != "WAITING" and not {NOTE, AGAIN} & trial.user_attrs.keys()
    ]


def latest_tries(trials: Sequence["FrozenTrial"]) -> list["FrozenTrial"]:
    """The trials that led to jobs, but for those that failed and were begun again."""
    latest = {first_try(t): t for t in trials if NOTE not in t.user_attrs}
    return list(latest.values())


def first_try(trial: "FrozenTrial") -> int:
    """The number of the trial that had a trial's point at first."""
    return int(trial.user_attrs.get(AGAIN, trial.number))


def _copy(trial: "FrozenTrial", origin: str, dimensions: Dimensions) -> "FrozenTrial":
    from optuna.trial import create_trial

    kept = {key: trial.user_attrs[key] for key in KEPT if key in trial.user_attrs}
    return create_trial(
        state=trial.state,
        values=trial.values,
        params=trial.params,
        distributions=dimensions.distributions,
        user_attrs={**kept, ORIGIN: origin},
        system_attrs={k: v for k, v in trial.system_attrs.items() if k.startswith(RUNG)},
        intermediate_values=trial.intermediate_values,
    )
