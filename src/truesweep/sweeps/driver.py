"""Runs the jobs of a sweep to their end, whatever becomes of single ones, or of the driver."""

import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from truesweep.callbacks import SIGNALS, Told
from truesweep.errors import ConfigError
from truesweep.interrupts import STOPPED, stopped_by
from truesweep.runs.run import UNREADABLE, BusyError, Run
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.disk import LAST, held, keep_within
from truesweep.sweeps.display import Display, first_line, short
from truesweep.sweeps.planned import trainer_of
from truesweep.sweeps.progress import FAILED, Board
from truesweep.sweeps.protocols import BUSY, ENDED, LOST, Executor, JobSource, Listed, NotNow
from truesweep.sweeps.settings import Sweep
from truesweep.sweeps.siblings import Either, Siblings
from truesweep.sweeps.summary import Page, sum_up
from truesweep.tasks.devices import OUT_OF_MEMORY
from truesweep.text import duration, plural, quantity

SECONDS_PER_LOOK = 0.5
"""How long a signal, or a job that another driver has ended, may go unnoticed."""
SECONDS_PER_SUMMARY = 5.0
"""The least time between two writes of `jobs.jsonl` while jobs run."""


def drive(
    sweep: SweepDirectory,
    source: JobSource,
    executor: Executor,
    settings: Sweep,
    display: Display | None = None,
    last: bool = True,
) -> int:
    """Run what a source gives out, until it is exhausted.

    Args:
        sweep: The sweep's directory.
        source: Where jobs come from.
        executor: What runs them.
        settings: Retries, budget, and what ends the sweep early.
        display: Shows how it goes.
        last: Whether this ends the sweep, which is then summed up.

    Returns:
        The exit code: 0 all done, 1 a job failed after its retries, 130 interrupted, 143 preempted.

    Raises:
        ConfigError: A job needs more than there is; nothing was started.
    """
    display = display or Display(sweep.name, Board.of(settings))
    driver = Driver(sweep, source, executor, settings, display)
    code = driver.run()
    if last and code not in STOPPED:
        sum_up(sweep, display)
    return code


