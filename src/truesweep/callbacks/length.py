"""End a training at its last step, or leave it before."""

import signal
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.types import STEP_OUTPUT

from truesweep.compat import steps_done


class StopAfter(pl.Callback):
    """Stop after a number of optimizer steps.

    With Lightning's own `max_steps`, a run that is resumed at its last step would not start at all,
    and could not make up for a validation that is owed.

    Args:
        total_steps: Optimizer steps of the whole training.
    """

    def __init__(self, total_steps: int) -> None:
        self.total_steps = total_steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do no step where none is left."""
        self._stop(trainer)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Stop at the last step."""
        self._stop(trainer)

    def _stop(self, trainer: pl.Trainer) -> None:
        if steps_done(trainer) >= self.total_steps:
            trainer.should_stop = True


class LeaveAfter(pl.Callback):
    """Save and leave after a step, as on a signal; the schedule is that of the whole training.

    Args:
        step: The last optimizer step, counted from 1.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ask all ranks to leave, before the step in which they agree on it."""
        if steps_done(trainer) + 1 >= self.step:
            pl_module.stop_requested = signal.SIGTERM
