"""Whether a search pauses its points by forecasts: what `sweeps.pruner=auto` comes to."""

from collections.abc import Sequence
from dataclasses import dataclass

from truesweep.errors import ConfigError
from truesweep.jobs.pausing import FORECAST
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.planned import PlannedJob
from truesweep.sweeps.settings import AUTO, Pruner, Sweep

SLICES = 5
"""The fewest slices of a training, each up to a validation, by which forecasts save half."""
WANTED = 20
"""Validations of a training that are proposed."""
PAUSED = (
    "every point is begun and then waits; those go on whose forecast of {objective} leads, until "
    "one that has ended is better than the others may hope for (sweeps.pruner=null trains every "
    "point to its end)"
)
AS_BEFORE = (
    "every point is trained to its end, as it was when this search began; sweeps.pruner=forecast "
    "would let those wait that fall behind"
)


@dataclass(frozen=True)
class Pruning:
    """How a search ends jobs early, and why.

    Args:
        pruner: The pruner; None: every job is trained to its end.
        notes: The same in words, where it has to be said.
    """

    pruner: Pruner | None
    notes: list[str]


def choose_pruner(
    sweep: SweepDirectory, settings: Sweep, jobs: Sequence[PlannedJob], ours: bool
) -> Pruning:
    """What a search's pruner is, `auto` decided: forecasts wherever they can work.

    A search that has begun keeps the pruner that it has, by whatever version it was begun.

    Args:
        sweep: The search's directory, which need not exist.
        settings: The search's.
        jobs: Some that it may come to.
        ours: Whether our driver runs the jobs, and so can pause them.

    Raises:
        ConfigError: Forecasts were asked for, and cannot work.
    """
    obstacle = settings.against_forecasts or _obstacle(settings, jobs, ours)
    pruner, begun = settings.pruner, False
    if pruner == FORECAST and obstacle:
        raise ConfigError(obstacle)
    if pruner == AUTO:
        begun = sweep.asked.is_file() and sweep.settings.method == "search"
        pruner = sweep.settings.pruner if begun else FORECAST
        if pruner == FORECAST and (obstacle := obstacle or _too_rare(settings, jobs)):
            return Pruning(None, [f"no point is paused, each is trained to its end: {obstacle}"])
    if pruner == FORECAST:
        return Pruning(pruner, [PAUSED.format(objective=settings.objectives[0])])
    return Pruning(pruner, [AS_BEFORE] if begun and pruner is None else [])


def _obstacle(settings: Sweep, jobs: Sequence[PlannedJob], ours: bool) -> str | None:
    """Why these jobs cannot be paused by forecasts; None: they can."""
    if not ours:
        return (
            "sweeps.pruner=forecast: only our own launchers can pause jobs and go on with them; "
            "take hydra/launcher=local, slurm or ray, or set sweeps.pruner=null"
        )
    name = settings.objectives[0]
    if any(name in job.late for job in jobs):
        return (
            f"sweeps.objective={name}: is known at the end only, and sweeps.pruner=forecast "
            "compares jobs before"
        )
    return None


def _too_rare(settings: Sweep, jobs: Sequence[PlannedJob]) -> str | None:
    """Why forecasts would come too late to save much; None: they do not."""
    for job in jobs:
        if job.steps < SLICES * max(job.validate_every, settings.pruner_warmup):
            return (
                f"{job.label or 'a job'} could wait for the first time after "
                f"{max(job.validate_every, settings.pruner_warmup):,} of {job.steps:,} steps; set "
                f"trainer.val_check_interval={max(1, job.steps // WANTED)}, say"
            )
    return None
