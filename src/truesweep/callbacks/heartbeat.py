"""Tell other processes how far a run is."""

import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.types import STEP_OUTPUT

from truesweep.compat import steps_done


class Heartbeat(pl.Callback):
    """Passes the current step on every few seconds, from rank 0.

    Args:
        write: Called with the number of optimizer steps done.
        seconds: The least time between two calls.
    """

    def __init__(self, write: Callable[[int], None], seconds: float = 5.0) -> None:
        self.write = write
        self.seconds = seconds
        self._written_at = 0.0

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Write, if it is time."""
        self._beat(trainer)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write, if it is time: an evaluation is a sign of life, too."""
        self._beat(trainer)

    on_test_batch_end = on_validation_batch_end

    def _beat(self, trainer: pl.Trainer) -> None:
        if trainer.is_global_zero and time.monotonic() - self._written_at >= self.seconds:
            self._written_at = time.monotonic()
            self.write(steps_done(trainer))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write after every validation."""
        if trainer.is_global_zero and trainer.state.fn == "fit":
            self.write(steps_done(trainer))
