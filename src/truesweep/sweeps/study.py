"""Search: jobs at the points that Optuna suggests, from the results so far.

One trial is one point. With several seeds it has several jobs, and its value is their mean. Where
jobs are pruned, the first seed of a point goes ahead: its validations are compared with those of
other points' first seeds, and the other seeds run only if it was not pruned.

Where jobs are paused, a trial whose first seed waits stays as it is, running in the study. When
there is nothing new to begin, the one whose forecast leads goes on, until none is worth it.

The study is the truth about trials as `status.json` is about jobs. A trial that a dead driver left
running is taken up by the next one: its point leads to the same configuration, and so to the same
directories, which go on from their checkpoints. Points whose jobs have failed are tried again by
each driver, once, when it begins; the budget counts them as one.
"""

import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from truesweep.config.space import Point, Space
from truesweep.errors import ConfigError, UserError
from truesweep.jobs.pausing import FORECAST
from truesweep.runs.run import Run, write_entries
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.protocols import ENDED
from truesweep.sweeps.sampling import Dimensions, Params, Tried, climb, is_value_of
from truesweep.sweeps.settings import AUTO, Sweep
from truesweep.sweeps.studies import JOBS
from truesweep.sweeps.trials import End, Trials

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

TRIES = 20
"""Suggestions in a row without a job, after which a new point of a finite space is chosen."""
TRIES_WITHOUT_END = 200
"""The same for a space that cannot be listed; all of it seems to be excluded then."""


def say(text: str) -> None:
    """Show a note; a live table, which takes the stream's place, lets it pass above itself."""
    print(text, file=sys.stderr)


class MakeJob(Protocol):
    """Composes and checks a job, and makes its directory; or finds the directory that exists."""

    def __call__(self, point: Point, seed: int, trial: dict[str, Any]) -> Run:
        """The job at a point, with a seed, for the entry `trial` of its `job.json`."""
        ...


