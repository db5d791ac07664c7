"""Stop when validation no longer improves."""

from typing import Annotated, Any

import pytorch_lightning as pl
from annotated_types import Ge, Gt
from pytorch_lightning import callbacks

from truesweep.callbacks.checkpoint import declared_mode
from truesweep.figures import Mode


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's early stopping, off until it is given a patience.

    Args:
        patience: Validations without improvement after which training ends; None: never.
        monitor: The metric that has to improve.
        mode: Whether less (`min`) or more (`max`) of it is better; None: as the metric declares.
        min_delta: The least change that counts as improvement.
    """

    def __init__(
        self,
        *,
        patience: Annotated[int, Gt(0)] | None = None,
        monitor: str = "val/loss",
        mode: Mode | None = None,
        min_delta: Annotated[float, Ge(0)] = 0.0,
    ) -> None:
        super().__init__(
            *(monitor, min_delta, patience or 0),
            mode=mode or declared_mode("early_stopping", monitor),
            check_finite=False,
            check_on_train_epoch_end=False,  # at validations, which count in optimizer steps
        )
        self.enabled = patience is not None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the count, but not the patience, which a resume may change."""
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep to a decision from before a resume."""
        if self.enabled and self.wait_count >= self.patience:
            trainer.should_stop = True

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the metric, if a patience was given."""
        if self.enabled:
            super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Nothing: validations are counted, not epochs."""
