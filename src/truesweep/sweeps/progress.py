"""How far the jobs of a sweep are, read from their directories."""

import statistics
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from truesweep.analysis.outcomes import differing
from truesweep.figures import BUILT_IN, Declared, Mode, best_first, written
from truesweep.report.outcomes import measured_on
from truesweep.runs.history import History
from truesweep.runs.run import UNREADABLE, Run
from truesweep.runs.snapshot import Snapshot
from truesweep.sweeps.settings import Sweep
from truesweep.text import plural

FAILED = ("failed", "broken")
DONE = ("completed", "pruned", "paused", *FAILED)
"""States in which a job takes no more time, unless it is thawed."""


@dataclass(frozen=True)
class Row:
    """What one job has to tell.

    Args:
        id: The name of its directory.
        label: What varies.
        state: See `Run.state`.
        step: Optimizer steps done.
        total: Optimizer steps of the whole training, where known.
        loss: The latest training loss, nats.
        best: The best objective so far.
        seconds: From its start to its end, or until now; of a search's job, which may have waited
            between, those that it was trained for.
        left: Seconds of training left, where known.
        ended: When it ended, seconds since 1970; 0 before.
        error: Why it failed, or cannot be read.
        dropped: What was dropped of its checkpoints to keep to `sweeps.disk`.
    """

    id: str
    label: str
    state: str
    step: int
    total: int | None
    loss: float | None
    best: float | None
    seconds: float
    left: float | None
    ended: float
    error: str | None
    dropped: str | None = None


class Board:
    """Reads the jobs' rows, and those only again that have changed.

    Args:
        objective: The metric by which jobs are compared.
        mode: Whether less or more of it is better.
    """

    def __init__(self, objective: str, mode: Mode) -> None:
        self.objective = objective
        self.mode: Mode = mode
        self.declared: Declared = BUILT_IN  # by the first job that has the objective
        self._rows: dict[str, tuple[Any, Row]] = {}
        self._measured: dict[str, Mapping[str, str]] = {}

    @classmethod
    def of(cls, settings: Sweep) -> "Board":
        """That of a sweep; of several objectives, the first one."""
        return cls(*next(iter(settings.modes.items())))

    def rows(self, jobs: Sequence[Run], running: Collection[str] = ()) -> list[Row]:
        """A row for each job.

        Args:
            jobs: The jobs.
            running: Ids of those that are known to run.
        """
        return [self._row(job, job.id in running) for job in jobs]

    def best(self, rows: Sequence[Row]) -> Row | None:
        """The row with the best objective of all; of equals, the first.

        None where the objective of one says nothing about that of another, as in the ranking.
        """
        scored = [row for row in rows if row.best is not None]
        if differing([self._measured.get(row.id, {}) for row in scored]):
            return None
        return next(iter(best_first(scored, lambda row: row.best or 0.0, self.mode)), None)

    def written(self, row: Row) -> str:
        """A row's objective, as it is shown."""
        return written(self.objective, row.best, self.declared)

    def _row(self, job: Run, running: bool) -> Row:
        changed = (_changed(job.path / "status.json"), _changed(job.metrics))
        known = self._rows.get(job.id)
        settled = known and known[1].state not in ("running", "interrupted", "broken")
        if known and settled and known[0] == changed:
            return known[1]
        try:
            row = self._read(job, running)
        except UNREADABLE as error:
            row = _broken(job, str(error))
        self._rows[job.id] = changed, row
        if row.best is not None and job.id not in self._measured:
            self._take_note(job)
        return row

    def _take_note(self, job: Run) -> None:
        """Keep what a job's objective depends on besides its training, and what is declared."""
        self._measured[job.id] = {}
        with suppress(*UNREADABLE):
            config, results = job.read_config(), job.read_results()
            known = Snapshot(job, config, {}, results, {}, job.read_provenance(), History())
            self._measured[job.id] = measured_on(known, self.objective)
            if self.declared is BUILT_IN:
                self.declared = known.figures

    def _read(self, job: Run, running: bool) -> Row:
        if (problem := job.problem) is not None:
            return _broken(job, problem)
        status = job.status
        state = "running" if running and status.get("state") == "running" else job.state
        logged = job.read_metrics() if state != "queued" else []
        trained = (row for row in reversed(logged) if "train/loss" in row)
        latest: dict[str, Any] = next(trained, {})
        step = max(int(status.get("step", 0)), int(latest.get("step", 0)))
        total = _total(job, status) if state not in ("queued", "completed") else step
        started, ended = _time(status.get("started")), _time(status.get("finished"))
        seconds = (ended or datetime.now(UTC).timestamp()) - started if started else 0.0
        if logged and job.place.get("trial"):  # which a search may have let wait between
            seconds = float(logged[-1].get("time", seconds))
        return Row(
            id=job.id,
            label=job.label,
            state=state,
            step=step,
            total=total,
            loss=latest.get("train/loss"),
            best=job.objective(self.objective, self.mode),
            seconds=seconds,
            left=_left(step, total, latest) if state == "running" else None,
            ended=ended,
            error=status.get("error"),
            dropped=status.get("dropped"),
        )


def seconds_left(rows: Sequence[Row], planned: int) -> float | None:
    """An estimate for the whole sweep, from the first finished job on.

    Args:
        rows: A row a job.
        planned: Jobs that there will be.
    """
    finished = [row.seconds for row in rows if row.state == "completed"]
    if not finished:
        return None
    usual = statistics.fmean(finished)
    running = [row for row in rows if row.state == "running"]
    to_come = max(planned, len(rows)) - sum(row.state in DONE for row in rows) - len(running)
    of_running = sum(max(usual - row.seconds, row.left or 0.0, 0.0) for row in running)
    return (of_running + to_come * usual) / max(len(running), 1)


def counts(rows: Sequence[Row], planned: int) -> str:
    """How many jobs are in which state, such as `24 jobs: 3 completed, 2 running, 19 queued`."""
    by_state = Counter(row.state for row in rows)
    by_state["queued"] += max(planned - len(rows), 0)
    order = (
        "completed",
        "paused",
        "pruned",
        "failed",
        "broken",
        "running",
        "preempted",
        "interrupted",
        "queued",
    )
    parts = [f"{by_state[state]} {state}" for state in order if by_state[state]]
    return f"{plural(by_state.total(), 'job')}: {', '.join(parts)}"


def _broken(job: Run, problem: str) -> Row:
    return Row(job.id, job.label, "broken", 0, None, None, None, 0.0, None, 0.0, problem)


def _left(step: int, total: int | None, latest: dict[str, Any]) -> float | None:
    if not total or not latest.get("step") or "time" not in latest:
        return None
    return max(total - step, 0) * float(latest["time"]) / float(latest["step"])


def _total(run: Run, status: dict[str, Any]) -> int | None:
    total = status.get("total_steps") or _max_steps(run.path)
    return None if total is None else int(total)


@cache
def _max_steps(path: Path) -> int | None:
    steps: int | None = Run(path).read_config()["trainer"].get("max_steps")
    return steps


def _time(text: str | None) -> float:
    return datetime.fromisoformat(text).timestamp() if text else 0.0


def _changed(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