class Driver:
    """One process that drives a sweep; others may drive the same one. See `drive`."""

    def __init__(
        self,
        sweep: SweepDirectory,
        source: JobSource,
        executor: Executor,
        settings: Sweep,
        display: Display,
    ) -> None:
        self.sweep = sweep
        self.source = source
        self.executor = executor
        self.settings = settings
        self.display = display
        self.board = display.board
        self.began = time.time()
        self.waiting: list[Run] = []
        self.elsewhere: list[Run] = []  # another driver runs them
        self.failures = Counter[str]()
        self.given_up: set[str] = set()
        self.started: dict[str, tuple[float, int]] = {}  # when, and the kernel's kills by then
        self.stalled: set[str] = set()
        self.thawed: dict[str, int] = {}  # the steps at which jobs that were paused went on
        self._told = Told()
        self._jobs: list[Run] = []
        self._summarized_at = 0.0
        self._changed = True
        self._warned = False
        self._page = Page(sweep)
        self.trunks: Either | Siblings = Siblings(sweep)

    @property
    def signum(self) -> int:
        """The first signal that the sweep was sent, or 0."""
        return self._told.signum

    def run(self) -> int:
        """Drive the sweep to its end."""
        if isinstance(self.source, Listed):  # known as a whole, so that the biggest can go first
            self.waiting.extend(iter(self.source.ask, None))
            self.trunks = Either(self.sweep, self.sweep.jobs())
        for job in list(self.waiting):
            if job.state == "broken":
                self.waiting.remove(job)
                self._give_up(job, job.error or "")
            else:
                self.executor.check(trainer_of(job), job.label)
        with listening(self.executor) as self._told:
            with self.display:
                try:
                    while not self._over():
                        self._fill()
                        self._show()
                        self._page.refresh()
                        for job, code in self._wait():
                            self._settle(job, code)
                        self._look_after()
                finally:
                    self._stop()
            return self._conclude()

    # -- starting jobs --------------------------------------------------------------------------

    @property
    def _closed(self) -> bool:
        """Whether no more jobs are to be started."""
        hours = self.settings.hours
        late = hours is not None and time.time() - self.began > hours * 3600
        return bool(self.signum) or late or self._failed_fast

    @property
    def _failed_fast(self) -> bool:
        return self.settings.fail_fast and bool(self.given_up)

    def _over(self) -> bool:
        if self.signum or self._failed_fast:
            return True
        if self.executor.running:
            return False
        nothing_left = self.source.exhausted and not self.waiting and not self.elsewhere
        return self._closed or nothing_left

    def _fill(self) -> None:
        """Start all that there is room for, the biggest first."""
        while not self._closed and (job := self._next()) is not None:
            self.waiting.remove(job)
            try:
                self._begin(job)
            except NotNow as reason:
                self.waiting.insert(0, job)
                self.display.event(f"waiting    {job.id}  {job.label}: {first_line(str(reason))}")

    def _begin(self, job: Run) -> None:
        """Start a job, unless another driver has to do with it, or nobody can."""
        if job.state == "broken":
            self._give_up(job, job.error or "")
        elif job.state in ENDED:  # by another driver, a moment ago
            self._ended(job)
        elif job.state == "running" and not self.executor.takes_up(job):
            self.elsewhere.append(job)
        elif self._failed_elsewhere(job):
            self.given_up.add(job.id)
            self.source.tell(job)
        else:
            self._start(job)

    def _next(self) -> Run | None:
        """The biggest job that fits; a search is asked for one as late as can be."""
        unfinished = [*self.waiting, *self.executor.running, *self.elsewhere]
        fitting = [
            job
            for job in self.waiting
            if self.executor.fits(job) and self.trunks.is_ready(job, unfinished)
        ]
        if fitting:
            return max(
                fitting, key=lambda job: (job.devices * job.nodes, self.trunks.is_trunk(job))
            )
        if self.waiting or self.source.exhausted or not self._room():
            return None
        job = self.source.ask()
        if job is None:
            return None
        if job.state != "broken":
            self.executor.check(trainer_of(job), job.label)
        self.waiting.append(job)
        return job if self.executor.fits(job) else None

    def _room(self) -> bool:
        """Whether a job like those that run would fit beside them."""
        return all(self.executor.fits(job) for job in self.executor.running)

    def _start(self, job: Run) -> None:
        try:
            branch = self.trunks.branch(job)
        except BusyError:  # another driver has begun it, a moment ago
            self.elsewhere.append(job)
            return
        again, waited = bool(job.status), job.state == "paused"
        if waited:
            self.thawed[job.id] = job.step
        self._changed = True
        now = time.time(), oom_kills()
        try:
            self.executor.start(job, resume=again)
        except ConfigError as error:
            if not self.started:  # nothing has been spent yet
                raise
            job.end("failed", 1, str(error))
            self._give_up(job, first_line(str(error)))
            return
        self.started[job.id] = now
        on = "" if branch is None else f" from step {branch[1]:,} of {branch[0]}"
        how = "branched" if branch else "thawed" if waited else "resumed" if again else "started"
        self.display.event(f"{how:<10} {job.id}  {job.label}{on}")

    def _failed_elsewhere(self, job: Run) -> bool:
        """Whether another driver has tried a job in vain since this one began."""
        status = job.status
        if status.get("state") != "failed" or job.id in self.started:
            return False
        return datetime.fromisoformat(status["finished"]).timestamp() > self.began

    def _wait(self) -> list[tuple[Run, int]]:
        """The jobs that have ended; those that could not be started after all wait again."""
        try:
            return self.executor.wait(SECONDS_PER_LOOK)
        except NotNow as reason:
            for job in reversed(reason.jobs):
                del self.started[job.id]
                self.waiting.insert(0, job)
            which = "" if len(reason.jobs) == 1 else f"{plural(len(reason.jobs), 'job')}, such as "
            self.display.event(f"waiting    {which}{first_line(str(reason))}")
            return []

    # -- jobs that have ended -------------------------------------------------------------------

    def _settle(self, job: Run, code: int) -> None:
        """Take note of a job's end, and of whether it is to go on."""
        self._changed = True
        state = job.state
        told = code in (*STOPPED, -signal.SIGTERM, -signal.SIGINT) and state != "failed"
        if code == BUSY:
            self.elsewhere.append(job)
        elif state in ENDED:
            self._ended(job)
        elif state == "paused" and job.step > self.thawed.get(job.id, -1):  # wherever its node is
            self.source.tell(job)
            self.trunks.tidy(job)
            self.display.event(f"paused     {job.id}  {job.label} at step {job.step}")
        elif self.signum or told or code == LOST:  # if only this job was told to stop, it goes on
            self.display.event(f"stopped    {job.id}  {job.label} at step {job.step}")
            self.waiting.append(job)
        else:
            self._failed(job, code)

    def _ended(self, job: Run) -> None:
        self.source.tell(job)
        row = self.board.rows([job])[0]
        name, seconds = self.board.objective, duration(row.seconds)
        value = f"  {name} {self.board.written(row)}" if row.best is not None else ""
        self.display.event(f"{row.state:<10} {job.id}  {job.label}{value} in {seconds}")
        self.trunks.tidy(job)

    def _failed(self, job: Run, code: int) -> None:
        error = first_line(self._name_failure(job, code))
        self.failures[job.id] += 1
        if self.failures[job.id] <= self.settings.retries:
            self.waiting.append(job)
            text = f"failed     {job.id}  {job.label}: {error}; it is tried again"
            self.display.event(text, important=True)
        else:
            self._give_up(job, error)

    def _name_failure(self, job: Run, code: int) -> str:
        kills = oom_kills() - self.started[job.id][1]
        minutes = self.settings.stall_minutes if job.id in self.stalled else None
        self.stalled.discard(job.id)
        try:
            return name_failure(job, code, minutes, kills)
        except UNREADABLE as error:
            return str(error)

    def _give_up(self, job: Run, error: str) -> None:
        self.given_up.add(job.id)
        self.source.tell(job)
        log = "" if "(see " in error else f" (see {short(job.log(0))})"
        self.display.event(f"failed     {job.id}  {job.label}: {error}{log}", important=True)

    # -- meanwhile ------------------------------------------------------------------------------

    def _look_after(self) -> None:
        """Take back what another driver has left, and end what hangs."""
        free = [job for job in self.elsewhere if not job.alive]
        self.elsewhere = [job for job in self.elsewhere if job not in free]
        self.waiting.extend(free)
        if self.settings.stall_minutes is None:
            return
        for job in self.executor.running:
            since = max(_last_sign(job), self.started[job.id][0])
            if time.time() - since > self.settings.stall_minutes * 60 and job.alive:
                self.stalled.add(job.id)
                self.executor.kill(job)

    def _show(self, now: bool = False) -> None:
        """Bring the table and, every few seconds, `jobs.jsonl` up to date.

        A disk that is full or away for a while ends no job.
        """
        due = time.time() - self._summarized_at > SECONDS_PER_SUMMARY
        try:
            if now or (self._changed and due):
                self._summarize()
            self._draw()
        except OSError as error:
            if not self._warned:
                text = f"{short(self.sweep.path)} cannot be kept up to date: {error}; trying again"
                self.display.event(text, important=True)
            self._warned = True

    def _draw(self) -> None:
        if self.display.console.is_terminal:
            rows = self.board.rows(self._jobs, {job.id for job in self.executor.running})
            self.display.show(rows, self._planned())

    def _summarize(self) -> None:
        self._summarized_at = time.time()
        self._jobs = self.sweep.jobs()
        self.sweep.write_jobs(self._jobs, self.settings)
        self._changed = False
        if self.settings.budget is not None and not self.signum:
            self._keep_within(self.settings.budget)

    def _keep_within(self, budget: int) -> None:
        """Drop checkpoints that are missed least, if all take more than they may."""
        for job in keep_within(budget, self._jobs, self.settings):
            what = "its last checkpoint" if job.status["dropped"] == LAST else "optimizer's state"
            self.display.event(f"dropped    {job.id}  {job.label}: {what}, for sweeps.disk")

    def _planned(self) -> int:
        """Points that a search is still to have; none where it has tried every one there is."""
        searching = self.settings.method == "search" and not self.source.exhausted
        return (self.settings.jobs or 0) if searching else 0

    # -- the end --------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Leave no job behind."""
        number = len(self.executor.running)
        if number:
            hint = "; Ctrl-C again kills them" if self.signum == signal.SIGINT else ""
            text = f"stopping {number} job{'s' * (number > 1)}, which save first{hint}"
            self.display.event(text, important=True)
            self.executor.stop(self.signum or signal.SIGTERM)
        self._show(now=True)

    def _conclude(self) -> int:
        """Say what came of the jobs, and what to type next; gives the exit code."""
        rows = self.board.rows(self._jobs)
        lost = {row.id for row in rows if row.id in self.given_up and row.state not in ENDED}
        self.display.conclude(rows, self._planned(), self.sweep.path)
        self._page.finish()
        if isinstance(self.source, Listed) or self.source.exhausted:
            self.trunks.tidy()
        if self.settings.budget is not None and held(self._jobs) > self.settings.budget:
            text = (
                f"sweeps.disk={self.settings.disk}: {quantity(held(self._jobs), 'B')} are held by "
                "best checkpoints, and by jobs that may go on"
            )
            self.display.event(text, important=True)
        if self.settings.method == "search" and self.source.exhausted:
            with suppress(OSError):  # nothing but what `truesweep status` says depends on it
                self.sweep.close(self._jobs)
        if self.signum:
            self._page.write()
            return stopped_by(self.signum)
        return int(any(row.state in FAILED or row.id in lost for row in rows))


