"""What a sweep says of itself: a page that grows with it; at its end words, also to its loggers."""

import hashlib
import logging
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from truesweep.errors import ConfigError, UserError
from truesweep.figures import written
from truesweep.jobs.loggers import finish, make_loggers, wandb_key
from truesweep.record.dashboard import MISSING, Dashboard, is_available
from truesweep.record.loggers import RunInfo
from truesweep.report import compare, write_report
from truesweep.report.comparison import Comparison
from truesweep.report.findings import DUEL, Finding, findings
from truesweep.report.varying import setting
from truesweep.runs.run import UNREADABLE, Run
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.display import Display
from truesweep.sweeps.settings import Sweep
from truesweep.text import number, value

log = logging.getLogger(__name__)

SECONDS_PER_PAGE = 30.0
"""The least time between two writes of `report.html` while jobs run."""
SHARE_OF_TIME = 20
"""Nor is more than one part in so many of the time spent on it."""
LEADING = 10
"""Runs that are listed on the dashboard."""
MAGNITUDE = 10
"""A swept key whose values differ by this factor has a logarithmic axis."""


class Page:
    """Keeps `report.html` current from a thread of its own, so that no slot waits for it.

    Args:
        sweep: The sweep's directory.
    """

    def __init__(self, sweep: SweepDirectory) -> None:
        self.sweep = sweep
        self._thread: threading.Thread | None = None
        self._due = time.monotonic() + SECONDS_PER_PAGE

    def refresh(self) -> None:
        """Write it again if it is time."""
        if time.monotonic() < self._due or (self._thread and self._thread.is_alive()):
            return
        self._thread = threading.Thread(target=self.write, daemon=True)
        self._thread.start()

    def write(self) -> None:
        """Write it now."""
        began = time.monotonic()
        try:
            write_report(compare([self.sweep.path], None), self.sweep.report)
        except Exception as error:  # a page that cannot be drawn must not end a sweep
            log.warning("%s could not be written: %s", self.sweep.report, error)
        took = time.monotonic() - began
        self._due = time.monotonic() + max(SECONDS_PER_PAGE, SHARE_OF_TIME * took)

    def finish(self) -> None:
        """Wait for a page that is being written."""
        if self._thread is not None:
            self._thread.join()


def sum_up(sweep: SweepDirectory, display: Display, winner: bool = True) -> None:
    """Say what was learned, here and to the loggers; whatever comes of that, the jobs are done.

    Args:
        sweep: The sweep's directory.
        display: Where it is said.
        winner: Whether it is said who leads; a duel says so itself.
    """
    try:
        left_out = () if winner else (DUEL,)
        found = [(one.title, one.text) for one in conclude(sweep) if one.title not in left_out]
    except Exception as error:
        if not isinstance(error, UserError):
            log.exception("the sweep could not be summed up")
        text = f"could not be summed up ({type(error).__name__}: {error}); the jobs are done"
        display.event(text, important=True)
    else:
        display.findings(found, sweep.report)


def conclude(sweep: SweepDirectory) -> list[Finding]:
    """Write the final page and the loggers' summary; gives what there is to say."""
    comparison = compare([sweep.path], None)
    write_report(comparison, sweep.report)
    found = findings(comparison)
    tell_loggers(sweep, comparison, found)
    link_records(sweep)
    return found


def link_records(sweep: SweepDirectory) -> None:
    """Let the sweep's `wandb/` lead to its jobs' records, as `wandb leet` opens one folder."""
    folder = sweep.path / "wandb"
    for record in sweep.path.glob("*/wandb/*run-*"):
        link = folder / record.name
        if record.is_symlink() or link.is_symlink():
            continue
        folder.mkdir(exist_ok=True)
        link.symlink_to(Path(os.path.relpath(record, folder)), target_is_directory=True)
    for link in folder.glob("*run-*"):
        if link.is_symlink() and not link.exists():  # of a record that a resumed job replaced
            link.unlink()


