"""Start a sweep that was asked for: check it as a whole, then make its jobs, then run them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.table import Table
from rich.text import Text

from truesweep import dotted
from truesweep.compat import untried_sentence
from truesweep.config.compose import Multirun
from truesweep.config.space import Space
from truesweep.errors import ConfigError
from truesweep.jobs.pausing import FORECAST
from truesweep.runs.run import Run
from truesweep.sweeps import siblings
from truesweep.sweeps.directory import ROOT, SweepDirectory
from truesweep.sweeps.disk import check_disk
from truesweep.sweeps.launchers import check_compiler, check_room, describe, points_at_once
from truesweep.sweeps.planned import PlannedJob, check_objectives
from truesweep.sweeps.planning import JobMaker, SweepPlan, base_seed, plan_sweep
from truesweep.sweeps.prior import find_prior
from truesweep.sweeps.protocols import Executor, JobSource, Listed
from truesweep.sweeps.request import Asked
from truesweep.sweeps.settings import AUTO, Pruner, Sweep
from truesweep.sweeps.summary import check_dashboard
from truesweep.terminal import console, warn
from truesweep.text import count, counts, short_names, value, values


def prepare(
    asked: Asked, executor: Executor | None, dry_run: bool = False, silent: bool = False
) -> SweepPlan:
    """Check a sweep as a whole, and print what it will do; nothing is written.

    Args:
        asked: The sweep.
        executor: What will run its jobs, if that is ours.
        dry_run: Whether to list the jobs.
        silent: Print nothing.

    Raises:
        UserError: Something is wrong with any of its jobs.
    """
    sweep = directory(asked)
    plan = decide(asked, plan_sweep(asked, together=executor is not None), executor is not None)
    asked = as_decided(asked, plan)
    check_objectives(plan.jobs, asked.settings)
    check_dashboard(asked.settings, plan.jobs[0].config)
    check_disk(_new(asked, plan, sweep), sweep.path)
    if executor is not None:
        check_room(executor, plan.jobs)
    more = [*_shared(asked, plan), *check_compiler(executor, plan.jobs)]
    more += _settling(asked, executor is not None)
    plan = replace(plan, notes=[*plan.notes, *more])
    if not silent:
        show_plan(asked, plan, sweep, describe(executor), listed=dry_run)
    return plan


def _settling(asked: Asked, ours: bool) -> list[str]:
    """What follows a sweep whose leaders cannot be told apart.

    Args:
        asked: The sweep.
        ours: Whether its jobs are run by a launcher of ours, which can add some.
    """
    if not asked.settings.settle:
        return []
    if not ours:
        return ["others start its jobs, so truesweep duel is left to you (sweeps.settle=true)"]
    return ["leaders that it cannot tell apart are given more seeds by a duel (sweeps.settle=true)"]


def _shared(asked: Asked, plan: SweepPlan) -> list[str]:
    """What jobs of a search will share; those of other sweeps have been told of."""
    if asked.settings.method != "search" or not asked.settings.share:
        return []
    return siblings.describe(plan.jobs, asked.space, asked.settings)


TOLD = ("method", "objective", "pruner", "jobs", "seeds")
"""Settings that a plan tells as JSON."""


def plain_plan(asked: Asked, plan: SweepPlan) -> dict[str, Any]:
    """A sweep's plan as values for JSON; of a search, some of the jobs that it may come to."""
    sweep = directory(asked)
    jobs = [
        {
            "id": job.id,
            "label": job.label,
            "varies": job.varies,
            "parameters": job.parameters,
            "steps": job.steps,
            "tokens": job.tokens,
            "devices": job.devices,
            "nodes": job.nodes,
            "there": sweep.find(job.config) is not None,
            "warnings": job.warnings,
        }
        for job in plan.jobs
    ]
    kept = {key: getattr(asked.settings, key) for key in TOLD}
    where = str(ROOT / asked.name)
    return {"name": asked.name, "directory": where, **kept, "notes": plan.notes, "jobs": jobs}


def _new(asked: Asked, plan: SweepPlan, sweep: SweepDirectory) -> list[PlannedJob]:
    """The jobs that will need room; of a search as many of the biggest as it may come to."""
    if asked.settings.method == "search":
        jobs = (asked.settings.jobs or 0) * len(asked.settings.seed_list(0))
        left = jobs - len(sweep.jobs())  # those that are there have their room
        return [max(plan.jobs, key=lambda job: job.disk)] * left
    return [job for job in plan.jobs if sweep.find(job.config) is None]