class Search:
    """A `JobSource` over an Optuna study; see the module.

    A suggested point that was tried before is told the value it had, and one that is excluded or
    cannot be run is told to be bad, without a job. When that happens too often in a row, a new one
    is chosen by chance, and when there is none the search is over. The budget counts points with
    jobs.

    Args:
        sweep: The sweep's directory.
        space: What is varied.
        settings: Objective, sampler, pruner, budget, seeds and storage.
        make: Makes the jobs.
        seed: The configuration's own seed, from which a number of seeds counts up.
        limit: The most points that this driver tries at once; None: all that it asks for.
        note: Told what the user may want to know.

    Raises:
        ConfigError: The sampler cannot work here, or the study is about something else.
    """

    def __init__(
        self,
        sweep: SweepDirectory,
        space: Space,
        settings: Sweep,
        make: MakeJob,
        seed: int = 0,
        limit: int | None = None,
        note: Callable[[str], None] = say,
    ) -> None:
        assert settings.pruner != AUTO, "its plan decides"
        self._space = space
        self._settings = settings
        self._make = make
        self._limit = limit
        self._seeds = settings.seed_list(seed)
        self.note = note
        self._dimensions = Dimensions(space)
        if settings.sampler == "grid" and not self._dimensions.finite:
            raise ConfigError("sweeps.sampler=grid cannot list an interval; give values or a range")
        given = settings.start if isinstance(settings.start, dict) else {}
        wanted = bool(given) or settings.sampler == "climb"
        self._start = self._dimensions.nearest(given) if wanted else None
        sweep.path.mkdir(parents=True, exist_ok=True)
        self._trials = Trials(sweep, settings, self._dimensions)
        self._jobs: dict[int, list[Run]] = {}  # of the trials that this driver runs, by number
        self._held: dict[int, list[Run]] = {}  # those that wait for their trial's first seed
        self._paused: dict[int, Run] = {}  # the first seeds that wait, by their trials
        self._ready: list[Run] = []
        self._repeated: set[int] = set()  # trials whose points were suggested again
        self._covered = False
        if self._trials.begun_again:
            note(f"points that failed and are tried again: {self._trials.begun_again}")
        for number, what in self._changed(sweep):
            note(f"trial {number} {what}: what is proposed follows from the search's record")
        if self._trials.elsewhere:
            note(f"points of an earlier space, which the budget counts: {self._trials.elsewhere}")

    @property
    def exhausted(self) -> bool:
        """Whether no job will come any more, as far as this driver can know."""
        held = self._held.keys() - self._paused.keys()
        if self._ready or held or self._trials.abandoned() or self._trials.waiting():
            return False
        if not (self._covered or self._spent()):
            return False
        if self._paused and self._paused.keys() != self._jobs.keys():
            return False  # what runs may yet be worse than what waits
        return not self._paused or self._trials.thawed(self._paused) is None

    def ask(self) -> Run | None:
        """The next job; None while there is nothing to start."""
        while not self._ready:
            running = len(self._jobs) - len(self._paused)
            if self._limit is not None and running >= self._limit:
                return None
            abandoned = self._trials.abandoned()
            if abandoned:
                self._go_on_with(abandoned[0])
            elif self._trials.waiting():
                self._begin(*self._trials.suggest())
            elif self._covered or self._spent() or not self._suggest():
                return self._thaw()
        return self._ready.pop(0)

    def tell(self, job: Run) -> None:
        """Let the study know what has become of a point, once that is decided."""
        for number, jobs in list(self._jobs.items()):
            if not any(job.id == own.id for own in jobs):
                continue
            if job.state == "paused":
                self._pause(number, job)
            else:
                self._conclude(number, given_up=job.state not in ENDED)

    def _changed(self, sweep: SweepDirectory) -> Iterator[tuple[int, str]]:
        """The trials that are not what their jobs are, as when a digit has changed, and why."""
        runs = {job.id: job for job in sweep.jobs()}
        for trial in self._trials.all():
            ids = trial.user_attrs.get(JOBS, ())
            jobs = [runs[one] for one in ids if one in runs]
            broken = next((job.problem for job in jobs if job.problem), None)
            if broken is not None:
                yield trial.number, f"has a job that cannot be read ({broken})"
            elif len(jobs) < len(ids):
                gone = ", ".join(one for one in ids if one not in runs)
                yield trial.number, f"has lost the directory of its job {gone}"
            elif not jobs:  # its point was suggested before, or has not been begun
                continue
            elif not self._is_of(trial, jobs):
                yield trial.number, "has another point than its jobs"
            elif trial.state.name == "COMPLETE" and self._values(jobs) != trial.values:
                yield trial.number, "has another figure than its jobs"

    def _is_of(self, trial: "FrozenTrial", jobs: Sequence[Run]) -> bool:
        """Whether jobs are at a trial's point, as far as that can be told in this space."""
        if not all(is_value_of(trial.distributions[k], v) for k, v in trial.params.items()):
            return False
        if not self._dimensions.contain(trial.params):
            return True
        point = self._dimensions.point(trial.params)
        return all(job.varies.get(k, v) == v for job in jobs for k, v in point.items())

    # -- waiting and going on -------------------------------------------------------------------

    def _pause(self, number: int, job: Run) -> None:
        self._trials.pause(number)
        self._paused[number] = job

    def _thaw(self) -> Run | None:
        """The job that waits and is to go on next; None if none is worth it now.

        Nor before a climb knows where it goes.
        """
        if self._settings.sampler == "climb" and any(v is None for _, v in self._trials.tried()):
            return None
        number = self._trials.thawed(self._paused) if self._paused else None
        if number is None:
            return None
        self._trials.thaw(number)
        return self._paused.pop(number)

    # -- beginning a trial ----------------------------------------------------------------------

    def _spent(self) -> bool:
        return self._settings.jobs is not None and self._trials.before() >= self._settings.jobs

    def _suggest(self) -> bool:
        """Begin trials until one has a job to run; False if there is no point left."""
        finite = self._dimensions.finite
        if self._settings.sampler == "climb" or (self._start and not self._trials.all()):
            return self._climb()
        by_sampler = 0 if self._settings.sampler == "grid" else TRIES
        for _ in range(by_sampler if finite else TRIES_WITHOUT_END):
            if self._begin(*self._trials.suggest()):
                return True
            if self._spent():
                return False
        for params in self._trials.unseen() if finite else ():
            if self._begin(*self._trials.suggest(params)):
                return True
            if self._spent():
                return False
        self._covered = True
        self.note("every point of the space was tried" if finite else "no more points were found")
        return False

    def _climb(self) -> bool:
        """Begin the start, or go on from the best point; False if there is nothing to try now."""
        while not self._spent():
            tried = self._trials.tried()
            params = self._next(tried) if tried else self._start
            if params is None:
                return False
            if self._begin(*self._trials.suggest(params)):
                return True
            if self._settings.sampler != "climb":
                return self._suggest()
        return False

    def _next(self, tried: Sequence[Tried]) -> Params | None:
        """Where a climb goes; None if there is nothing to try now."""
        params = climb(self._dimensions, tried)
        running = self._jobs.keys() - self._paused.keys()
        if params or running or any(value is None for _, value in tried):
            return params
        if self._trials.thawed(self._paused) is not None:
            return None
        if self._settings.pruner == FORECAST:  # a point costs little
            params = climb(self._dimensions, tried, finer=True)
        self._covered = params is None
        if self._covered:
            self.note("no neighbour of the best point is better")
        return params

    def _go_on_with(self, trial: "FrozenTrial") -> None:
        """Take up what a dead driver has left."""
        if not self._trials.take_up(trial):
            return
        if self._dimensions.contain(trial.params):
            self._begin(trial.number, trial.params)
        else:
            why = "its point is not in the space, or was not chosen before its driver died"
            self._end(trial.number, "FAIL", note=why)

    def _begin(self, number: int, params: Params) -> bool:
        """Make the jobs of a trial; False if there is nothing to run, and the study knows why."""
        budget = self._settings.jobs
        point = self._dimensions.point(params)
        if self._space.excluded(point):
            return self._end(number, "PRUNED", note="excluded")
        twin = self._trials.twin(number, params)
        if twin is not None:
            return self._repeat(number, twin)
        if budget is not None and self._trials.before(number) >= budget:
            return self._end(number, "FAIL", note="beyond the budget")
        entries = [self._entry(number, i) for i in range(len(self._seeds))]
        pairs = zip(self._seeds, entries, strict=True)
        try:
            jobs = [self._make(point, seed, entry) for seed, entry in pairs]
        except UserError as error:
            self.note(f"trial {number} cannot be run: {error}")
            return self._end(number, "PRUNED", note=f"cannot be run: {error}")
        twin = self._trials.twin(number, params, [job.id for job in jobs])
        if twin is not None:
            return self._repeat(number, twin)
        for job, entry in zip(jobs, entries, strict=True):
            if job.problem is None:  # or its driver will say so
                _place(job, entry)
        return self._hand_out(number, jobs)

    def _entry(self, number: int, index: int) -> dict[str, Any]:
        return self._trials.entry(number, self._settings.pruner is not None and index == 0)

    def _hand_out(self, number: int, jobs: list[Run]) -> bool:
        self._trials.set(number, JOBS, [job.id for job in jobs])
        self._jobs[number] = jobs
        left = [job for job in jobs if job.state not in ENDED]
        if self._settings.pruner is not None and jobs[0] in left:
            self._held[number] = left[1:]
            left = left[:1]
            # One that a driver had go on before it died may be in a cluster's queue.
            if jobs[0].state == "paused" and not self._trials.is_thawed(number):
                self._pause(number, left.pop())
                return False
        self._ready += left
        if not left or jobs[0].state == "pruned":
            self.note(f"{jobs[0].label} was run before")
            self._conclude(number)
        return bool(self._ready)

    # -- ending a trial -------------------------------------------------------------------------

    def _conclude(self, number: int, given_up: bool = False) -> None:
        """Tell the study of a trial, if all its jobs have ended or one of them decides it."""
        jobs = self._jobs[number]
        if any(job.state == "pruned" for job in jobs):
            self._end(number, "PRUNED")
        elif given_up:
            errors = [str(job.error) for job in jobs if job.state not in ENDED]
            self._end(number, "FAIL", error=errors[0])
        elif all(job.state == "completed" for job in jobs):
            self._complete(number, jobs)
        else:
            self._ready += self._held.pop(number, [])

    def _complete(self, number: int, jobs: Sequence[Run]) -> bool:
        values = self._values(jobs)
        names = zip(self._settings.modes, values, strict=True)
        missing = next((name for name, value in names if value is None), None)
        if missing is None:
            return self._end(number, "COMPLETE", values)
        self.note(f"{jobs[0].label}: its results have no {missing}")
        return self._end(number, "FAIL", missing=missing, error=f"no {missing} in results.json")

    def _values(self, jobs: Sequence[Run]) -> list[Any]:
        """The mean of each objective over jobs; None where one of them lacks it."""
        values: list[Any] = []
        for name, mode in self._settings.modes.items():
            figures = [job.objective(name, mode) for job in jobs]
            known = [figure for figure in figures if figure is not None and figure == figure]
            values.append(statistics.fmean(known) if len(known) == len(jobs) else None)
        return values

    def _repeat(self, number: int, twin: "FrozenTrial") -> bool:
        note = f"the same point as trial {twin.number}"
        if twin.number not in self._repeated:  # a sampler may insist
            self.note(f"trial {number} is {note}, and is not run again")
        self._repeated.add(twin.number)
        self._trials.end_like(number, twin, note)
        return False

    def _end(
        self, number: int, state: End, values: Sequence[float] | None = None, **remarks: str
    ) -> bool:
        """End a trial; gives False, as there is nothing to run any more."""
        jobs = self._jobs.pop(number, [])
        self._held.pop(number, None)
        self._ready = [job for job in self._ready if job not in jobs]
        self._trials.end(number, state, values, **remarks)
        return False


def _place(job: Run, entry: dict[str, Any]) -> None:
    """Let a job know its trial; a directory that exists may be of another one, or of a grid."""
    if job.job.get("trial") != entry:
        write_entries(job.path / "job.json", {**job.job, "trial": entry})
