"""Optuna's study, which a search's drivers and its jobs open from their own processes.

Optuna is imported when a study is opened and no earlier: a run outside a search does not need it.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from truesweep.compat import storage_id
from truesweep.errors import ConfigError, refusing
from truesweep.record.files import locked

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

PAUSED = "paused"
"""Attribute of a trial whose job waits until it is worth going on with."""
Decide = Callable[[Sequence["FrozenTrial"], int], bool]
"""Whether a trial is to stop, by its number, as far as all trials tell."""


def open_storage(where: str, directory: Path) -> "BaseStorage":
    """Where a study is kept.

    Args:
        where: A database's URL, or a journal's file, which many processes may write to.
        directory: What a file's path may be relative to.

    Raises:
        ConfigError: The database cannot be reached.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if "://" in where:
        try:
            return optuna.storages.RDBStorage(where)
        except Exception as error:
            raise ConfigError(
                f"sweeps.storage: the database cannot be opened ({type(error).__name__}: "
                f"{str(error).splitlines()[0]}); check its URL, and that its driver is installed"
            ) from None
    journal = str(directory / where)
    with refusing(
        lambda reason: (
            f"{journal}: the search's record is damaged: {reason} Restore it, or delete it: the "
            "sweep's command, repeated, then searches anew and takes over the jobs that have ended"
        )
    ):
        return JournalStorage(JournalFileBackend(journal, lock_obj=cast(Any, _Lock(journal))))


class _Lock:
    """A journal's lock that dies with its holder; Optuna's own blocks all others for 30 s then."""

    def __init__(self, journal: str) -> None:
        self._journal = journal
        self._held = ExitStack()

    def acquire(self) -> bool:
        held = ExitStack()
        held.enter_context(locked(f"{self._journal}.lock"))
        self._held = held  # after waiting for another thread's
        _mend(Path(self._journal))
        return True

    def release(self) -> None:
        self._held.close()


def _mend(journal: Path) -> None:
    """Drop a last line without its end, as a full disk leaves it; the next one would join it."""
    with journal.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        if file.read() in (b"", b"\n"):
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
    log.warning("%s: its last line was cut short, and is dropped", journal)


def make_pruner(name: str, startup: int, warmup: int, reduction: int) -> "BasePruner":
    """Optuna's pruner.

    Args:
        name: `median`, `halving` or `hyperband`.
        startup: Trials that complete before the median pruner stops any.
        warmup: Optimizer steps that every trial gets.
        reduction: Of so many trials halving and hyperband keep one at each rung; the rungs are at
            `warmup`, `warmup * reduction`, … steps.
    """
    from optuna import pruners

    if name == "median":
        return pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=warmup)
    if name == "halving":
        return pruners.SuccessiveHalvingPruner(min_resource=warmup, reduction_factor=reduction)
    return pruners.HyperbandPruner(min_resource=warmup, reduction_factor=reduction)


class Reports:
    """Tells a study of a trial's validations; it may fail, and the training goes on.

    Args:
        directory: The run's directory.
        storage: See `open_storage`.
        study: The study's name.
        number: The trial's number.
        pruner: The arguments of `make_pruner`; without a warm-up, the first validation ends it.
        decide: Decides in place of a pruner of Optuna's; a trial that it stops is marked as paused.
        about: Attributes that the trial is given, which `decide` needs.
    """

    def __init__(
        self,
        directory: Path,
        *,
        storage: str,
        study: str,
        number: int,
        pruner: Mapping[str, Any],
        decide: Decide | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self._directory = directory
        self._storage = storage
        self._study = study
        self._number = number
        self._pruner = dict(pruner)
        self._decide = decide
        self._about = dict(about or {})
        self._trial: Trial | None = None

    def catch_up(self, values: Mapping[int, float], done: int) -> bool | None:
        """Report what the study does not know of some values, by their steps, in order.

        A pruner of Optuna's is asked about the last one again while the study knows of none after
        it: its answer may not have been kept. A trial that is marked as paused, and has come to
        what it was marked for, was killed before it could say so; whoever had it go on would have
        taken the mark off.

        Args:
            values: The values.
            done: Optimizer steps done, from which the trial goes on.

        Returns:
            Whether the trial should be pruned; None if there was nothing to ask.
        """
        stop = None
        for step, value in sorted(values.items()):
            try:
                known = self._known(step)
            except Exception as error:
                log.warning("the study could not be asked what it knows: %s", error)
                return stop
            asks_again = self._decide is None and step == max(values) == max(known, default=None)
            if step not in known or asks_again:
                stop = self(step, value)
        return stop or (self._waits(done) or None if done and self._decide else stop)

    def _waits(self, done: int) -> bool:
        """Whether the trial is marked as paused, by its report of the last of the steps done."""
        try:
            known = self._known(done)
            return self._is_marked() and done >= max(known)
        except Exception as error:
            log.warning("the study could not be asked whether the trial waits: %s", error)
            return False

    def _is_marked(self) -> bool:
        assert self._trial is not None
        trials = self._trial.study.get_trials(deepcopy=False)
        return bool(trials[self._number].user_attrs.get(PAUSED))

    def _known(self, step: int) -> Mapping[int, float]:
        """The values that the study has been told; it is opened at this step if it is not yet."""
        if self._trial is None:
            self._trial = self._open(step)
        trials = self._trial.study.get_trials(deepcopy=False)
        return trials[self._number].intermediate_values

    def __call__(self, step: int, value: float) -> bool:
        """Report the value at a step, once; whether the trial should be pruned."""
        try:
            known = self._known(step)
            assert self._trial is not None
            last = max(known, default=0)
            if step not in known:
                self._trial.report(value, step)
            if self._decide is None:
                return bool(self._trial.should_prune())  # some pruners answer in NumPy's type
            if step < last or (step == last and self._is_marked()):  # answered before a kill
                return step == last
            stop = self._decide(self._trial.study.get_trials(deepcopy=False), self._number)
            self._trial.set_user_attr(PAUSED, stop)
            return stop
        except Exception as error:  # a study may lie on a database that is away for a while
            log.warning("step %d could not be reported to the study: %s", step, error)
            return False

    def _open(self, step: int) -> "Trial":
        import optuna

        study = optuna.load_study(
            study_name=self._study,
            storage=open_storage(self._storage, self._directory),
            sampler=optuna.samplers.RandomSampler(),  # suggests nothing here
        )
        frozen = study.get_trials(deepcopy=False)[self._number]
        if self._decide is None:
            warmup = self._pruner["warmup"] or min([step, *frozen.intermediate_values])
            study.pruner = make_pruner(**self._pruner | {"warmup": warmup})
        trial = optuna.Trial(study, trial_id(study, self._number))
        for key, value in self._about.items():
            if frozen.user_attrs.get(key) != value:
                trial.set_user_attr(key, value)
        return trial


def trial_id(study: "Study", number: int) -> int:
    """The storage's name for a trial."""
    return storage_id(study.get_trials(deepcopy=False)[number])