@contextmanager
def listening(executor: Executor) -> Iterator[Told]:
    """Hear signals: the first lets jobs save, which is the caller's; a second interrupt kills them.

    Args:
        executor: Runs the jobs.
    """
    told = Told()
    if threading.current_thread() is not threading.main_thread():
        yield told  # signals are the main thread's
        return

    def hear(signum: int, frame: FrameType | None) -> None:
        known = told.signum
        if told.hear(signum) and known:
            if not executor.running:
                raise KeyboardInterrupt
            for job in executor.running:
                executor.kill(job)

    before: dict[signal.Signals, Any] = {s: signal.signal(s, hear) for s in SIGNALS}
    try:
        yield told
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _last_sign(job: Run) -> float:
    """When a job last wrote of itself, seconds since 1970."""
    files = (job.path / "status.json", job.metrics, job.log(0))
    return max((file.stat().st_mtime for file in files if file.exists()), default=0.0)


# -- why a job failed, by name ---------------------------------------------------------------------

REMEDY = "Lower data.micro_batch_size (it changes no result), or run fewer jobs beside each other"


def oom_kills() -> int:
    """How many processes the kernel has killed for memory since it was started."""
    try:
        counters = Path("/proc/vmstat").read_text(encoding="ascii")
    except OSError:
        return 0
    found = re.search(r"^oom_kill (\d+)$", counters, re.MULTILINE)
    return int(found[1]) if found else 0


