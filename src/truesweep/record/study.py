"""Optuna's study, which a search's drivers and its jobs open from their own processes.

Optuna is imported when a study is opened and no earlier: a run outside a search does not need it.
"""

import fcntl
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage

log = logging.getLogger(__name__)


def open_storage(where: str, directory: Path) -> "str | BaseStorage":
    """What Optuna takes as `storage`.

    Args:
        where: A database's URL, or a journal's file, which many processes may write to.
        directory: What a file's path may be relative to.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if "://" in where:
        return where
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    journal = str(directory / where)
    return JournalStorage(JournalFileBackend(journal, lock_obj=cast(Any, _Lock(journal))))


class _Lock:
    """A journal's lock that dies with its holder; Optuna's own blocks all others for 30 s then."""

    def __init__(self, journal: str) -> None:
        self._file = f"{journal}.lock"
        self._descriptor = -1

    def acquire(self) -> bool:
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        os.close(self._descriptor)


def make_pruner(settings: Mapping[str, Any] | None) -> "BasePruner":
    """Optuna's pruner.

    Args:
        settings: Its `name`, `median`, `halving` or `hyperband`, and its numbers, by Optuna's names
            for them; None: nothing is pruned.
    """
    from optuna import pruners

    if settings is None:
        return pruners.NopPruner()
    kinds: dict[str, type[pruners.BasePruner]] = {
        "median": pruners.MedianPruner,
        "halving": pruners.SuccessiveHalvingPruner,
        "hyperband": pruners.HyperbandPruner,
    }
    numbers = {key: value for key, value in settings.items() if key != "name"}
    return kinds[settings["name"]](**numbers)


class Reports:
    """Tells a study of a trial's validations; it may fail, and the training goes on.

    Args:
        directory: The run's directory.
        storage: See `open_storage`.
        study: The study's name.
        number: The trial's number.
        pruner: See `make_pruner`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        storage: str,
        study: str,
        number: int,
        pruner: Mapping[str, Any] | None = None,
    ) -> None:
        self._directory = directory
        self._storage = storage
        self._study = study
        self._number = number
        self._pruner = pruner
        self._trial: Trial | None = None

    def __call__(self, step: int, value: float) -> bool:
        """Report the value at a step, once; whether the trial should be pruned."""
        try:
            if self._trial is None:
                self._trial = self._open()
            known = self._trial.study.get_trials(deepcopy=False)[self._number].intermediate_values
            if step not in known:
                self._trial.report(value, step)
            return self._trial.should_prune()
        except Exception as error:  # a study may lie on a database that is away for a while
            log.warning("step %d could not be reported to the study: %s", step, error)
            return False

    def _open(self) -> "Trial":
        import optuna

        study = optuna.load_study(
            study_name=self._study,
            storage=open_storage(self._storage, self._directory),
            sampler=optuna.samplers.RandomSampler(),  # suggests nothing here
            pruner=make_pruner(self._pruner),
        )
        return optuna.Trial(study, trial_id(study, self._number))


def trial_id(study: "Study", number: int) -> int:
    """The storage's name for a trial."""
    return int(study.get_trials(deepcopy=False)[number]._trial_id)
