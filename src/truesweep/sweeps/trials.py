"""A search's trials: the study, seen by one of the drivers that may share it.

What is guaranteed to drivers that work on one search at the same time:

- In one directory, a trial has one driver. That of a dead driver is taken up at once, and by one
  other: both are decided under locks that end with their process.
- Directories that share a study (`sweeps.storage`), maybe on several hosts, have no lock in common.
  A driver there is taken for dead after 90 s without a beat in the study, and of two that take up
  one trial the last to write has it. So a driver that is cut off from the storage for longer, or
  whose writing takes more than 2 s to be seen, can have its trial trained a second time. No trial
  is lost, and none is told its end twice.
"""

import fcntl
import logging
import math
import random
import threading
import time
import uuid
import warnings
import weakref
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from truesweep.analysis.outcomes import sign
from truesweep.compat import storage_id, suggest
from truesweep.jobs.pausing import FORECAST, as_forecast, forecasts, thawed
from truesweep.record.files import locked
from truesweep.record.study import PAUSED, open_storage, trial_id
from truesweep.secrets import reveal
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.sampling import BY_VALUES, Dimensions, Params, Tried, make_sampler
from truesweep.sweeps.settings import Sweep
from truesweep.sweeps.studies import (
    AGAIN,
    DRIVER,
    JOBS,
    MISSING,
    NOTE,
    counted,
    first_try,
    inherit,
    latest_tries,
    open_study,
    study_of_space,
)

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial


TRIES = 20
"""Suggestions in a row that are known, after which a new point of a finite space is chosen."""
SETTLE_SECONDS = 2.0
"""Time in which a storage elsewhere shows which of two drivers took a trial up."""
BEGIN_SECONDS = 60.0
"""Longest time between a trial's creation and its driver's name on it."""

End = Literal["COMPLETE", "PRUNED", "FAIL"]


