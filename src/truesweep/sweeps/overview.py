"""What a sweep is about to do, before anything is spent."""

from collections import Counter
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from truesweep.compat import untried_sentence
from truesweep.config.space import Space
from truesweep.sweeps.ask import Asked
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.planned import PlannedJob
from truesweep.sweeps.planning import SweepPlan
from truesweep.terminal import console, warn
from truesweep.text import count, counts, short_names, value, values

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


def _jobs(asked: Asked, plan: SweepPlan, sweep: SweepDirectory) -> str:
    settings = asked.settings
    if settings.method == "search":
        budget = [f"{settings.jobs} points"] if settings.jobs else []
        budget += [f"{value(settings.hours)} hours"] if settings.hours else []
        pruner = f", pruned by {settings.pruner}" if settings.pruner else ""
        aims = ", ".join(
            f"{direction} {name}"
            for name, direction in zip(settings.objectives, settings.directions, strict=True)
        )
        return f"{' or '.join(budget)}, chosen by {settings.sampler}{pruner} to {aims}"
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
            between = listed if each else f"{value(axis.low)} to {value(axis.high)}"
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
