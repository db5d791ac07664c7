"""The loggers of a run: what they are told, that they can be built, and how a run ends on them."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any, cast

from pytorch_lightning.loggers import Logger

from truesweep import dotted
from truesweep.analysis.verdict import Verdict
from truesweep.callbacks import Pruned, Stopped
from truesweep.config.targets import TARGET, instantiate, resolve
from truesweep.config.types import REQUIRED, schema_of
from truesweep.errors import ConfigError, in_short
from truesweep.jobs.parts import task_class
from truesweep.record.loggers import FOLDERS, GIVEN_BY_SERVERS, Guarded, RunInfo, RunLogger
from truesweep.record.wandb import WandbLogger
from truesweep.runs.run import Run
from truesweep.tasks import DivergedError, OutOfMemory

TAKEN = ("checkpoints", "logs", "model", "ray", "scores", "slurm", "wandb")
"""Folders of a run's directory that are no logger's, which is written anew by a resume."""
Tables = Mapping[str, tuple[list[str], list[list[Any]]]]


def describe(run: Run, config: dict[str, Any]) -> RunInfo:
    """What the loggers of a run are told of it."""
    job = run.job
    return RunInfo(
        directory=run.path,
        id=wandb_id(run),
        name=config["name"],
        config=config,
        label=job.get("label") or "",
        group=job.get("sweep"),
        job_type="sweep" if job.get("sweep") else "train",
        tags=tags(run, config),
        swept=job.get("swept") or {},
        best={name: figure.mode for name, figure in run.figures.items() if figure.mode},
        agents=is_agents(run),
    )


def make_loggers(config: dict[str, Any], info: RunInfo) -> list[RunLogger]:
    """The loggers that mirror a run; none is started before it is called."""
    return [_guarded(one, info) for one in logger_nodes(config)]


def check_loggers(config: dict[str, Any]) -> None:
    """Build the loggers as a run will, and leave them.

    Raises:
        ConfigError: One cannot be built, or would be refused by its server.
    """
    for one in logger_nodes(config):
        with TemporaryDirectory() as folder:
            logger = one.build(RunInfo(Path(folder), "id", str(config["name"]), config))
            if isinstance(logger, RunLogger):
                logger.check()


@dataclass(frozen=True)
class LoggerNode:
    """A logger as its node describes it.

    Args:
        config: The whole configuration.
        key: The node's dotted key: `logger`, or `logger.NAME` where there are several.
    """

    config: dict[str, Any]
    key: str

    @property
    def node(self) -> dict[str, Any]:
        """Its class and what is set of it."""
        return cast(dict[str, Any], dotted.get(self.config, self.key))

    @cached_property
    def target(self) -> Any:
        """Its class."""
        return resolve(self.node[TARGET], self.config["allowed_packages"])

    @property
    def folder(self) -> str:
        """The name of its folder: `csv` for `logger=csv` and for Lightning's `CSVLogger`."""
        group, _, name = self.key.partition(".")
        name = name or self.target.__name__.removesuffix("Logger").lower() or group
        return f"{name}_logger" if name in TAKEN else name

    def offered(self, info: RunInfo) -> dict[str, Any]:
        """What the program gives it: parameters with no value, or null, that are known by name.

        One that has a default of its own keeps that, and so does what the configuration sets.
        """
        schema = schema_of(self.target)
        if "info" in schema.parameters:  # which has it all
            return {"info": info}
        facts = info.facts(info.directory / self.folder)
        kept = info.kept_id(self.key)
        for name in GIVEN_BY_SERVERS:
            if kept.exists():
                facts[name] = kept.read_text(encoding="utf-8")
            elif name in schema.parameters and schema.parameters[name].default is not REQUIRED:
                del facts[name]
        wanted = {
            name: facts[name]
            for name, parameter in schema.parameters.items()
            if name in facts
            and self.node.get(name) is None
            and parameter.default in (None, REQUIRED)
        }
        misfits = schema.fit(wanted).wrong
        return {name: value for name, value in wanted.items() if name not in misfits}

    def build(self, info: RunInfo) -> Logger:
        """The logger.

        Raises:
            ConfigError: It cannot be built, or is none.
        """
        offered = self.offered(info)
        node = {name: value for name, value in self.node.items() if name not in offered}
        logger = instantiate(node, self.key, self.config["allowed_packages"], **offered)
        if not isinstance(logger, Logger):
            raise ConfigError(
                f"{self.key}: {node[TARGET]} is no logger of Lightning's; derive it from "
                "pytorch_lightning.loggers.Logger or truesweep.record.loggers.RunLogger"
            )
        return logger


