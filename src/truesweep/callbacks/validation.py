"""Validate every so many optimizer steps, and at the last one."""

from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist

from truesweep.callbacks.base import Callback
from truesweep.compat import steps_done, within_a_step


class ValidationInterrupted(BaseException):
    """A validation was left before its end, on all ranks, because one of them was sent a signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class Validation(Callback):
    """Lightning's validation loop, run at the steps that are due.

    Lightning's own trigger is off (`limit_val_batches=0`): after a resume it guesses from counters
    whether a step was validated, and loses the validation of a step that was saved before it. This
    callback keeps the last validated step with the checkpoint, so that one that is owed is made up
    for.

    Args:
        every: Optimizer steps between validations.
        total_steps: Optimizer steps of the whole training; the last one is validated.

    Attributes:
        validated: The last step that was validated.
        at_end: Whether the step at which training ends is validated where it is none of these, as
            when a callback of somebody's has stopped it.
    """

    def __init__(self, every: int, total_steps: int) -> None:
        self.every = every
        self.total_steps = total_steps
        self.validated = 0
        self.at_end = True

    def due(self, step: int) -> bool:
        """Whether a step, counted from 1, is validated."""
        return step > 0 and (step % self.every == 0 or step == self.total_steps)

    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Leave at once on a signal; the other ranks are met where they end their share.

        Ranks of a sharded model go together from batch to batch, and so do their decisions.
        """
        if trainer.state.fn != "fit":
            return
        if pl_module.stop_requested or pl_module.is_sharded:
            leave_together(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Before figures are reduced over ranks: see whether one of them has left."""
        if trainer.state.fn == "fit":
            leave_together(trainer, pl_module)
            self.validated = steps_done(trainer)

    def run(self, trainer: pl.Trainer) -> None:
        """Validate.

        Raises:
            ValidationInterrupted: A signal was sent to a rank.
        """
        loop = trainer.fit_loop.epoch_loop.val_loop
        loop.restarting = False  # a validation always begins at its beginning
        trainer.limit_val_batches = 1.0
        trainer.validating = True
        try:
            with within_a_step(trainer):
                loop.run()
        finally:
            trainer.training = True
            trainer.limit_val_batches = 0

    def state_dict(self) -> dict[str, Any]:
        """The last validated step."""
        return {"validated": self.validated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it up."""
        self.validated = state_dict["validated"]


def leave_together(trainer: pl.Trainer, pl_module: Any) -> None:
    """Agree over all ranks on whether one was sent a signal.

    Raises:
        ValidationInterrupted: One was; on all ranks alike.
    """
    signum = pl_module.stop_requested
    if trainer.world_size > 1:
        seen = torch.tensor(signum, device=pl_module.device)
        dist.all_reduce(seen, dist.ReduceOp.MAX)
        signum = int(seen)
    if signum:
        raise ValidationInterrupted(signum)
