"""A sweep's directory: what was asked, its jobs, and one run's directory for each of them."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from truesweep.errors import ConfigError
from truesweep.figures import as_direction, recorded_mode
from truesweep.record.files import dump_json, sealed, write_atomic
from truesweep.record.frozen import fingerprint, freeze, thaw
from truesweep.record.rows import read_objects
from truesweep.runs.run import UNREADABLE, Run
from truesweep.sweeps.settings import Sweep
from truesweep.text import short_names

ROOT = Path("outputs/sweeps")
"""Where sweeps lie, relative to where a command is typed."""

_FORM = TypeAdapter(Sweep)


@dataclass(frozen=True)
class SweepDirectory:
    """Where everything of one sweep lies.

    Args:
        path: The directory, absolute.
    """

    path: Path

    @property
    def name(self) -> str:
        """The sweep's name."""
        return self.path.name

    @property
    def asked(self) -> Path:
        """What was asked, command by command, and the settings of the latest."""
        return self.path / "sweep.yaml"

    @property
    def summary(self) -> Path:
        """One row a job; never believed over a job's own `status.json`."""
        return self.path / "jobs.jsonl"

    @property
    def journal(self) -> Path:
        """Optuna's storage, unless another was named."""
        return self.path / "study.journal"

    @property
    def study(self) -> str:
        """The name of its search's study: the name it had at first, as a directory may be moved."""
        record = self.read() if self.asked.exists() else {}
        return str(record.get("study") or record.get("name") or self.name)

    @property
    def report(self) -> Path:
        """The comparison of the jobs."""
        return self.path / "report.html"

    @classmethod
    def called(cls, name: str) -> "SweepDirectory":
        """That of a name, seen from where a command is typed; it need not exist."""
        return cls((ROOT / name).absolute())

    @classmethod
    def open(cls, path: Path) -> "SweepDirectory":
        """A sweep's directory that exists.

        Raises:
            ConfigError: It does not, or is no sweep's.
        """
        sweep = cls(path.absolute())
        if not sweep.asked.is_file():
            what = "has no sweep.yaml" if path.is_dir() else "does not exist"
            raise ConfigError(
                f"{path} {what}: name a sweep's directory, such as outputs/sweeps/NAME "
                "(`truesweep train -m` prints it)"
            )
        return sweep

    @staticmethod
    def is_sweep(path: Path) -> bool:
        """Whether a directory is a sweep's."""
        return (path / "sweep.yaml").is_file()

    def ask(
        self,
        overrides: Sequence[str],
        config_dirs: Sequence[Path],
        settings: Sweep,
        launcher: Mapping[str, Any],
        jobs: Sequence[str] = (),
        origins: Mapping[str, str] | None = None,
        duel: Mapping[str, Any] | None = None,
    ) -> None:
        """Record a command, in a new directory or in addition to what was asked before.

        One that is repeated becomes the latest.

        Args:
            overrides: As typed, secrets redacted.
            config_dirs: The user's own folders of configuration.
            settings: The `sweeps` node, resolved.
            launcher: Hydra's launcher node, resolved.
            jobs: The ids of the jobs that it plans, none of which needs a directory yet; none of a
                search, whose jobs are not known before it is over, see `close`.
            origins: Where settings come from, by their dotted keys here; the others are defaults.
            duel: What is fought about, if the jobs are a duel's.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        entry = {
            "overrides": list(overrides),
            "config_dirs": [str(folder.absolute()) for folder in config_dirs],
            "directory": str(Path.cwd()),
        }
        before = self.read()["asked"] if self.asked.exists() else []
        others = [old for old in before if {key: old.get(key) for key in entry} != entry]
        told = {} if origins is None else {"origins": dict(origins)}
        record = {
            "name": self.name,
            "study": self.study,
            "asked": [*others, {**entry, "jobs": list(jobs), **told}],
            "sweeps": asdict(settings),
            "launcher": dict(launcher),
            **({} if duel is None else {"duel": dict(duel)}),
        }
        self._write(record)

    def close(self, jobs: Sequence[Run]) -> None:
        """Note that a search is over: these are the jobs that its latest command has."""
        record = self.read()
        record["asked"][-1]["jobs"] = [job.id for job in jobs]
        self._write(record)

    def note(self, **entries: Any) -> None:
        """Keep more beside what was asked, until the next command, such as what came of it."""
        self._write(self.read() | entries)

    def _write(self, record: Mapping[str, Any]) -> None:
        text = yaml.safe_dump(sealed(record), sort_keys=False, allow_unicode=True)
        write_atomic(self.asked, text)

    def read(self) -> dict[str, Any]:
        """`name`, `asked`, `sweeps` and `launcher`.

        Raises:
            ConfigError: The file cannot be read, or lacks one of them.
        """
        record = thaw(self.asked)
        missing = [key for key in ("asked", "sweeps", "launcher") if key not in record]
        if missing:
            raise ConfigError(f"{self.asked}: has no {', '.join(missing)}")
        commands = record["asked"]
        kinds = isinstance(record["sweeps"], dict) and isinstance(record["launcher"], dict)
        whole = isinstance(commands, list) and commands and all(map(_is_command, commands))
        if not (kinds and whole):
            raise ConfigError(
                f"{self.asked}: is not as the program wrote it. Restore it, or repeat the sweep's "
                "command, which keeps its jobs, when the file is gone"
            )
        return record

    def _settings(self, record: Mapping[str, Any]) -> Sweep:
        written = json.dumps(record["sweeps"], default=str)
        with suppress(ValidationError):
            if record["sweeps"].keys() <= {each.name for each in fields(Sweep)}:
                return _FORM.validate_json(written, strict=True)
        from truesweep.config.schema import check_settings  # and Hydra, to say what is wrong

        try:
            settings: Sweep = check_settings(Sweep, record["sweeps"], "sweeps")
        except ConfigError as error:
            raise ConfigError(f"{self.asked}: {error}") from None
        return settings

    @property
    def settings(self) -> Sweep:
        """The settings of the latest command."""
        settings = self._settings(self.read())
        if settings.direction is not None:
            return settings
        modes = [recorded_mode(name) for name in settings.objectives]
        return replace(settings, direction=[as_direction(mode) for mode in modes])

    @property
    def launcher(self) -> dict[str, Any]:
        """The launcher's settings of the latest command."""
        return dict(self.read()["launcher"])

    def jobs(self) -> list[Run]:
        """All jobs that have a directory, in the order in which they were added."""
        runs = [Run(folder) for folder in self.path.glob("*") if Run.is_at(folder)]
        return sorted(runs, key=lambda run: (run.number, run.id))

    def missing(self, command: Mapping[str, Any]) -> set[str]:
        """The ids of a command's jobs that have no directory: it was killed before they had.

        Args:
            command: An entry of `asked`.
        """
        ids = command.get("jobs", ())
        return {name for name in ids if not Run.is_at(self.path / name)}

    @property
    def planned(self) -> int:
        """How many jobs there are to be, as far as is known; of a search, how many points."""
        record = self.read()
        settings = self._settings(record)
        if settings.method == "search":
            over = record["asked"][-1].get("jobs")
            return 0 if over else settings.jobs or 0
        missing = set[str]().union(*(self.missing(command) for command in record["asked"]))
        return len(self.jobs()) + len(missing)

    def find(self, config: Mapping[str, Any]) -> Run | None:
        """The directory of a job with this configuration, if there is one."""
        run = Run(self.path / job_id(config))
        return run if Run.is_at(run.path) else None

    def add(
        self,
        config: Mapping[str, Any],
        overrides: Sequence[str],
        varies: Mapping[str, Any],
        *,
        label: str,
        number: int,
        provenance: Mapping[str, Any],
        devices: int = 1,
        nodes: int = 1,
        trial: Mapping[str, Any] | None = None,
        trunk: tuple[str, int] | None = None,
        replays: Sequence[tuple[str, int]] = (),
        branches: Sequence[int] = (),
        siblings: Sequence[tuple[str, int]] = (),
    ) -> Run:
        """A job's directory: a new one, or that of the same configuration as it is.

        Args:
            config: The checked configuration.
            overrides: What was asked for this job, secrets redacted.
            varies: The swept keys and their values.
            label: What varies, in short.
            number: Its place in the order of the sweep's jobs.
            provenance: Where its numbers will come from.
            devices: Devices that it needs on each node.
            nodes: Nodes that it needs.
            trial: The search's trial that it is: `storage`, `study` and `number`.
            trunk: The id of the job that is the same up to a step, and that step.
            replays: Ids of jobs that train the same up to later steps, and these.
            branches: The steps after which others go on from it.
            siblings: Ids of jobs that are the same up to a step, and that step.
        """
        place = {
            "sweep": self.name,
            "label": label,
            "varies": dict(varies),
            "swept": swept(varies),
            "trial": None if trial is None else dict(trial),
            "number": number,
            "devices": devices,
            "nodes": nodes,
            "trunk": None if trunk is None else list(trunk),
            "replays": [list(one) for one in replays],
            "branches": list(branches),
            "siblings": [list(one) for one in siblings],
        }
        if there := self.find(config):
            return there
        try:
            return Run.create(
                self.path / job_id(config),
                config=freeze(config),
                overrides=overrides,
                provenance=dict(provenance),
                job=place,
            )
        except ConfigError:
            made = self.find(config)  # by another driver, meanwhile
            if made is None:
                raise
            return made

    def write_jobs(self, jobs: Sequence[Run], settings: Sweep) -> None:
        """Sum up the jobs in `jobs.jsonl`."""
        rows = [dump_json(_row(job, settings)) for job in jobs]
        write_atomic(self.summary, "".join(f"{row}\n" for row in rows))

    def read_jobs(self) -> list[dict[str, Any]]:
        """The rows of `jobs.jsonl`; none before it is written."""
        if not self.summary.exists():
            return []
        return read_objects(self.summary)


