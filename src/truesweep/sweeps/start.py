"""Start a sweep that was asked for: check it as a whole, then make its jobs, then run them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from truesweep.runs.run import Run
from truesweep.sweeps.ask import Asked
from truesweep.sweeps.directory import ROOT, SweepDirectory
from truesweep.sweeps.executor import Executor
from truesweep.sweeps.launchers import check_compiler, check_room, describe, points_at_once
from truesweep.sweeps.overview import show_plan
from truesweep.sweeps.planned import PlannedJob, check_disk, check_objectives
from truesweep.sweeps.planning import JobMaker, SweepPlan, plan_sweep
from truesweep.sweeps.points import base_seed
from truesweep.sweeps.source import JobSource, Listed


def prepare(asked: Asked, executor: Executor | None, dry_run: bool = False) -> SweepPlan:
    """Check a sweep as a whole, and print what it will do; nothing is written.

    Args:
        asked: The sweep.
        executor: What will run its jobs, if that is ours.
        dry_run: Whether to list the jobs.

    Raises:
        UserError: Something is wrong with any of its jobs.
    """
    sweep = directory(asked)
    plan = plan_sweep(asked)
    check_objectives(plan.jobs, asked.settings)
    check_disk(_new(asked, plan, sweep), sweep.path)
    if executor is not None:
        check_room(executor, plan.jobs)
    plan = replace(plan, notes=[*plan.notes, *check_compiler(executor, plan.jobs)])
    show_plan(asked, plan, sweep, describe(executor), listed=dry_run)
    return plan


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
    sweep.ask(asked.overrides, asked.config_dirs, settings, launcher, ids)
    return sweep


def make_source(
    asked: Asked, sweep: SweepDirectory, provenance: Mapping[str, Any], plan: SweepPlan | None
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