def name_failure(run: Run, exit_code: int, stalled: float | None, kills: int) -> str:
    """Write into a failed job's status what became of it, if it could not do so itself.

    Args:
        run: The job's directory.
        exit_code: Below zero: the signal that ended it.
        stalled: The minutes without a sign of life for which it was killed, if it was.
        kills: Processes that the kernel has killed for memory since the job was started.

    Returns:
        The error, as it now stands in `status.json`.
    """
    status = run.status
    if status.get("state") == "failed":
        error = str(status.get("error"))
        if not _for_memory(error, kills) or error.startswith("out of memory"):
            return error
        named = f"out of memory: {error}\n{REMEDY}"
        run.update_status(error=named)
        return named
    error = _how_it_ended(exit_code, stalled, kills)
    run.end("failed", exit_code if exit_code > 0 else 128 - exit_code, error)
    return error


def _for_memory(error: str, kills: int) -> bool:
    return bool(OUT_OF_MEMORY.search(error)) or (kills > 0 and "SIGKILL" in error)


def _how_it_ended(exit_code: int, stalled: float | None, kills: int) -> str:
    if stalled is not None:
        return (
            f"hanging: no sign of life for {duration(60 * stalled)}, so it was killed; "
            "sweeps.stall_minutes sets the limit"
        )
    if exit_code == -signal.SIGKILL and kills > 0:
        return f"out of memory: killed by the kernel, since main memory ran out. {REMEDY}"
    if exit_code == -signal.SIGKILL:
        return "killed by SIGKILL: by hand, or by a limit on memory that the kernel did not count"
    if exit_code < 0:
        return f"killed by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code} before it could say why; its log may"