def job_id(config: Mapping[str, Any]) -> str:
    """A job's id follows from what was asked, as a single run's does."""
    return fingerprint(config)[:8]


def swept(varies: Mapping[str, Any]) -> dict[str, Any]:
    """What varies, as W&B can filter by it: names without dots, scalar values."""
    names = short_names(list(varies))
    return {
        names[key].replace(".", "_"): str(value) if isinstance(value, dict | list) else value
        for key, value in varies.items()
    }


def _is_command(entry: Any) -> bool:
    """Whether an entry of `asked` holds what is read of it."""
    if not isinstance(entry, dict) or not isinstance(entry.get("directory"), str):
        return False
    lists = entry.get("overrides"), entry.get("config_dirs"), entry.get("jobs", [])
    return all(isinstance(some, list) and all(isinstance(x, str) for x in some) for some in lists)


def _row(job: Run, settings: Sweep) -> dict[str, Any]:
    known = job.problem is None
    figures = {
        name: job.objective(name, mode) if known else None for name, mode in settings.modes.items()
    }
    return {
        "id": job.id,
        "overrides": _asked(job),
        "varies": job.varies,
        "state": job.state,
        "exit_code": job.status.get("exit_code") if known else None,
        "objective": figures if len(figures) > 1 else next(iter(figures.values())),
    }


def _asked(run: Run) -> list[str] | None:
    """What was asked for a job, which it does not need; None if that is lost or unreadable."""
    try:
        return run.read_overrides() if (run.path / "overrides.yaml").exists() else None
    except UNREADABLE:
        return None