def logger_nodes(config: dict[str, Any]) -> list[LoggerNode]:
    """The loggers that a configuration asks for."""
    node = config.get("logger") or {}
    if TARGET in node:
        return [LoggerNode(config, "logger")]
    return [LoggerNode(config, f"logger.{name}") for name, one in node.items() if one]


def wandb_key(config: dict[str, Any]) -> str | None:
    """The dotted key of the logger that is W&B's; None without one."""
    return next((one.key for one in logger_nodes(config) if one.target is WandbLogger), None)


def _guarded(one: LoggerNode, info: RunInfo) -> RunLogger:
    if one.target is WandbLogger:  # has a process of its own, which guards the training
        wandb = one.build(info)
        assert isinstance(wandb, WandbLogger)
        return wandb
    offered = one.offered(info)
    folder = next((Path(offered[name]) for name in FOLDERS if name in offered), None)
    shown = f"{one.key}={one.node[TARGET].rpartition('.')[2]}"
    return Guarded(info, shown, partial(one.build, info), folder)


def wandb_id(run: Run) -> str:
    """One id for one directory, kept with the run, however often it is killed and resumed.

    What was asked is in it, but not alone: the same configuration trained anew, or by a colleague,
    is another run. W&B's own agent has made a run on the server already, and names it in the
    environment.
    """
    known = run.status.get("wandb_id")
    if known or run.metrics.exists():  # recorded before ids were kept
        return str(known or run.identity[:16])
    given = os.environ.get("WANDB_RUN_ID") if is_agents(run) else None
    new = given or run.new_wandb_id()
    if os.environ.get("RANK", "0") == "0":
        run.update_status(wandb_id=new)
    return new


def is_agents(run: Run) -> bool:
    """Whether W&B's agent waits for this run; a sweep that an agent starts numbers its own jobs."""
    return bool(os.environ.get("WANDB_SWEEP_ID")) and "number" not in run.job


def tags(run: Run, config: dict[str, Any]) -> list[str]:
    """Task, architecture, commit."""
    model = config["model"]
    architecture = model.get("architecture") or str(model.get("name_or_path", "")).rstrip("/")
    git = run.read_provenance().get("git") or {}
    task = task_class(config)
    found = [
        task.tag or task.__name__,
        str(architecture).rpartition("/")[2],
        str(git.get("commit") or "")[:8],
    ]
    return [tag for tag in found if tag]


def conclude(loggers: Sequence[RunLogger], error: BaseException) -> None:
    """End the record of a run that did not come to its end."""
    if isinstance(error, Stopped | OutOfMemory):  # ranks out of memory begin again at once
        summary = {"state": "preempted"}
    elif isinstance(error, Pruned):
        summary = error.summary
    else:
        diverged = isinstance(error, DivergedError)
        summary = {"state": "diverged" if diverged else "failed", "error": in_short(error)}
        for logger in loggers:
            logger.alert("Diverged" if diverged else "Failed", in_short(error), "ERROR")
    finish(loggers, summary, exit_code=getattr(error, "exit_code", 1))


def complete(
    loggers: Sequence[RunLogger],
    results: Mapping[str, Any],
    tables: Tables,
    verdict: Verdict,
    files: Sequence[Path],
) -> None:
    """End the record of a run that did, and tell the user if it should not be left as it is."""
    for logger in loggers:
        for name, (columns, rows) in tables.items():
            logger.log_table(name, columns, rows)
        if verdict.kind in ("overfitting", "diverged"):
            logger.alert(verdict.kind.capitalize(), verdict.text, "WARN")
        logger.log_artifact(files)
    shown = {"verdict": verdict.kind, "verdict_text": verdict.text, "state": "completed"}
    finish(loggers, {**results, **shown}, exit_code=0)


def finish(loggers: Sequence[RunLogger], summary: Mapping[str, Any], exit_code: int) -> None:
    """Close all records at once, since each of them may take its time."""
    threads = [Thread(target=logger.finish, args=[summary, exit_code]) for logger in loggers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
