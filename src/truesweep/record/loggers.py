"""What a run tells its loggers, and any Lightning logger as one of them.

`metrics.jsonl` is always written, and first; loggers mirror it, and what becomes of one of them
never harms the training.
"""

import hashlib
import inspect
import json
import logging
import queue
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only
from typing_extensions import override

from truesweep.figures import BUILT_IN
from truesweep.record.dashboard import Dashboard
from truesweep.record.files import dump_json, write_atomic
from truesweep.record.rows import Row, parse, read, scalars
from truesweep.secrets import scrub

log = logging.getLogger(__name__)

BEST = {name: figure.mode for name, figure in BUILT_IN.items() if figure.mode}
FINISH_SECONDS = 28.0
"""How long the end of a run waits for a logger."""


FOLDERS = ("directory", "save_dir", "root_dir", "log_dir")
"""What parameters are called that take the folder in which a logger writes."""

GIVEN_BY_SERVERS = ("run_id", "experiment_key")
"""Of parameters for a run's id those that, if they are not required, take what a server gave."""


@dataclass(frozen=True)
class RunInfo:
    """What a logger is told of the run when it is built.

    Args:
        directory: The run's directory; what a logger writes goes into a folder there.
        id: The same at every resume, and no other run's.
        name: The run's name, or its sweep's.
        config: The resolved configuration, secrets as references.
        label: What varies in a sweep, in short, such as `lr=0.01`; empty outside of one.
        group: Runs that belong together: the sweep's name; None outside of one.
        job_type: `train`, `sweep` for a sweep's job, `summary` for what sums a sweep up.
        tags: Labels that follow from the run: its task, its architecture, its commit.
        swept: The varying keys in short, with their values.
        best: `min` or `max` by a figure's name without the split, such as `loss`: which of its
            validations is shown of the run; of other figures the last is.
        agents: Whether W&B's agent has started it, and waits for this run.
    """

    directory: Path
    id: str
    name: str
    config: Mapping[str, Any]
    label: str = ""
    group: str | None = None
    job_type: str = "train"
    tags: Sequence[str] = ()
    swept: Mapping[str, Any] = field(default_factory=dict)
    best: Mapping[str, str] = field(default_factory=lambda: dict(BEST))
    agents: bool = False

    def facts(self, folder: Path) -> dict[str, Any]:
        """The same under the names that parameters of loggers have.

        Args:
            folder: The logger's own folder.
        """
        return {
            **dict.fromkeys(FOLDERS, str(folder)),
            **dict.fromkeys(("version", "id", *GIVEN_BY_SERVERS), self.id),
            **dict.fromkeys(("name", "run_name"), self.label or self.name),
            "group": self.group,
            "job_type": self.job_type,
            "tags": list(self.tags),
            "config": dict(self.config),
            "resume": bool(self.rows()),
        }

    def kept_id(self, key: str) -> Path:
        """The file that keeps what a logger's server calls the run, for a resume.

        Args:
            key: The logger's key, such as `logger` or `logger.mine`.
        """
        return self.directory / f"{key}.id"

    def rows(self) -> list[Row]:
        """What is recorded so far, and is recorded before the loggers get it."""
        path = self.directory / "metrics.jsonl"
        return read(path) if path.exists() else []


FACTS = frozenset(RunInfo(Path(), "", "", {}).facts(Path()))
"""The names of parameters that a logger may leave to the program."""


class RunLogger(Logger):
    """What a run calls, on rank 0 only. The first four may come in any order; `finish` is the last.

    Args:
        info: What the run is.
    """

    def __init__(self, info: RunInfo) -> None:
        super().__init__()
        self.info = info

    def check(self) -> None:
        """Called when a run is planned: is there anything that a server would refuse?

        Raises:
            ConfigError: There is.
        """

    @property
    @override
    def name(self) -> str:
        return self.info.name

    @property
    @override
    def version(self) -> str:
        return self.info.id

    @property
    @override
    def save_dir(self) -> str:
        return str(self.info.directory)

    @override
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the configuration stands in `info`."""

    @override
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Take one row: values, numbers or tensors of one element, at an optimizer step.

        Of steps that another run has trained, `time` is among them: seconds of training until then.
        """
        raise NotImplementedError

    def log_table(
        self,
        name: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]],
        step: int | None = None,
    ) -> None:
        """Take a table, such as samples of the output, at a step or else at the latest one."""

    def alert(self, title: str, text: str, level: Literal["INFO", "WARN", "ERROR"]) -> None:
        """Tell the user."""

    def log_artifact(self, files: Sequence[Path]) -> None:
        """Keep the best checkpoint and the configuration, if that is wanted of it."""

    def log_dashboard(self, shown: Dashboard) -> None:
        """Arrange the curves of a sweep's runs, and what was learned, where a logger can."""

    def finish(self, summary: Mapping[str, Any] | None = None, exit_code: int = 0) -> None:
        """Close the record.

        Args:
            summary: The final figures, and `state`: `completed`, `preempted`, `paused`, `pruned`,
                `failed` or `diverged`.
            exit_code: The run's.
        """