class Trials:
    """Makes, finds and ends trials.

    Args:
        sweep: The sweep's directory, which exists.
        settings: Objective, sampler, pruner and storage.
        dimensions: What is varied.

    Attributes:
        begun_again: How many points had failed and wait for another try.
        elsewhere: How many points outside the space the budget counts, as the space was another.

    Raises:
        ConfigError: The sampler cannot work here, or the study is about something else.
    """

    def __init__(self, sweep: SweepDirectory, settings: Sweep, dimensions: Dimensions) -> None:
        self._settings = settings
        self._dimensions = dimensions
        shared = settings.storage
        self._where = _as_jobs_see_it(shared)
        where = reveal(shared, "sweeps.storage") if shared else str(sweep.journal)
        self._storage = open_storage(where, Path.cwd())
        first = open_study(self._storage, sweep.study, settings)
        self._drivers = Drivers(sweep.path, first, shared=shared is not None)
        with self._drivers.one_at_a_time():
            self._study, others = study_of_space(self._storage, first, settings, dimensions)
            for other in others:
                self._move_here(other)
            self.elsewhere = sum(inherit(self._study, one, dimensions) for one in others)
            self.begun_again = self._begin_again()
        self._study.sampler = self._sampler()

    def all(self) -> list["FrozenTrial"]:
        """By number, those of all drivers."""
        return self._study.get_trials(deepcopy=False)

    def suggest(self, params: Params | None = None) -> tuple[int, Params]:
        """A new trial, at a point if one is given; its number and its point."""
        from optuna.exceptions import ExperimentalWarning

        if params is None and self._settings.pruner == FORECAST and not self.waiting():
            params = self._by_forecasts()
        if params:
            self._study.enqueue_trial(params)
        self._study.sampler = self._sampler()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            trial = self._study.ask()
            trial.set_user_attr(DRIVER, self._drivers.me)
            for name, distribution in self._dimensions.distributions.items():
                suggest(trial, name, distribution)
        return trial.number, trial.params

    def _by_forecasts(self) -> Params | None:
        """What the sampler suggests if trials that wait are worth their forecasts.

        A point that was tried only if it finds no other. None where it does not look at values.
        """
        if self._settings.sampler not in BY_VALUES:
            return None
        import optuna

        trials = as_forecast(self.all(), self._sign)
        study = optuna.create_study(directions=self._settings.directions)
        study.add_trials([trial for trial in trials if trial.params])
        study.sampler = self._sampler()
        seen = [trial.params for trial in trials]
        for _ in range(TRIES):
            asked = study.ask()
            for name, distribution in self._dimensions.distributions.items():
                suggest(asked, name, distribution)
            if asked.params not in seen:
                return asked.params
        return next(iter(self.unseen()), asked.params)

    def unseen(self) -> list[Params]:
        """Points of a finite space without a trial; in order for a grid, shuffled otherwise."""
        if not self._dimensions.finite:
            return []
        trials = self.all()
        seen = [trial.params for trial in trials]
        points = [params for params in self._dimensions.all() if params not in seen]
        if self._settings.sampler != "grid":
            random.Random(len(trials)).shuffle(points)
        return points

    def tried(self) -> list[Tried]:
        """What is known of each point, its forecast if it may be paused; less is better."""
        told: list[Tried] = []
        trials = self.all()
        expected = forecasts(trials, self._sign)
        for trial in trials:
            value: float | None = math.inf
            if trial.state.name == "COMPLETE":
                value = self._sign * trial.values[0]
            elif not trial.state.is_finished():
                value = expected.get(trial.number)
                value = value if value is None else self._sign * value
            if trial.params:
                told.append((trial.params, value))
        return told

    @property
    def _sign(self) -> float:
        """1 where less of the objective is better, else -1."""
        return sign(self._settings.directions[0])

    def pause(self, number: int) -> None:
        """Note that a trial's job waits."""
        if not self.all()[number].user_attrs.get(PAUSED):
            self.set(number, PAUSED, True)

    def thawed(self, numbers: Collection[int]) -> int | None:
        """Which of some trials that wait is to go on; None if none is worth it any more."""
        first = self._settings.pruner_warmup
        return thawed(self.all(), numbers, first=first, sign=self._sign)

    def thaw(self, number: int) -> None:
        """Note that a trial's job goes on."""
        self.set(number, PAUSED, False)

    def is_thawed(self, number: int) -> bool:
        """Whether a trial's job was to go on when it last waited."""
        return self.all()[number].user_attrs.get(PAUSED) is False

    def before(self, number: int | None = None) -> int:
        """How many points were given jobs before a trial's, or at all: what the budget counts."""
        trials = self.all()
        end = None if number is None else first_try(trials[number])
        return self.elsewhere + len(counted(trials[:end]))

    def twin(self, number: int, params: Params, ids: Sequence[str] = ()) -> "FrozenTrial | None":
        """An earlier trial at the same point, or with the same jobs."""
        for trial in latest_tries(self.all()[: number + 1]):
            same = set(ids) & set(trial.user_attrs.get(JOBS, ()))
            if trial.number != number and (trial.params == params or same):
                return trial
        return None

    def waiting(self) -> bool:
        """Whether a point is in the queue, so that the next suggestion is it."""
        return any(trial.state.name == "WAITING" for trial in self.all())

    def abandoned(self) -> list["FrozenTrial"]:
        """Trials that run in the study and have no driver that lives."""
        return [t for t in self.all() if t.state.name == "RUNNING" and not self._is_cared_for(t)]

    def take_up(self, trial: "FrozenTrial") -> bool:
        """Make an abandoned trial this driver's own; False if another one was faster."""
        with self._drivers.one_at_a_time():
            if self._is_cared_for(self.all()[trial.number]):
                return False
            near = self._drivers.is_near(trial.user_attrs.get(DRIVER, ""))
            self.set(trial.number, DRIVER, self._drivers.me)
        if not near:  # the one that writes last has it
            time.sleep(SETTLE_SECONDS)
        return bool(self.all()[trial.number].user_attrs[DRIVER] == self._drivers.me)

    def set(self, number: int, key: str, value: Any) -> None:
        """Give a trial an attribute."""
        self._storage.set_trial_user_attr(trial_id(self._study, number), key, value)

    def end(
        self, number: int, state: End, values: Sequence[float] | None = None, **remarks: str
    ) -> None:
        """Tell the study how a trial ended; a pruned one has the last value that it reported."""
        from optuna.trial import TrialState

        if self.all()[number].state.is_finished():  # by a driver that took this one for dead
            return
        for key, remark in remarks.items():
            self.set(number, key, remark)
        self._study.tell(number, values, TrialState[state], skip_if_finished=True)

    def end_like(self, number: int, twin: "FrozenTrial", note: str) -> None:
        """Tell the study that a trial ended as an earlier one at the same point did."""
        if twin.state.name == "PRUNED" and twin.last_step is not None:
            value = twin.intermediate_values[twin.last_step]
            identity = trial_id(self._study, number)
            self._storage.set_trial_intermediate_value(identity, twin.last_step, value)
        if twin.state.name == "COMPLETE":
            self.end(number, "COMPLETE", twin.values, note=note)
        else:
            self.end(number, "PRUNED" if twin.state.name == "PRUNED" else "FAIL", note=note)

    def entry(self, number: int, reports: bool) -> dict[str, Any]:
        """What a job knows of its trial.

        Args:
            number: The trial's number.
            reports: Whether the job reports its validations, and may be pruned.
        """
        settings = self._settings
        pruner: dict[str, Any] = {
            "name": settings.pruner,
            "startup": settings.pruner_startup,
            "warmup": settings.pruner_warmup,
            "reduction": settings.pruner_reduction,
        }
        if settings.pruner == FORECAST:
            pruner["sign"] = self._sign
        return {
            "storage": self._where,
            "study": self._study.study_name,
            "number": number,
            "objective": settings.objectives[0],
            "pruner": pruner if reports else None,
        }

    def _begin_again(self) -> int:
        """Put points whose jobs have failed into the queue."""
        failed = [
            trial
            for trial in latest_tries(self.all())
            if trial.state.name == "FAIL"
            and JOBS in trial.user_attrs
            and MISSING not in trial.user_attrs
            and self._dimensions.contain(trial.params)
        ]
        for trial in failed:
            self._study.enqueue_trial(trial.params, user_attrs={AGAIN: first_try(trial)})
        return len(failed)

    def _move_here(self, other: "Study") -> None:
        """Put points that dead drivers have left in another study into this one's queue."""
        from optuna.trial import TrialState

        for trial in other.get_trials(states=[TrialState.RUNNING]):
            if self._dimensions.contain(trial.params) and not self._is_cared_for(trial):
                self._study.enqueue_trial(trial.params)
                self._storage.set_trial_user_attr(
                    storage_id(trial), NOTE, f"went on in {self._study.study_name}"
                )
                other.tell(trial.number, state=TrialState.FAIL)

    def _is_cared_for(self, trial: "FrozenTrial") -> bool:
        driver = trial.user_attrs.get(DRIVER)
        if driver is not None:
            return self._drivers.alive(driver)
        assert trial.datetime_start is not None
        age = (datetime.now() - trial.datetime_start).total_seconds()
        return age < BEGIN_SECONDS and self._drivers.others()

    def _sampler(self) -> "BaseSampler":
        """A new sampler, for one suggestion.

        Its chance depends on how many points there are, and not on what this driver was suggested
        before: one that takes a search up is suggested what the one before it would have been.
        """
        points = sum(bool(trial.params) for trial in self.all())
        others = [int(self._drivers.me, 16)] if self._drivers.others() else []
        return make_sampler(self._settings, self._dimensions.numeric, [points, *others])