def tell_loggers(sweep: SweepDirectory, comparison: Comparison, found: list[Finding]) -> None:
    """A run of the sweep's group that holds its ranking, and tells the user of its end."""
    jobs = sweep.jobs()
    config = _first_config(jobs)
    if config is None:
        return
    info = RunInfo(
        directory=sweep.path,
        id=_summary_id(sweep, jobs[0]),
        name=sweep.name,
        config={"sweeps": sweep.read()["sweeps"]},
        label="summary",
        group=sweep.name,
        job_type="summary",
    )
    loggers = make_loggers(config, info)
    columns = ["rank", "run", "state", *comparison.keys, comparison.objective.name]
    rows = [_ranked(comparison, run) for run in comparison.runs]
    text = "\n".join(f"{one.title}: {one.text}" for one in found) or "No job has ended."
    for logger in loggers:
        logger.log_table("ranking", columns, rows)
        if sweep.settings.dashboard is not False:
            logger.log_dashboard(dashboard(sweep, jobs, comparison, found))
        logger.alert(f"Sweep {sweep.name} has ended", text, "INFO")
    best = comparison.runs[0] if comparison.runs else None
    reached = comparison.objective.of(best) if best else None
    finish(loggers, {f"best/{comparison.objective.name}": reached, "findings": text}, exit_code=0)


def _first_config(jobs: Sequence[Run]) -> dict[str, Any] | None:
    """What the first job asks of its loggers, of those whose configuration can be read."""
    for job in jobs:
        with suppress(*UNREADABLE):
            return job.read_config()
    return None


def check_dashboard(settings: Sweep, config: dict[str, Any]) -> None:
    """Make sure that there can be a dashboard, where one is asked for.

    Args:
        settings: The sweep's.
        config: One of its jobs'.

    Raises:
        ConfigError: Its package is missing, or the runs are not logged to W&B.
    """
    if not settings.dashboard:
        return
    if not is_available():
        raise ConfigError(f"sweeps.dashboard=true: {MISSING}, or set sweeps.dashboard=false")
    if wandb_key(config) is None:
        raise ConfigError(
            "sweeps.dashboard=true: is of W&B's, and the runs are not logged there; set "
            "logger=wandb, or sweeps.dashboard=false"
        )


def dashboard(
    sweep: SweepDirectory, jobs: Sequence[Run], comparison: Comparison, found: Sequence[Finding]
) -> Dashboard:
    """What the sweep's workspace on W&B shows."""
    values: dict[str, list[Any]] = {}
    for job in jobs:
        for name, one in (job.place.get("swept") or {}).items():
            values.setdefault(name, []).append(one)
    curves = {name for run in comparison.runs for name in run.history.curves}
    return Dashboard(
        name=sweep.name,
        objectives=dict(sweep.settings.modes),
        swept={name: _is_log(each) for name, each in values.items()},
        curves=sorted(curves),
        runs=len(jobs),
        text=_in_markdown(comparison, found),
    )


def _is_log(column: Sequence[Any]) -> bool:
    """Whether values are numbers of different magnitudes."""
    known = [one for one in map(number, column) if one is not None]
    return len(known) == len(column) and min(known) > 0 and max(known) >= MAGNITUDE * min(known)


def _in_markdown(comparison: Comparison, found: Sequence[Finding]) -> str:
    """What was learned, and the leading runs."""
    objective = comparison.objective
    lines = [["rank", "run", *comparison.short.values(), objective.name]]
    lines.append(["---"] * len(lines[0]))
    for run in comparison.runs[:LEADING]:
        settings = [value(setting(run, key)) for key in comparison.keys]
        reached = written(objective.name, objective.of(run), comparison.declared)
        lines.append([str(comparison.rank(run) or ""), run.id, *settings, reached])
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return "\n\n".join([*(f"**{one.title}**: {one.text}" for one in found), table])


def _summary_id(sweep: SweepDirectory, first: Run) -> str:
    """W&B's id of a sweep's summary, which belongs to this directory as its first job's does."""
    own = first.status.get("wandb_id", first.id)
    return hashlib.sha256(f"{sweep.name} {own}".encode()).hexdigest()[:16]


def _ranked(comparison: Comparison, run: Any) -> list[Any]:
    values = [setting(run, key) for key in comparison.keys]
    shown = [v if isinstance(v, int | float | str | None) else str(v) for v in values]
    return [comparison.rank(run), run.id, run.state, *shown, comparison.objective.of(run)]