class Guarded(RunLogger):
    """Any Lightning logger, in a thread: neither its errors nor its time are the training's.

    Each of its methods is called if it has it, with just what its signature takes. One that lies in
    the run's directory is written anew by a resume, from `metrics.jsonl`; others go on.

    Args:
        info: What the run is.
        name: What messages call it, such as `logger=csv`.
        build: Builds it.
        folder: Its folder in the run's directory; None if it writes elsewhere.
    """

    def __init__(
        self, info: RunInfo, name: str, build: Callable[[], Logger], folder: Path | None
    ) -> None:
        super().__init__(info)
        self._name = name
        self._build = build
        self._folder = folder
        self._calls: queue.Queue[Callable[[Logger], None] | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._curves: set[str] = set()  # names that rows have had
        self._last: Row = {}
        self._failed = False

    @override
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        row = {**scalars(metrics), "step": step}
        self._put(partial(self._row, row=row))

    @override
    def log_table(
        self,
        name: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]],
        step: int | None = None,
    ) -> None:
        columns, rows = list(columns), [list(row) for row in rows]
        self._put(lambda logger: self._table(logger, name, columns, rows, step))

    @override
    def alert(self, title: str, text: str, level: Literal["INFO", "WARN", "ERROR"]) -> None:
        self._put(lambda logger: _offer(logger, "alert", title=title, text=text, level=level))

    @override
    def log_artifact(self, files: Sequence[Path]) -> None:
        self._put(lambda logger: _offer(logger, "log_artifact", files=list(files)))

    @override
    def finish(self, summary: Mapping[str, Any] | None = None, exit_code: int = 0) -> None:
        """Close the record, in at most `FINISH_SECONDS`."""
        figures = scalars(summary or {})
        self._put(lambda logger: self._end(logger, figures, exit_code))
        self._calls.put(None)
        assert self._thread is not None
        self._thread.join(FINISH_SECONDS)
        if self._thread.is_alive():
            log.warning("%s did not finish in %.0f s and was left.", self._name, FINISH_SECONDS)

    def _put(self, call: Callable[[Logger], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, args=[self.info.rows()], daemon=True)
            self._thread.start()
        self._calls.put(call)

    def _work(self, earlier: Sequence[Row]) -> None:
        """Build the logger and carry out the calls; the first that fails is told."""
        try:
            logger = self._started(earlier)
        except Exception as error:
            self._tell("could not be started, the run is not mirrored there", error)
            return
        for call in iter(self._calls.get, None):
            self._try(call, logger)

    def _started(self, earlier: Sequence[Row]) -> Logger:
        if self._folder is not None and self._folder.exists():
            shutil.rmtree(self._folder)
        logger = self._build()
        if self._folder is None:
            self._try(self._keep_id, logger)
        self._try(lambda it: it.log_hyperparams(dict(self.info.config)), logger)
        for row in earlier if self._folder is not None else ():
            self._try(partial(self._row, row=row), logger)
        return logger

    def _try(self, call: Callable[[Logger], None], logger: Logger) -> None:
        try:
            call(logger)
        except Exception as error:
            if not self._failed:
                self._tell("does not mirror all, metrics.jsonl has it", error)
            self._failed = True

    def _tell(self, what: str, error: Exception) -> None:
        """Warn the user, without the secrets that an error may quote."""
        log.warning("%s %s: %s", self._name, what, scrub(repr(error), dict(self.info.config)))

    def _keep_id(self, logger: Logger) -> None:
        if version := logger.version:
            write_atomic(self.info.kept_id(self._name.partition("=")[0]), str(version))

    def _row(self, logger: Logger, row: Row) -> None:
        row = {name: value for name, value in row.items() if name != "time"}
        if row["step"] == self._last.get("step") and row.items() <= self._last.items():
            return  # it was in the file already
        self._last = row
        self._curves |= row.keys()
        logger.log_metrics({k: v for k, v in row.items() if k != "step"}, row["step"])
        logger.save()

    def _table(
        self, logger: Logger, name: str, columns: list[str], rows: list[Any], step: int | None
    ) -> None:
        step = self._last.get("step", 0) if step is None else step
        if hasattr(logger, "log_table"):
            named = {"name": name, "key": name, "columns": columns, "rows": rows, "data": rows}
            _offer(logger, "log_table", step=step, **named)
        elif hasattr(getattr(logger, "experiment", None), "add_text"):  # TensorBoard's
            lines = [
                json.dumps(cells, ensure_ascii=False, default=str) for cells in (columns, *rows)
            ]
            code = "\n".join(f"    {line}" for line in lines)  # indented, it is no markup
            logger.experiment.add_text(name, code, step)  # type: ignore[attr-defined]

    def _end(self, logger: Logger, summary: Row, exit_code: int) -> None:
        """Give the final figures beside the curves, and close."""
        if hasattr(logger, "finish"):
            _offer(logger, "finish", summary=summary, exit_code=exit_code)
            return
        # The figure of the best step is no point of the curve at the last one.
        figures = {
            f"best/{name}" if name in self._curves else name: value
            for name, value in summary.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        step = self._last.get("step", 0)
        if "metrics" in _parameters(logger.log_hyperparams):
            config = dict(self.info.config)
            _offer(logger, "log_hyperparams", config, metrics=figures, step=step)
        elif figures:
            logger.log_metrics(figures, step)
        logger.save()
        logger.finalize("failed" if exit_code else "success")


def _offer(logger: Logger, method: str, *arguments: Any, **named: Any) -> None:
    """Call a method, if the logger has it, with those of the named arguments that it takes."""
    call = getattr(logger, method, None)
    if callable(call):
        known = _parameters(call)
        call(*arguments, **{name: value for name, value in named.items() if name in known})


def _parameters(call: Callable[..., Any]) -> Collection[str]:
    return inspect.signature(call).parameters


# -- the record that is always written -------------------------------------------------------------


class MetricsFile(Logger):
    """Appends one JSON object per logged step to `directory/metrics.jsonl`, on rank 0.

    A row holds `step` (optimizer steps), `tokens` (trained on so far), `time` (seconds since the
    run started, going on over resumes) and the values logged. What is logged again for the last
    step joins its row. A row is with the operating system before `log_metrics` returns, so it
    outlives the process; a row cut in half by a kill is removed when the file is next opened.
    """

    def __init__(self, directory: str | Path) -> None:
        super().__init__()
        self.path = Path(directory) / "metrics.jsonl"
        self._started = time.monotonic()
        self._opened = False
        self._sum, self._summed = hashlib.sha256(), 0

    @property
    @override
    def name(self) -> str:
        return "metrics"

    @property
    @override
    def version(self) -> str:
        return ""

    @property
    @override
    def save_dir(self) -> str:
        return str(self.path.parent)

    @override
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the configuration stands in `config.yaml`."""

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write `metrics`, numbers or tensors of one element, as the values at optimizer `step`."""
        assert step is not None, "metrics are logged against an optimizer step"
        if not self._opened:
            self._open()
        join = self._last.get("step") == step
        row = {
            "step": step,
            "tokens": self._last.get("tokens", 0),
            "time": round(self._earlier + time.monotonic() - self._started, 3),
        }
        self._write((self._last if join else {}) | row | scalars(metrics), join)

    @rank_zero_only
    def truncate(self, step: int) -> None:
        """Drop the rows after `step`, from which training goes on, so that none stands twice."""
        if self.path.exists():
            lines = [line for line, row in parse(self.path) if row["step"] <= step]
            write_atomic(self.path, b"".join(lines))
        if self._opened:  # the last row tells the time until here
            self._started = time.monotonic()
        self._opened = False

    @rank_zero_only
    def settled(self) -> tuple[int, str] | None:
        """The rows that nothing changes any more, all but the last: their bytes, their checksum.

        Each is read once: what changes in the file later does not agree with the checksum.
        """
        if not self.path.exists():
            return None
        if not self._opened:
            self._open()
        with self.path.open("rb") as file:
            file.seek(self._summed)
            self._sum.update(file.read(self._start - self._summed))
        self._summed = self._start
        return self._start, self._sum.hexdigest()

    def _open(self) -> None:
        """Take up the file where its last whole row ends."""
        self.path.touch()
        rows = parse(self.path)
        self._last: Row = rows[-1][1] if rows else {}
        self._end = sum(len(line) for line, _ in rows)  # bytes
        self._start = self._end - (len(rows[-1][0]) if rows else 0)  # of the last row
        self._earlier = float(self._last.get("time", 0.0))  # seconds before this process
        self._sum, self._summed = hashlib.sha256(), 0  # of the first bytes
        self._opened = True

    def _write(self, row: Row, join: bool) -> None:
        """Write `row` over the last one if it is to `join` that, after it otherwise."""
        with self.path.open("r+b", buffering=0) as file:
            self._start = file.seek(self._start if join else self._end)
            self._end = self._start + file.write(f"{dump_json(row)}\n".encode())
            file.truncate(self._end)
        self._last = row
