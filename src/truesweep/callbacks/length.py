"""End a training at its last step."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.types import STEP_OUTPUT

from truesweep.callbacks.checkpoint import steps_done


class StopAfter(pl.Callback):
    """Stop after a number of optimizer steps, having validated there.

    Lightning's own `max_steps` leaves out the last validation unless its interval divides it; a
    trainer that is told to stop validates first.

    Args:
        total_steps: Optimizer steps of the whole training.
    """

    def __init__(self, total_steps: int) -> None:
        self.total_steps = total_steps

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Ask the trainer to stop at the last step."""
        if steps_done(trainer) >= self.total_steps:
            trainer.should_stop = True
