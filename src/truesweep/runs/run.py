"""A run: the frozen configuration that a job starts from, and what the job leaves behind.

A job of a sweep is a run whose directory also says which place it has there.
"""

import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import yaml

from truesweep.errors import ConfigError, DataError, UserError, in_short, shorten
from truesweep.figures import HARNESS, OWN_COUNT, STANDARD_ERROR, Figure, find, read
from truesweep.record.files import (
    SEAL,
    checksum_of_start,
    checksum_path,
    lock,
    locked,
    replacing,
    sealed,
    timestamp,
    unsealed,
    verify_checksum,
    write_atomic,
    write_checksum,
    write_json,
)
from truesweep.record.frozen import fingerprint, freeze, read_yaml, thaw
from truesweep.record.rows import NOT_FINITE
from truesweep.record.rows import read as read_rows
from truesweep.runs import evaluations
from truesweep.text import number, relabel

UNREADABLE = (OSError, UserError)
"""What reading a run's files raises if they are empty, damaged, or not to be had."""
REMEDY = "Restore it, or delete the run's directory and repeat its command"
"""What to do about a file of a run that cannot be read."""
SHARED = ("trunk", "replays", "branches", "siblings")
"""What a job's place in its sweep says of steps that it shares with others, either way."""
_GROUPS = ("task", "data", "tokenizer", "model", "optimizer", "scheduler", "trainer")
_NUMBER = int | float
_TYPES: dict[str, dict[str, Any]] = {
    "status.json": {
        "state": str,
        "exit_code": int | None,
        "error": str | None,
        "verdict": dict | None,
        "step": int,
        "saved_step": int | None,
        "total_steps": int,
        "started": datetime,
        "finished": datetime | None,
        "updated": datetime,
        "pid": int | None,
        "wandb_id": str,
        "recorded": list | None,
        "dropped": str,
    },
    "results.json": {"verdict": dict | None, "cleaned": dict, "best_step": int | None},
    "job.json": {
        "sweep": str,
        "label": str,
        "varies": dict,
        "swept": dict,
        "trial": dict | None,
        "number": int,
        "devices": int,
        "nodes": int,
    },
    "provenance.json": {
        "fingerprint": str,
        "command": list,
        "directory": str,
        "changes": list,
        "programs": list,
        "git": dict | None,
        "packages": dict,
        "hardware": dict,
        "data": dict,
        "figures": dict | None,
        "launcher": dict | None,
        "overrides_sha256": str,
        "origins": dict,
    },
    "memory.json": {"micro_batch_size": int},
    "programs.json": {"programs": list},
}
"""By file, what its entries are; a time is kept as text."""
State = Literal["running", "completed", "failed", "preempted", "paused", "pruned"]
UNFINISHED = ".unfinished"
"""How the names of hidden folders end in which runs' directories are made."""
SECONDS_TO_ASK = 1.0
"""Whoever asks only whether a run is worked on holds its lock for less."""
_OWN = ("config.yaml", "provenance.json", "job.json")
"""Files that lie in the directory of a run from its making on."""
SECONDS_TO_MAKE = 600.0
"""A directory that is not whole after so long is a killed process's, and nobody's any more."""


class BusyError(ConfigError):
    """Another process works on a run."""