def _as_jobs_see_it(storage: str | None) -> str:
    """The storage, from a run's directory; a sweep with a journal of its own may be moved."""
    if storage is None:
        return "../study.journal"
    return storage if "://" in storage else str(Path(storage).absolute())


# -- drivers beside each other ---------------------------------------------------------------------

log = logging.getLogger(__name__)

BEAT_SECONDS = 20.0
DEAD_AFTER_SECONDS = 90.0
"""How long a driver elsewhere is silent before its trials are taken up."""


class Drivers:
    """Tells whether a driver of the same search is alive.

    In one directory each driver holds a lock, which dies with it, so that a resumed sweep goes on
    at once. Where the study is shared by several directories, maybe on several hosts, each driver
    also leaves a beat in the study every few seconds. Only whether it changes is looked at, so the
    hosts' clocks need not agree.

    Args:
        directory: The sweep's directory.
        study: The search's study.
        shared: Whether drivers of other directories work on it.
    """

    def __init__(self, directory: Path, study: "Study", shared: bool) -> None:
        self.me = uuid.uuid4().hex[:12]
        self._study = study
        self._shared = shared
        self._locks = directory / ".drivers"
        self._locks.mkdir(exist_ok=True)
        self._seen: dict[str, tuple[float, float]] = {}
        held = ExitStack()
        held.enter_context(locked(self._lock(self.me)))
        weakref.finalize(self, held.close)
        if shared:
            threading.Thread(target=self._beat, daemon=True).start()

    def alive(self, driver: str) -> bool:
        """Whether a driver lives, as far as can be known here."""
        if driver == self.me:
            return True
        if self._lock(driver).exists():
            return _is_held(self._lock(driver))
        return self._shared and self._beats(driver)

    def others(self) -> bool:
        """Whether any other driver lives."""
        here = {file.name for file in self._locks.iterdir()}
        far = {k.removeprefix(_PREFIX) for k in self._study.user_attrs if k.startswith(_PREFIX)}
        return any(driver != self.me and self.alive(driver) for driver in here | far)

    @contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """Keep this directory's other drivers from doing the same meanwhile."""
        with locked(f"{self._locks}.lock"):
            yield

    def is_near(self, driver: str) -> bool:
        """Whether a driver worked in this directory, so that its death is known for certain."""
        return self._lock(driver).exists()

    def _lock(self, driver: str) -> Path:
        return self._locks / driver

    def _beat(self) -> None:
        while True:
            try:
                self._study.set_user_attr(_PREFIX + self.me, time.time())
            except Exception as error:  # the storage may be away for a while
                log.warning("the search's storage cannot be written to: %s", error)
            time.sleep(BEAT_SECONDS)

    def _beats(self, driver: str) -> bool:
        beat = float(self._study.user_attrs.get(_PREFIX + driver, 0.0))
        now = time.monotonic()
        last, since = self._seen.setdefault(driver, (beat, now))
        if last != beat:
            self._seen[driver] = (beat, now)
            return True
        return now - since < DEAD_AFTER_SECONDS


_PREFIX = "driver "


def _is_held(lock: Path) -> bool:
    try:
        with locked(lock, fcntl.LOCK_SH, wait=0, new=False):
            return False
    except BlockingIOError:
        return True