def directory(asked: Asked) -> SweepDirectory:
    """Where a sweep lies, whether or not it is there."""
    return SweepDirectory((ROOT / asked.name).absolute())


def add_jobs(
    sweep: SweepDirectory, jobs: Sequence[PlannedJob], provenance: Mapping[str, Any]
) -> list[Run]:
    """Directories for planned jobs; those that have one keep it."""
    number = len(sweep.jobs())
    added = []
    for planned in jobs:
        new = sweep.find(planned.config) is None
        added.append(planned.add_to(sweep, number, provenance))
        number += new
    return added


def record(asked: Asked, launcher: Mapping[str, Any], plan: SweepPlan | None) -> SweepDirectory:
    """Note in a sweep's directory what was asked and is planned: it can be resumed from there.

    Args:
        asked: The sweep.
        launcher: Hydra's launcher node, resolved.
        plan: Its jobs; None where another sweeper chooses them.

    Raises:
        ConfigError: Nothing declares the direction of its objective.
    """
    sweep = directory(asked)
    settings = replace(asked.settings, direction=asked.settings.directions)
    listed = plan is not None and asked.settings.method != "search"
    ids = [job.id for job in plan.jobs] if plan is not None and listed else []
    origins = _origins(asked, settings, launcher)
    sweep.ask(asked.overrides, asked.config_dirs, settings, launcher, ids, origins)
    return sweep


def _origins(asked: Asked, settings: Sweep, launcher: Mapping[str, Any]) -> dict[str, str]:
    """Where a sweep's name, its settings and its launcher's come from; the others are defaults."""
    told = asked.multirun.origins.told
    node = dotted.flatten({"sweeps": asdict(settings)})
    found = told(node, {f"sweeps.{key}": value for key, value in asked.multirun.node.items()})
    found |= told({"name": asked.name}, {"name": asked.multirun.fixed.get("name")})
    found["study"] = "from the name"
    return found | launcher_origins(asked.multirun, asked.overrides) if launcher else found


def launcher_origins(multirun: Multirun, overrides: Sequence[str]) -> dict[str, str]:
    """Where the settings of a launcher come from, by the keys of `sweep.yaml`.

    Args:
        multirun: What chooses it.
        overrides: The same as it was typed.
    """
    places = multirun.origins.told(dotted.flatten({"hydra": {"launcher": multirun.launcher}}), {})
    found = {key.removeprefix("hydra."): where for key, where in places.items()}
    if any(line.lstrip("+").startswith("hydra/launcher=") for line in overrides):
        found["launcher._target_"] = "command line"
    return found


def make_source(
    asked: Asked,
    sweep: SweepDirectory,
    provenance: Mapping[str, Any],
    plan: SweepPlan | None,
) -> JobSource:
    """Where the jobs come from: all at once, or one by one from a search.

    Args:
        asked: The sweep.
        sweep: Its directory.
        provenance: Where the jobs' numbers will come from, but for the data.
        plan: The jobs of a grid or of random points; None: they have directories.
    """
    if asked.settings.method == "search":
        from truesweep.sweeps.study import Search

        make = JobMaker(asked, sweep, provenance)
        limit = points_at_once(asked.settings, sweep.launcher)
        return Search(sweep, asked.space, asked.settings, make, base_seed(asked), limit)
    return Listed(sweep.jobs() if plan is None else add_jobs(sweep, plan.jobs, provenance))


# -- what is left to the plan ----------------------------------------------------------------------

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


def decide(asked: Asked, plan: SweepPlan, ours: bool) -> SweepPlan:
    """The plan of a sweep with what its settings leave to it: a search's pruner and its start.

    Args:
        asked: The sweep.
        plan: Its plan.
        ours: Whether our driver runs the jobs, and so can pause them.

    Raises:
        ConfigError: A pruner was asked for that cannot work.
    """
    settings, sweep = asked.settings, directory(asked)
    if settings.method != "search":
        return plan
    pruning = choose_pruner(sweep, settings, plan.jobs, ours)
    decided: dict[str, Any] = {"pruner": pruning.pruner}
    notes = [*plan.notes, *pruning.notes]
    if settings.start == "prior":
        found = find_prior(sweep, plan.jobs)
        decided["start"] = found.point
        notes.append(found.text)
    return replace(plan, decided=decided, notes=notes)


