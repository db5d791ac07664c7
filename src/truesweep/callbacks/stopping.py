"""Stop a training early: when it no longer improves, or when a search gives it up."""

import logging
from collections.abc import Callable
from typing import Annotated, Any

import pytorch_lightning as pl
from annotated_types import Ge, Gt
from pytorch_lightning import callbacks

from truesweep.callbacks.base import Callback
from truesweep.callbacks.checkpoint import declared_mode
from truesweep.compat import steps_done
from truesweep.figures import Mode
from truesweep.runs.run import State


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's early stopping, at validations; left out until it is given a patience.

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
        if self.is_over:
            trainer.should_stop = True

    @property
    def is_over(self) -> bool:
        """Whether training is to stop, also where it goes on from a checkpoint."""
        return bool(self.wait_count >= self.patience)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Nothing: validations are counted, not epochs."""


log = logging.getLogger(__name__)


class Pruned(BaseException):
    """A run was stopped for good, since others are better; that is no failure.

    Not an `Exception`, so that nothing on the way takes it for one.
    """

    exit_code = 0
    state: State = "pruned"

    def __init__(self, step: int) -> None:
        super().__init__(step)
        self.step = step

    @property
    def summary(self) -> dict[str, Any]:
        """What mirrors of the run's record show in place of final figures."""
        return {"state": self.state, f"{self.state}_step": self.step}


class Paused(Pruned):
    """A run waits, since others are more promising; it goes on from here if that changes."""

    state: State = "paused"


class Pruning(Callback):
    """Reports every validation to a search, and stops all ranks when that says so.

    Rank 0 asks before the checkpoint of the validation is written, and all ranks obey after that:
    neither what was reported nor the answer is ever forgotten. The validation after the last step
    is reported and decides nothing.

    Args:
        objective: The metric that is reported.
        report: Called on rank 0 with the optimizer steps done and the value; whether to stop. After
            a resume it may be called with a step that it knows.
        leave: What a run is that was stopped: pruned, which holds after a resume too, or paused,
            which ends with it.
        catch_up: Called on rank 0 before the first step with the optimizer steps done: reports
            what the record holds of steps that another run has trained, if any is not reported, and
            knows what was answered before a kill; whether to stop then, or None.
        keep: Called on all ranks when it says so, to write the answer to a checkpoint.
    """

    def __init__(
        self,
        objective: str,
        report: Callable[[int, float], bool],
        leave: type[Pruned] = Pruned,
        catch_up: Callable[[int], bool | None] = lambda done: None,
        keep: Callable[[pl.Trainer], None] = lambda trainer: None,
    ) -> None:
        self.objective = objective
        self.report = report
        self.leave = leave
        self.catch_up = catch_up
        self.keep = keep
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

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        """Leave after the step whose validation decided it, or if that was before a resume."""
        if self.pruned:
            log.info("%s after step %d", self.leave.state, steps_done(trainer))
            raise self.leave(steps_done(trainer))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make up for reports; leave as after a step."""
        stop = self.catch_up(steps_done(trainer)) if trainer.is_global_zero else None
        stop = trainer.strategy.broadcast(stop)
        if stop and not (self.pruned or trainer.should_stop):
            self.pruned = True
            self.keep(trainer)
        self.on_train_batch_end(trainer)

    def state_dict(self) -> dict[str, Any]:
        """The answer, if it holds after a resume; else nothing, as none may report then."""
        return {} if issubclass(self.leave, Paused) else {"pruned": self.pruned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it up."""
        self.pruned = state_dict["pruned"]