@dataclass(frozen=True)
class Run:
    """One run, by its directory; everything else is read from there when it is asked for.

    Args:
        path: The directory, absolute.
    """

    path: Path

    @property
    def id(self) -> str:
        """The name of its directory."""
        return self.path.name

    # -- where everything lies ---------------------------------------------------------------

    @property
    def config(self) -> Path:
        """The whole configuration, resolved, secrets redacted."""
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """Holds `best.ckpt` and `last.ckpt`."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """The architecture's configuration and the tokenizer, in Hugging Face layout."""
        return self.path / "model"

    @property
    def results(self) -> Path:
        """Final figures."""
        return self.path / "results.json"

    @property
    def tables(self) -> Path:
        """Samples of text, translations or figures by class, from the test split."""
        return self.path / "tables.json"

    @property
    def metrics(self) -> Path:
        """One object per logged step."""
        return self.path / "metrics.jsonl"

    @property
    def memory(self) -> Path:
        """`micro_batch_size`: what a rank that ran out of memory wants the next start to use."""
        return self.path / "memory.json"

    @property
    def largest_micro_batch(self) -> int | None:
        """Rows of a forward pass that fit the memory, if a rank ever ran out of it."""
        return read_entries(self.memory).get("micro_batch_size") if self.memory.exists() else None

    def log(self, rank: int) -> Path:
        """What one rank had to say."""
        return self.path / "logs" / f"rank{rank}.log"

    # -- making, finding and claiming --------------------------------------------------------

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        config: str,
        overrides: Sequence[str],
        provenance: dict[str, Any],
        job: Mapping[str, Any] | None = None,
    ) -> "Run":
        """Make a new run's directory; one that exists is never written to.

        It is built out of sight and then renamed, so that it is whole, or not there, at any moment.

        Args:
            path: The directory.
            config: The frozen configuration, as text.
            overrides: What the command line changed, secrets redacted.
            provenance: Where the run's numbers will come from.
            job: For a job of a sweep, what places it there; see `Run.job`.

        Raises:
            ConfigError: The directory exists.
        """
        path = path.absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(path.parent)
        # One level deeper than runs are looked for.
        with TemporaryDirectory(prefix=".", suffix=UNFINISHED, dir=path.parent) as hidden:
            new = Path(hidden) / path.name
            for folder in (new, new / "checkpoints", new / "logs"):
                folder.mkdir()
            asked = yaml.safe_dump(list(overrides), allow_unicode=True)
            write_atomic(new / "overrides.yaml", asked)
            identity = {
                "fingerprint": fingerprint(yaml.safe_load(config)),
                "overrides_sha256": checksum_of_start(new / "overrides.yaml"),
            }
            write_entries(new / "provenance.json", identity | provenance)
            if job is not None:
                write_entries(new / "job.json", job)
            write_atomic(new / "config.yaml", config)
            _rename(new, path)
        return cls(path)

    @classmethod
    def open(cls, path: Path, or_sweep: bool = False) -> "Run":
        """A run's directory that exists.

        Args:
            path: The directory.
            or_sweep: Whether it might have been a sweep's, which a message then says.

        Raises:
            ConfigError: It does not, or is no run's.
        """
        run = cls(path.absolute())
        if not run.config.is_file():
            lacks = "neither config.yaml nor sweep.yaml" if or_sweep else "no config.yaml"
            what = f"has {lacks}" if path.exists() else "does not exist"
            more = ", or a sweep's, such as outputs/sweeps/NAME" if or_sweep else ""
            raise ConfigError(
                f"{path} {what}: name a run's directory, such as outputs/NAME/ID{more} "
                "(`truesweep train` prints it)"
            )
        return run

    @staticmethod
    def is_at(path: Path) -> bool:
        """Whether a directory is a run's, be it one that has lost some of its files."""
        return any((path / name).is_file() for name in _OWN)

    @property
    def alive(self) -> bool:
        """Whether a process works on this run, on any node that sees the same files."""
        try:
            with locked(self._lock, wait=0.0, new=False):
                return False
        except FileNotFoundError:  # nobody ever has
            return False
        except BlockingIOError:
            return True

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Be the only job that works on this run; the lock dies with its holders.

        Raises:
            BusyError: Another process works on it.
        """
        with ExitStack() as stack:
            try:
                descriptor = stack.enter_context(locked(self._lock, wait=SECONDS_TO_ASK))
                lock(descriptor, fcntl.LOCK_SH, wait=SECONDS_TO_ASK)  # its ranks may join
            except BlockingIOError:
                pid = self.status.get("pid", "unknown")
                raise BusyError(
                    f"{os.path.relpath(self.path)} is being worked on (process {pid}); "
                    "wait for its end, or stop it with SIGTERM and resume it"
                ) from None
            yield

    @contextmanager
    def join(self) -> Iterator[None]:
        """Work on this run for the job that has claimed it, and maybe outlive it for a moment."""
        with locked(self._lock, fcntl.LOCK_SH, wait=SECONDS_TO_ASK):
            yield

    @property
    def _lock(self) -> Path:
        return self.path / ".lock"

    # -- what was asked ----------------------------------------------------------------------

    def read_overrides(self) -> list[str]:
        """What the command line changed at first, secrets redacted; none where it is not kept.

        Raises:
            DataError: It cannot be read, or is not what was written.
        """
        file = self.path / "overrides.yaml"
        written = self.read_provenance().get("overrides_sha256")
        if not file.exists():
            if written:
                raise DataError(f"{file}: is missing. {REMEDY}")
            return []
        if written and checksum_of_start(file) != written:
            raise DataError(f"{file}: is not what the run has written. {REMEDY}")
        try:
            kept = read_yaml(file)
        except DataError as error:
            raise DataError(f"{file}: cannot be read: {in_short(error)}. {REMEDY}") from None
        if not isinstance(kept, list) or not all(isinstance(line, str) for line in kept):
            raise DataError(f"{file}: expected a list of overrides. {REMEDY}")
        return kept

    def read_config(self) -> dict[str, Any]:
        """The frozen configuration, as plain values; secrets stand as references.

        Raises:
            ConfigError: It cannot be read, or is not what was written.
        """
        config = thaw(self.config)
        if spoilt := spoilt_group(config):
            raise ConfigError(f"{self.config}: {spoilt} is no group of keys. {REMEDY}")
        self.check_asked(config)
        return config

    def check_asked(self, config: Mapping[str, Any]) -> None:
        """See that a configuration is what was asked of the run, at first or by a change.

        Raises:
            ConfigError: It is not.
        """
        asked = self._asked()
        if asked and fingerprint(config) not in asked:
            raise ConfigError(
                f"{self.config}: is not what the run was asked. {REMEDY}. For another experiment: "
                "`truesweep train --from DIR KEY=VALUE`"
            )

    def write_config(self, config: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Change what is asked of the run, and remember that; see `read_config`.

        Args:
            config: The new configuration.
            about: `overrides`, and what else is to be remembered of the change.
        """
        provenance = self.read_provenance()
        row = {**about, "fingerprint": fingerprint(config)}
        provenance["changes"] = [*provenance.get("changes", []), row]
        write_entries(self.path / "provenance.json", provenance)  # announced before it is there
        write_atomic(self.config, freeze(config))

    def _asked(self) -> set[str]:
        """The fingerprints of what was asked, at first and by changes; none if not all are known.

        They tell a damaged configuration. Version 0.1.0 did not keep them of changes.
        """
        provenance = self.read_provenance()
        rows = [provenance, *provenance.get("changes", [])]
        known = {str(row.get("fingerprint")) for row in rows if isinstance(row, dict)}
        return set() if "None" in known else known

    def read_provenance(self) -> dict[str, Any]:
        """Code, versions, hardware, data and command of the run."""
        file = self.path / "provenance.json"
        try:
            return read_entries(file)
        except FileNotFoundError:
            raise DataError(f"{file}: is missing. {REMEDY}") from None

    @property
    def identity(self) -> str:
        """The fingerprint of what was asked at first; a run that is made longer keeps it."""
        known = self.read_provenance().get("fingerprint")
        return str(known or fingerprint(self.read_config()))

    def new_wandb_id(self) -> str:
        """An id for W&B that no other run has, be it one of the same configuration."""
        return f"{self.identity[:16]}-{token_hex(4)}"

    @property
    def figures(self) -> dict[str, Figure]:
        """What its task declared of its figures, by their names."""
        return read(self.read_provenance().get("figures"), self.read_results())

    @property
    def started_in(self) -> Path:
        """What relative paths in its configuration are relative to; here, if that is gone."""
        folder = Path(self.read_provenance().get("directory", "."))
        return folder if folder.is_dir() else Path()

    # -- its place in a sweep ----------------------------------------------------------------

    @property
    def job(self) -> dict[str, Any]:
        """A job's place in its sweep, which is no part of what it is; empty for a single run.

        `sweep`: its name; `label`: what varies, in short; `varies`: the swept keys and their
        values, `swept` the same by short names; `trial`: the study that hears of every
        validation; `trunk`: the job that is the same up to a step, and that step; `replays`: jobs
        that train the same up to later steps, and these, which it validates itself; `branches`: the
        steps after which others go on from here; `siblings`: jobs of a search that share steps
        with it, and the step up to which it may begin with theirs.
        """
        file = self.path / "job.json"
        return read_entries(file) if file.exists() else {}

    @property
    def varies(self) -> dict[str, Any]:
        """The swept keys and their values, in the sweep's order; empty for a single run."""
        return dict(self.place.get("varies") or {})

    @property
    def label(self) -> str:
        """What varies, in short, such as `lr=3e-4 depth=6`; the id of a single run."""
        return relabel(str(self.place.get("label", self.id)))

    @property
    def devices(self) -> int:
        """Devices that a job of a sweep needs on each node."""
        return int(self.place.get("devices", 1))

    @property
    def nodes(self) -> int:
        """Nodes that a job of a sweep needs."""
        return int(self.place.get("nodes", 1))

    @property
    def number(self) -> int:
        """Where a job stands in the order of its sweep's."""
        return int(self.place.get("number", 0))

    @property
    def place(self) -> dict[str, Any]:
        """The same as `job`; nothing if that cannot be read, see `problem`."""
        try:
            return self.job
        except UNREADABLE:
            return {}

    # -- how far it is -----------------------------------------------------------------------

    @property
    def problem(self) -> str | None:
        """Which of its files cannot be read, and why."""
        try:
            _ = self.job, self.status, self.read_results()
            if not self.config.exists():
                return f"{self.config}: is missing. {REMEDY}"
            if not self.config.stat().st_size:
                return f"{self.config}: is empty. {REMEDY}"
            if lost := self._lost():
                return f"{self.path / lost}: is missing. {REMEDY}"
        except UNREADABLE as error:
            return str(error)
        return None

    def _lost(self) -> str | None:
        """A file that it lacks, though it must have been there, as others show."""
        if (self.path.parent / "sweep.yaml").exists() and not self.job:
            return "job.json"
        # Without a log it is what a kill has left that came while another's state was taken over.
        if self.metrics.exists() and self.log(0).exists() and not self.status:
            return "status.json"
        return None

    @property
    def error(self) -> str | None:
        """Why it failed, or cannot be read."""
        return self.problem or self.status.get("error")

    @property
    def state(self) -> str:
        """`queued`, `running`, `interrupted` (killed while running) or how it ended.

        `broken`: files of it cannot be read, see `problem`.
        """
        return "broken" if self.problem is not None else self.state_by(self.status)

    def state_by(self, status: Mapping[str, Any]) -> str:
        """The state that a status tells: one that says `running` does not know of a kill."""
        state = str(status.get("state", "queued"))
        return "interrupted" if state == "running" and not self.alive else state

    @property
    def step(self) -> int:
        """Optimizer steps done, as far as it has told."""
        return int(self.status.get("step") or 0)

    def objective(self, name: str, mode: str = "min") -> float | None:
        """A figure by which jobs are compared; None before there is one.

        The one in `results.json`, which belongs to the best checkpoint; before there are results
        the best of the validations so far.

        Args:
            name: Such as `val/loss`.
            mode: `min` or `max`: which validation is the best.
        """
        final = number(self.read_results().get(name))
        if final is not None or not self.metrics.exists():
            return final
        values = [number(row.get(name)) for row in self.read_metrics()]
        kept = [v for v in values if v is not None and v == v]  # NaN is never the best
        return (min if mode == "min" else max)(kept, default=None)

    @property
    def status(self) -> dict[str, Any]:
        """State, exit code, error, step and times; of a run that diverged, the verdict.

        Empty before the first start.
        """
        file = self.path / "status.json"
        return read_entries(file) if file.exists() else {}

    def update_status(self, **changes: Any) -> None:
        """Change some entries of `status.json`."""
        status = {**self.status, **changes, "updated": timestamp()}
        write_entries(self.path / "status.json", status)

    def begin(self) -> None:
        """A job starts, or starts again."""
        checksum_path(self.metrics).unlink(missing_ok=True)
        self.update_status(
            state="running",
            exit_code=None,
            error=None,
            verdict=None,
            step=self.status.get("step", 0),
            started=self.status.get("started", timestamp()),
            finished=None,
            recorded=None,
            pid=os.getpid(),
        )

    def end(self, state: State, exit_code: int, error: str | None = None) -> None:
        """A job has ended; an error that is longer than a person reads is whole in the log only."""
        short = None if error is None else shorten(error)
        if self.metrics.exists():
            write_checksum(self.metrics)  # until it is started again
        ended = {"state": state, "exit_code": exit_code, "error": short}
        self.update_status(**ended, finished=timestamp(), recorded=None)

    # -- what came out -----------------------------------------------------------------------

    def read_metrics(self) -> list[dict[str, Any]]:
        """The rows of its record; none before the first.

        Raises:
            DataError: It is damaged.
        """
        self.check_metrics()
        return read_rows(self.metrics) if self.metrics.exists() else []

    def check_metrics(self) -> None:
        """See that the record is as it was when the run ended or, before that, last told of it.

        Raises:
            DataError: It is not.
        """
        announced, told = checksum_path(self.metrics), self.status.get("recorded")
        if announced.exists() and not verify_checksum(self.metrics):
            if announced.exists():  # a run that goes on removes it first
                how = "is not what the run has written" if self.metrics.exists() else "is missing"
                raise DataError(
                    f"{self.metrics}: {how}. Restore it. If that was on purpose, delete "
                    f"{announced.name}; to go on without the record, delete both"
                )
        elif told and self.metrics.exists():
            length, checksum = told
            changed = checksum_of_start(self.metrics, length) != checksum
            if changed and self.status.get("recorded") == told:  # and this takes it back
                raise DataError(
                    f"{self.metrics}: is not what the run has written. Restore it, or delete it: "
                    "the curve then begins where the run goes on"
                )

    def read_results(self) -> dict[str, Any]:
        """Final figures; empty before the end.

        Raises:
            DataError: They are damaged, or gone.
        """
        if self.results.exists():
            return read_entries(self.results)
        if self.status.get("state") == "completed":
            raise DataError(f"{self.results}: is missing. {REMEDY}")
        return {}

    def write_scores(self, split: str, scores: Mapping[str, npt.NDArray[Any]]) -> None:
        """Keep what the best checkpoint scores on each sample of a split, in their order."""
        (self.path / "scores").mkdir(exist_ok=True)
        with replacing(self.path / "scores" / f"{split}.npz") as file:
            np.savez_compressed(file, allow_pickle=False, **scores)

    def read_scores(self, split: str) -> dict[str, npt.NDArray[Any]]:
        """By name, one row a sample: `nll` and `count`, `gold` and `predicted`, BLEU's counts."""
        file = self.path / "scores" / f"{split}.npz"
        if not file.exists():
            return {}
        try:
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                return dict(arrays)
        except Exception as error:  # NumPy's and zipfile's own, by where the damage is
            raise DataError(
                f"{file}: cannot be read: {in_short(error)}. Delete it: figures are then compared "
                "without their samples"
            ) from None

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """Every scoring of the run."""
        return evaluations.read(self.path)

    @property
    def test_scorings(self) -> list[dict[str, Any]]:
        """The evaluations that scored the samples of the run's own test split, by any name."""
        rows = self.evaluations
        own = {row.get("fingerprint") for row in rows if row.get("own")} - {None}
        return [row for row in rows if row.get("fingerprint") in own]

    def record_evaluation(self, what: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
        """Keep a scoring: a test split that is looked at often is a validation split.

        Args:
            what: See `evaluations.record`; and `own` where it is the run's at its end.
            figures: What came out.
        """
        ends = tuple(f"{name}/" for name in (what.get("split"), HARNESS) if name)
        kept = {key: value for key, value in figures.items() if any(end in key for end in ends)}
        evaluations.record(self.path, what, kept)


def spoilt_group(config: Mapping[str, Any]) -> str | None:
    """A group of a configuration that is no mapping of keys, if any is."""
    return next((name for name in _GROUPS if not isinstance(config.get(name, {}), dict)), None)


def write_entries(path: Path, entries: Mapping[str, Any]) -> None:
    """Keep entries in one of a run's JSON files that change, with their checksum among them."""
    write_json(path, sealed(entries))


def read_entries(path: Path) -> dict[str, Any]:
    """What a run keeps in one of its JSON files.

    Raises:
        DataError: The file is damaged, or one of the entries that are used is of another type.
        OSError: It is not there.
    """
    if checksum_path(path).exists() and not verify_checksum(path):
        raise DataError(_not_as_written(path, checksum_path(path).name))
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read: {error}. {REMEDY}") from None
    if not isinstance(loaded, dict):
        raise DataError(f"{path}: expected a mapping, found {type(loaded).__name__}. {REMEDY}")
    if not loaded and path.name in _TYPES:
        raise DataError(f"{path}: has no entries. {REMEDY}")
    entries = unsealed(loaded)
    if entries is None:
        raise DataError(_not_as_written(path, f"its entry {SEAL}"))
    known = _TYPES.get(path.name, {})
    others = _figure_type if path.name == "results.json" else _any
    for name, value in entries.items():
        wanted = known[name] if name in known else others(name)
        if not _fits(_as_value(value, wanted), wanted):
            raise DataError(f"{path}: {name} is {value!r}, which it cannot be. {REMEDY}")
    return entries


def _figure_type(name: str) -> Any:
    """A number for a figure; what stands beside one, such as BLEU's signature, may be text."""
    of = name.removesuffix(STANDARD_ERROR).removesuffix(OWN_COUNT)
    is_figure = name.startswith("train/") or find(of) is not None
    return _NUMBER | None if is_figure else _NUMBER | str | None


def _any(name: str) -> Any:
    return object


def _fits(value: Any, wanted: Any) -> bool:
    """Whether a value is of a type; what is true or false is no number."""
    return isinstance(value, wanted) and not (isinstance(value, bool) and wanted is not object)


def _not_as_written(path: Path, checksum: str) -> str:
    return (
        f"{path}: is not what the run has written. {REMEDY}. If it was changed on purpose, "
        f"delete {checksum}"
    )


def _as_value(value: Any, wanted: Any) -> Any:
    """What a text stands for where a time or a number is wanted; all else as it is."""
    if not isinstance(value, str):
        return value
    if wanted == _NUMBER | None and value in NOT_FINITE:
        return float(value)
    try:
        return datetime.fromisoformat(value) if wanted in (datetime, datetime | None) else value
    except ValueError:
        return value


def _remove_unfinished(folder: Path) -> None:
    """Remove what processes have left that were killed while they made a directory."""
    for hidden in folder.glob(f".*{UNFINISHED}"):
        with suppress(FileNotFoundError):  # another process removes it
            if time.time() - hidden.stat().st_mtime > SECONDS_TO_MAKE:
                shutil.rmtree(hidden, ignore_errors=True)


def _rename(new: Path, path: Path) -> None:
    """Put a directory in its place.

    Raises:
        ConfigError: The place is taken.
    """
    try:
        new.rename(path)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        raise ConfigError(_exists_message(path)) from None


def _exists_message(path: Path) -> str:
    run, shown = Run(path), os.path.relpath(path)
    if not run.config.is_file():
        return f"{shown} exists and is no run's directory (it has no config.yaml): delete it"
    state = run.status.get("state", "unfinished")
    return (
        f"{shown} exists ({state}): the same configuration was started before.\n"
        f"To continue or look at it: truesweep resume {shown}\n"
        f"To train it again: truesweep train --from {shown} name=again\n"
        f"To train another: give another seed=… or name=…, or delete the directory"
    )
