"""Stop a job of a search that is not worth its steps."""

import logging
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.types import STEP_OUTPUT

from truesweep.compat import steps_done

log = logging.getLogger(__name__)


class Pruned(BaseException):
    """A run was stopped for good, since others are better; that is no failure.

    Not an `Exception`, so that nothing on the way takes it for one.
    """

    exit_code = 0

    def __init__(self, step: int) -> None:
        super().__init__(step)
        self.step = step

    @property
    def summary(self) -> dict[str, Any]:
        """What mirrors of the run's record show in place of final figures."""
        return {"state": "pruned", "pruned_step": self.step}


class Pruning(pl.Callback):
    """Reports every validation to a search, and stops all ranks when that says so.

    Rank 0 asks before the checkpoint of the validation is written, and all ranks obey after that:
    neither what was reported nor the answer is ever forgotten. The validation after the last step
    is reported and decides nothing.

    Args:
        objective: The metric that is reported.
        report: Called on rank 0 with the optimizer steps done and the value; whether to stop. After
            a resume it may be called with a step that it knows.
    """

    def __init__(self, objective: str, report: Callable[[int, float], bool]) -> None:
        self.objective = objective
        self.report = report
        self.pruned = False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report, and hear on all ranks whether to stop."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        value = trainer.callback_metrics.get(self.objective)
        if value is None:
            known = ", ".join(sorted(trainer.callback_metrics))
            raise ValueError(f"sweeps.objective: no metric {self.objective!r}; there are {known}")
        stop = trainer.is_global_zero and self.report(steps_done(trainer), float(value))
        stop = trainer.strategy.broadcast(stop)
        self.pruned = stop and not trainer.should_stop

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave, if that was decided before a resume."""
        self._leave(trainer)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Leave after the step whose validation decided it."""
        self._leave(trainer)

    def _leave(self, trainer: pl.Trainer) -> None:
        if self.pruned:
            log.info("pruned after step %d", steps_done(trainer))
            raise Pruned(steps_done(trainer))

    def state_dict(self) -> dict[str, Any]:
        """The answer."""
        return {"pruned": self.pruned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it up."""
        self.pruned = state_dict["pruned"]
