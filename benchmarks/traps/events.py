"""A callback for both stacks: writes down what happens, and lets a signal strike at a moment."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch

When = Literal["before step", "in step", "after step", "validation", "saving", "any time"]


@dataclass(frozen=True)
class Moment:
    """When a run is struck, and by what.

    Args:
        when: In which part of the program; `any time` is left to the parent process.
        step: During or after which optimizer step, from 1.
        signum: The signal.
        everyone: Whether it goes to all processes of the run, or to the one that was started.
        seconds: How long after the moment.
    """

    when: When
    step: int
    signum: int = signal.SIGKILL
    everyone: bool = True
    seconds: float = 0.0


class Events(pl.Callback):
    """Notes the samples of every step and its loss; strikes once if `moment.json` says so.

    Args:
        folder: Holds `moment.json`, and one file of notes a rank.
    """

    def __init__(self, *, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the samples."""
        step = _step(trainer, pl_module) + 1
        self._strike("before step", step, trainer)
        self._note(trainer, step=step, samples=list(batch["index"]))

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: Any, optimizer: torch.optim.Optimizer
    ) -> None:
        """Note the learning rate, between the gradients and the change of weights."""
        step = _step(trainer, pl_module) + 1
        self._note(trainer, step=step, rate=optimizer.param_groups[0]["lr"])
        self._strike("in step", step, trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss."""
        step = _step(trainer, pl_module)
        loss = trainer.callback_metrics.get("train/loss")
        if loss is not None:
            self._note(trainer, step=step, loss=float(loss))
        self._strike("after step", step, trainer)

    def on_validation_batch_start(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Strike within a validation."""
        self._strike("validation", _step(trainer, pl_module), trainer)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: Any) -> None:
        """Strike while a checkpoint is written."""
        self._strike("saving", _step(trainer, pl_module), trainer)

    def _note(self, trainer: pl.Trainer, **values: Any) -> None:
        with (self.folder / f"rank{trainer.global_rank}.jsonl").open("a") as file:
            file.write(json.dumps(values) + "\n")

    def _strike(self, when: When, step: int, trainer: pl.Trainer) -> None:
        """Send the signal if this is the moment; the first rank does, and only once."""
        file = self.folder / "moment.json"
        if trainer.global_rank or trainer.state.fn != "fit" or not file.exists():
            return
        moment = Moment(**json.loads(file.read_text()))
        if moment.when != when or step < moment.step:
            return
        file.unlink()
        if moment.seconds:
            threading.Timer(moment.seconds, send, (os.getpgrp(), moment)).start()
        else:
            send(os.getpgrp(), moment)


def _step(trainer: pl.Trainer, pl_module: Any) -> int:
    return int(getattr(pl_module, "steps_done", trainer.global_step))


def send(group: int, moment: Moment) -> None:
    """Send the signal to a run, whose first process leads its group; from a process of its own.

    The run's own processes may tell a signal from each other from one that comes from outside.
    """
    sender = os.fork()
    if sender:
        os.waitpid(sender, 0)
        return
    try:
        (os.killpg if moment.everyone else os.kill)(group, moment.signum)
    finally:
        os._exit(0)


def prepare(folder: Path, moment: Moment) -> None:
    """Let a run be struck."""
    (folder / "moment.json").write_text(json.dumps(asdict(moment)))


def new_folder() -> Path:
    """A folder for the notes of one more run."""
    base = Path("notes").absolute()
    base.mkdir(exist_ok=True)
    folder = base / str(len(list(base.iterdir())))
    folder.mkdir()
    return folder


def notes(folder: Path, key: str) -> dict[tuple[int, int], Any]:
    """What was noted under a key, by step and rank; of a step done twice, what came last."""
    return {
        (row["step"], rank): row[key]
        for rank, file in enumerate(sorted(folder.glob("rank*.jsonl")))
        for row in _rows(file)
        if key in row
    }


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    for line in file.read_text().splitlines():
        yield json.loads(line)