def as_decided(asked: Asked, plan: SweepPlan) -> Asked:
    """A sweep with what its plan has decided."""
    return replace(asked, settings=replace(asked.settings, **plan.decided))


# -- what a sweep is about to do -------------------------------------------------------------------

LISTED = 40
"""Jobs that are listed by a dry run."""


def show_plan(
    asked: Asked, plan: SweepPlan, sweep: SweepDirectory, place: str, listed: bool
) -> None:
    """Print a sweep's plan.

    Args:
        asked: The sweep.
        plan: Its jobs.
        sweep: Its directory, which may not exist.
        place: Where the jobs will run.
        listed: Whether to name each job.
    """
    out = console()
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    table.add_row("sweep", asked.name)
    table.add_row("jobs", _jobs(asked, plan, sweep))
    for index, line in enumerate(_axes(asked.space)):
        table.add_row("varies" if index == 0 else "", line)
    if asked.settings.seeds != 1:
        table.add_row("", f"seed: {asked.settings.seeds} for each point")
    table.add_row("model", f"{_span([job.parameters for job in plan.jobs])} parameters")
    table.add_row("training", _training(asked, plan.jobs))
    table.add_row("runs on", place)
    for note in plan.notes:
        table.add_row("note", note)
    out.print(table)
    warnings = (line for job in plan.jobs for line in job.warnings)
    warn(dict.fromkeys((*untried_sentence(), *warnings)))
    if listed and asked.settings.method != "search":
        for job in plan.jobs[:LISTED]:
            out.print(Text.assemble("  ", (job.id, "dim"), f"  {job.label}"), soft_wrap=True)
        if len(plan.jobs) > LISTED:
            out.print(f"  … and {len(plan.jobs) - LISTED} more")


PRUNED = {
    **{name: f"pruned by {name}" for name in ("median", "halving", "hyperband")},
    FORECAST: "paused by forecasts",
}
"""What becomes of a search's points, by its pruner."""


def _jobs(asked: Asked, plan: SweepPlan, sweep: SweepDirectory) -> str:
    settings = asked.settings
    if settings.method == "search":
        budget = [f"{settings.jobs} points"] if settings.jobs else []
        budget += [f"{value(settings.hours)} hours"] if settings.hours else []
        pruner = f" and {PRUNED[settings.pruner]}" if settings.pruner in PRUNED else ""
        aims = ", ".join(
            f"{direction} {name}"
            for name, direction in zip(settings.objectives, settings.directions, strict=True)
        )
        return f"{' or '.join(budget)}, chosen by {settings.sampler}{pruner}, to {aims}"
    states = Counter("new" if sweep.find(job.config) is None else "old" for job in plan.jobs)
    known = f", {states['old']} of them there already" if states["old"] else ""
    devices = sorted({(job.devices, job.nodes) for job in plan.jobs})
    on = [f"{d} device{'s' * (d > 1)}" + f" on {n} nodes" * (n > 1) for d, n in devices]
    each = f" of {' or '.join(on)}" if devices != [(1, 1)] else ""
    return f"{len(plan.jobs)}{each}{known}"


def _axes(space: Space) -> list[str]:
    lines = []
    for axes in space.dimensions:
        names = short_names([axis.name for axis in space.axes])
        shown = []
        for axis in axes:
            each = values(axis.values)
            listed = ", ".join(each if len(each) <= 12 else [*each[:5], "…", each[-1]])
            between = listed if each else f"{value(axis.low, None)} to {value(axis.high, None)}"
            shown.append(f"{names[axis.name]}: {between}{' (log)' * (axis.log and not each)}")
        lines.append(", with ".join(shown))
    return lines


def _training(asked: Asked, jobs: Sequence[PlannedJob]) -> str:
    steps = f"{_span([job.steps for job in jobs])} steps"
    tokens = f"{_span([job.tokens for job in jobs])} tokens a job"
    if asked.settings.method == "search":
        return f"{steps}, {tokens}"
    return f"{steps}, {tokens}, {count(sum(job.tokens for job in jobs))} tokens in all"


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return " to ".join(dict.fromkeys(counts([low, high])))
