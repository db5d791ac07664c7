"""What one rank of a job does, from the frozen configuration to the final figures."""

import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from rich.console import Console

from truesweep.callbacks import (
    Checkpoint,
    Heartbeat,
    Preemption,
    SameConfiguration,
    StopAfter,
    steps_done,
    stoppable,
)
from truesweep.config import fingerprint
from truesweep.jobs.directory import RunDirectory
from truesweep.jobs.load import save_layout
from truesweep.jobs.logs import logs
from truesweep.jobs.parts import Parts, build, make
from truesweep.jobs.results import collect_results
from truesweep.record.files import CheckpointFiles, verify_checksum, write_json
from truesweep.record.metrics import MetricsFile, read


def run_rank(directory: str, resume: bool = False) -> None:
    """Train, or go on training, and score: one rank, in this process.

    Rank, world size and addresses come from the environment that the launcher set.

    Args:
        directory: The run's directory.
        resume: Continue from the newest valid checkpoint.

    Raises:
        Stopped: A signal asked for it; everything is saved.
    """
    run = RunDirectory(Path(directory))
    with logs(run, rank=int(os.environ.get("RANK", "0"))), stoppable():
        config = run.read_config()
        parts = build(config)
        use_processor(parts)
        job = Job(run, config, parts)
        try:
            job.fit(resume)
            job.score()
        except BaseException as error:
            job.close(exit_code=getattr(error, "exit_code", 1))
            raise


class Job:
    """One rank's trainer, and what it reports to.

    Args:
        run: The run's directory.
        config: The configuration as it stands there, secrets as references.
        parts: What the configuration describes.
    """

    def __init__(self, run: RunDirectory, config: dict[str, Any], parts: Parts) -> None:
        self.run = run
        self.config = config
        self.parts = parts
        self.metrics = MetricsFile(run.path)
        self.mirrors = self._mirrors()
        self.checkpoint: Checkpoint = make(
            config, "callbacks.checkpoint", directory=run.checkpoints
        )
        self.trainer = parts.trainer.make(
            steps_per_epoch=parts.data.steps_per_epoch,
            callbacks=self._callbacks(),
            loggers=[self.metrics, *self.mirrors],
            checkpoint_io=CheckpointFiles(),
            directory=str(run.path),
        )

    def fit(self, resume: bool) -> None:
        """Train to the end, from the start or from a checkpoint."""
        if self.run.status.get("phase") == "test":
            return
        checkpoint = newest_checkpoint(self.run) if resume else None
        if self.trainer.is_global_zero and checkpoint is None:
            save_layout(self.run.model, self.parts.task.model, self.parts.task.tokenizer)
        self.trainer.fit(
            self.parts.task,
            datamodule=self.parts.data,
            ckpt_path=checkpoint,
            weights_only=True,
        )
        if self.trainer.is_global_zero:
            self.run.update_status(phase="test")

    def score(self) -> None:
        """Score the test split once, by the best checkpoint, and write the final figures."""
        self.trainer.test(
            self.parts.task,
            datamodule=self.parts.data,
            ckpt_path=self.checkpoint.best_path,
            weights_only=True,
            verbose=False,
        )
        if not self.trainer.is_global_zero:
            return
        results = collect_results(self.parts, self.checkpoint, read(self.run.metrics))
        tables = self.parts.task.tables()
        write_json(self.run.tables, tables)
        write_json(self.run.results, results)
        for mirror in self.mirrors:
            for name, (columns, rows) in tables.items():
                mirror.log_table(name, columns, rows)
        self.close(exit_code=0, summary=results)

    def close(self, exit_code: int, summary: dict[str, Any] | None = None) -> None:
        """Bring the mirrors' records to an end."""
        for mirror in self.mirrors:
            mirror.finish(summary or {}, exit_code=exit_code)

    def _mirrors(self) -> list[Any]:
        if not self.config["logger"]:
            return []
        mirror = make(
            self.config,
            "logger",
            directory=self.run.path,
            run_id=fingerprint(self.config)[:16],
            run_name=self.config["name"],
            config=self.config,
        )
        return [mirror]

    def _callbacks(self) -> list[pl.Callback]:
        steps = self.parts.recipe.total_steps
        supplied = {"progress": {"total_steps": steps}}
        chosen = [
            make(self.config, f"callbacks.{name}", **supplied.get(name, {}))
            for name, node in self.config["callbacks"].items()
            if node and name != "checkpoint"
        ]
        return [
            SameConfiguration(fingerprint(self.config)),
            TakeUp(self.metrics),
            StopAfter(steps),
            *chosen,
            self.checkpoint,
            Heartbeat(lambda step: self.run.update_status(step=step)),
            Preemption(self.checkpoint),
        ]


class TakeUp(pl.Callback):
    """On resume, lets the record go on where the checkpoint stands: no gap, no step twice.

    Args:
        metrics: The record that counts; the others follow it by themselves.
    """

    def __init__(self, metrics: MetricsFile) -> None:
        self.metrics = metrics

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop what was recorded after the checkpoint, which training now comes to again."""
        if steps_done(trainer):
            self.metrics.truncate(steps_done(trainer))


def newest_checkpoint(run: RunDirectory) -> Path:
    """The checkpoint to resume from: the last one, or the best where the last is damaged.

    Raises:
        FileNotFoundError: There is no valid one.
    """
    for name in ("last.ckpt", "best.ckpt"):
        path = run.checkpoints / name
        if path.exists() and verify_checksum(path):
            return path
        if path.exists():
            Console(stderr=True).print(f"{path} is damaged: its checksum does not match")
    raise FileNotFoundError(f"{run.checkpoints} holds no valid checkpoint to resume from")


def use_processor(parts: Parts) -> None:
    """Share the cores among this node's ranks, and keep tiny numbers from slowing them down."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    ranks = parts.trainer.local_ranks()
    torch.set_num_threads(parts.trainer.threads or max(1, (cores or 1) // ranks))
    torch.set_flush_denormal(True)
