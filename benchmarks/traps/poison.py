"""A gradient that is not a number, once, on one rank."""

from typing import Any

import pytorch_lightning as pl
from torch import Tensor


class Poison(pl.Callback):
    """Poisons a gradient of the last rank in one step, before ranks exchange theirs.

    Args:
        step: Which step, from 0.
    """

    def __init__(self, *, step: int) -> None:
        self.step = step
        self._handle: Any = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Lay the poison."""
        last = trainer.global_rank == trainer.world_size - 1
        if batch_idx == self.step and last and trainer.current_epoch == 0:
            weight: Tensor = next(pl_module.model.parameters())
            self._handle = weight.register_hook(self._poison)

    def _poison(self, gradient: Tensor) -> Tensor:
        self._handle.remove()
        return gradient * float("nan")
