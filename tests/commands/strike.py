"""A callback that lets a signal strike at a chosen moment, and notes the samples of every step."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytorch_lightning as pl


class Strike(pl.Callback):
    """Strikes once if the run's directory holds a file `strike` with a moment, a step and a signal.

    SIGKILL goes to all processes of the run, other signals to the one that was started.
    """

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the samples; after a resume, a step may stand twice."""
        file = Path(trainer.default_root_dir) / f"samples{trainer.global_rank}.jsonl"
        with file.open("a") as notes:
            notes.write(json.dumps([pl_module.steps_done, batch["index"]]) + "\n")

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Within a step."""
        self._strike("step", trainer, pl_module)

    def on_validation_batch_start(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Within a validation."""
        self._strike("validation", trainer, pl_module)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, _: Any) -> None:
        """Before a checkpoint is written."""
        self._strike("saving", trainer, pl_module)

    def _strike(self, moment: str, trainer: pl.Trainer, pl_module: Any) -> None:
        file = Path(trainer.default_root_dir) / "strike"
        if trainer.global_rank or not file.exists():
            return
        wanted, step, signum = json.loads(file.read_text())
        if moment == wanted and pl_module.steps_done >= step:
            file.unlink()
            send = os.killpg if signum == signal.SIGKILL else os.kill
            send(os.getpgrp(), signum)


def samples(run: Path) -> dict[tuple[str, int], list[int]]:
    """The samples of each step, by rank; of a step done twice, those that counted."""
    return {
        (file.name, step): indices
        for file in run.glob("samples*.jsonl")
        for step, indices in map(json.loads, file.read_text().splitlines())
    }
